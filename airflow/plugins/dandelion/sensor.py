"""The sensor of a step: waits in the triggerer, fails at once when the step failed, hands the result on."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import requests
from airflow.sdk import BaseHook, BaseSensorOperator
from airflow.sdk.exceptions import AirflowFailException, AirflowSensorTimeout
from airflow.sdk.listener import get_listener_manager

from dandelion.connection import CONNECTION_ID, functions_in
from dandelion.events import Event
from dandelion.links import ModelLink, RunLink
from dandelion.runs import LARGEST_RESULT_BYTES, Run, UnusableAnswer, read_run
from dandelion.trigger import RunTrigger

# The trigger ends by itself and says why; Airflow's own limit is only there should it not.
_GRACE_SECONDS = 120
# To and from the triggerer takes as long: a step that is done by then is not worth the way.
_SOON_SECONDS = 2
_PAUSE_SECONDS = 0.2
_REQUEST_TIMEOUT_SECONDS = _SOON_SECONDS + 5


class StepSensor(BaseSensorOperator):
    """Waits for a run and answers with its result event.

    A short step is waited for on the worker, a longer one in the triggerer, where the task also ends when the step
    succeeds: no worker has to start for it. Where somebody listens to tasks, as OpenLineage does, it ends on a worker,
    since Airflow tells listeners only of those. It does not begin in the triggerer (`start_from_trigger`): Airflow
    3.3.2's dies of a DAG whose Params have no default.

    :param location: absolute address of the run, as SubmitOperator answers it
    """

    template_fields: Sequence[str] = ("location",)
    operator_extra_links = (RunLink(), ModelLink())

    def __init__(
        self,
        *,
        location: Any,
        http_conn_id: str = CONNECTION_ID,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.location = location
        self.http_conn_id = http_conn_id

    def execute(self, context: Any) -> Event:
        """Goes to the triggerer unless the step is done soon: no worker slot is held while it works."""
        run = self._ended_soon()
        if run is not None:
            return self._result_of(run)
        self.defer(
            trigger=RunTrigger(
                self.location,
                time.time() + self.timeout,
                self.http_conn_id,
                ends_task=not get_listener_manager().has_listeners,
            ),
            method_name="finish",
            timeout=timedelta(seconds=self.timeout + _GRACE_SECONDS),
        )

    def _ended_soon(self) -> Run | None:
        """The run if it ends within moments; whatever else is answered, the trigger sees it again and tells."""
        headers = functions_in(BaseHook.get_connection(self.http_conn_id)).headers
        until = time.monotonic() + _SOON_SECONDS
        # The answer comes with every change, not with the end alone.
        while (remaining := until - time.monotonic()) > 0:
            try:
                run = self._ask(headers, remaining)
            except (requests.RequestException, UnusableAnswer) as trouble:
                self.log.info("Left to the triggerer: %s", trouble)
                return None
            if run.has_ended:
                return run
            time.sleep(_PAUSE_SECONDS)
        return None

    def _ask(self, headers: dict[str, str], wait: float) -> Run:
        with requests.get(
            self.location,
            params={"wait": f"{wait:.0f}s"},
            headers=headers,
            timeout=_REQUEST_TIMEOUT_SECONDS,
            allow_redirects=False,
            stream=True,
        ) as response:
            if response.status_code != 200:
                raise UnusableAnswer(f"{self.location} answered {response.status_code}")
            body = bytearray()
            for chunk in response.iter_content(64 * 1024):
                body += chunk
                if len(body) > LARGEST_RESULT_BYTES:
                    break
            return read_run(bytes(body))

    def finish(self, context: Any, event: dict[str, Any]) -> Event:
        """Turns the outcome into the task's end."""
        if event["outcome"] == "timeout":
            raise AirflowSensorTimeout(
                f"{self.location} had no outcome after {self.timeout:.0f} s: {event['detail']}"
            )
        if event["outcome"] != "ended":
            raise AirflowFailException(event["detail"])
        return self._result_of(Run.model_validate(event["run"]))

    def _result_of(self, run: Run) -> Event:
        self.log.info("%s", run.describe())
        if run.status != "succeeded":
            problem = run.problem
            why = f"{problem.code}: {problem.detail}" if problem else "it gives no reason"
            raise AirflowFailException(f"The step {run.function} {run.status}: {why} ({self.location})")
        if run.result is None:
            raise AirflowFailException(
                f"The step {run.function} succeeded without a result ({self.location})."
            )
        return run.result
