"""Submitting: the event goes to the function, the address of its run comes back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from airflow.providers.http.hooks.http import HttpHook
from airflow.providers.http.operators.http import HttpOperator
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSkipException
from requests import Response, Session

from dandelion.connection import CONNECTION_ID, functions_in
from dandelion.events import Event, complete_event, to_binary
from dandelion.runs import (
    TEMPORARY_STATUSES,
    UnusableAnswer,
    problem_in,
    run_url,
)

_TIMEOUT_SECONDS = 60


class FunctionHook(HttpHook):
    """HttpHook whose base address is a function's and whose password is a bearer token."""

    def __init__(self, function: str, http_conn_id: str) -> None:
        super().__init__(method="POST", http_conn_id=http_conn_id)
        self.function = function

    def get_conn(
        self,
        headers: dict[Any, Any] | None = None,
        extra_options: dict[str, Any] | None = None,
    ) -> Session:
        """Opens a session; the stock one would send the extra as headers and the password as Basic."""
        functions = functions_in(self.get_connection(self.http_conn_id))
        self.base_url = functions.url_of(self.function)
        self._base_url_initialized = True
        session = Session()
        session.headers.update({**functions.headers, **(headers or {})})
        return session


class SubmitOperator(HttpOperator):
    """Hands an event to a function and answers with the absolute address of the run that works on it.

    :param function: name of the function
    :param event: a result event, sent on as it is, or a draft with `type`, `subject` and `data`
    :param accepts: type of event that the function is for; the task is skipped at another one
    """

    template_fields: Sequence[str] = ("event",)
    template_fields_renderers: ClassVar[dict[str, str]] = {"event": "json"}

    def __init__(
        self,
        *,
        function: str,
        event: Any,
        accepts: str | None = None,
        http_conn_id: str = CONNECTION_ID,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            endpoint="/",
            http_conn_id=http_conn_id,
            deferrable=False,
            response_check=check_accepted,
            response_filter=location_of,
            extra_options={
                "check_response": False,
                "allow_redirects": False,
                "timeout": _TIMEOUT_SECONDS,
            },
            **kwargs,
        )
        self.function = function
        self.event = event
        self.accepts = accepts

    @property
    def hook(self) -> FunctionHook:
        """The function's own hook."""
        return FunctionHook(self.function, self.http_conn_id)

    def execute(self, context: Any) -> Any:
        """Sends the event; a retry sends the same one."""
        if not isinstance(self.event, dict):
            raise AirflowFailException(f"No event for {self.function}: got {type(self.event).__name__}.")
        if self.accepts not in (None, self.event.get("type")):
            reason = self.event.get("data", {}).get("reason", "no reason given")
            raise AirflowSkipException(f"{self.function} is not for {self.event.get('type')}: {reason}")
        task = context["ti"]
        event: Event = complete_event(
            self.event,
            dag_id=task.dag_id,
            run_id=task.run_id,
            task_id=task.task_id,
            map_index=task.map_index,
        )
        headers, self.data = to_binary(event)
        self.headers = {**headers, "prefer": "respond-async"}
        self.log.info("Sending %s %s to %s", event["type"], event["id"], self.function)
        return super().execute(context)


def check_accepted(response: Response) -> bool:
    """A step that was accepted works on by itself."""
    return check_status(response, 202)


def check_status(response: Response, wanted: int) -> bool:
    """Tells what another try can mend from what it cannot."""
    if response.status_code == wanted:
        return True
    sentence = f"{response.url} answered {response.status_code}: {problem_in(response.text)}"
    if response.status_code in TEMPORARY_STATUSES or response.status_code == 500:
        raise AirflowException(sentence)
    raise AirflowFailException(sentence)


def location_of(response: Response) -> str:
    """The run's address, if it is one to trust."""
    try:
        return run_url(response.url, response.headers.get("location"))
    except UnusableAnswer as error:
        raise AirflowFailException(str(error)) from error
