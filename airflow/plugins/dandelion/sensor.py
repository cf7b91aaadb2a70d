"""The sensor of a step: waits in the triggerer, fails at once when the step failed, hands the result on."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from airflow.sdk import BaseSensorOperator
from airflow.sdk.exceptions import AirflowFailException, AirflowSensorTimeout
from airflow.sdk.listener import get_listener_manager

from dandelion.connection import CONNECTION_ID
from dandelion.events import Event
from dandelion.links import ModelLink, RunLink
from dandelion.runs import Run
from dandelion.trigger import RunTrigger

# The trigger ends by itself and says why; Airflow's own limit is only there should it not.
_GRACE_SECONDS = 120


class StepSensor(BaseSensorOperator):
    """Waits for a run and answers with its result event.

    When the step succeeds, the task ends in the triggerer: no worker has to start for it. Where somebody listens to
    tasks, as OpenLineage does, it ends on a worker, since Airflow tells listeners only of those. It does not begin in
    the triggerer (`start_from_trigger`): Airflow 3.3.2's dies of a DAG whose Params have no default.

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

    def execute(self, context: Any) -> None:
        """Goes to the triggerer at once: no worker slot is held while the step works."""
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

    def finish(self, context: Any, event: dict[str, Any]) -> Event:
        """Turns the outcome into the task's end."""
        if event["outcome"] == "timeout":
            raise AirflowSensorTimeout(
                f"{self.location} had no outcome after {self.timeout:.0f} s: {event['detail']}"
            )
        if event["outcome"] != "ended":
            raise AirflowFailException(event["detail"])
        run = Run.model_validate(event["run"])
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
