"""Asking monitor whether what the model is asked has drifted."""

from __future__ import annotations

from typing import Any, Literal
from urllib.parse import quote

from airflow.providers.http.operators.http import HttpOperator
from airflow.sdk.exceptions import AirflowFailException
from pydantic import BaseModel, ValidationError
from requests import Response

from dandelion.connection import CONNECTION_ID
from dandelion.submit import FunctionHook, check_status

# A check takes seconds; the first one waits for the function to start, too.
_TIMEOUT_SECONDS = 120


class Decision(BaseModel):
    """What monitor's policy made of an alarm."""

    action: Literal["retrain", "wait", "none"]
    reason: str


class Requested(BaseModel):
    """The event that asks for a training, and who chains its steps."""

    source: str
    id: str
    by: Literal["airflow", "broker"]


class Alarm(BaseModel):
    """Drift that was seen."""

    version: str
    ordinal: int
    decision: Decision
    requested: Requested | None = None


class Outcome(BaseModel):
    """The part of monitor's answer that a DAG goes by."""

    status: Literal["no-champion", "no-reference", "too-few-photos", "checked-elsewhere", "checked"]
    photos: int | None = None
    wanted: int | None = None
    alarm: Alarm | None = None

    def describe(self) -> str:
        """One sentence: why nothing is trained, or what is."""
        if self.alarm:
            seen = f"Drift of what {self.alarm.version} is asked (check {self.alarm.ordinal})"
            return f"{seen}: {self.alarm.decision.action}, {self.alarm.decision.reason}"
        if self.status == "too-few-photos":
            return f"{self.photos} of {self.wanted} new photos: too few for a check"
        if self.status == "checked":
            return "Nothing has drifted"
        return f"Nothing was checked: {self.status}"


class CheckDriftOperator(HttpOperator):
    """Has monitor look for drift now and answers with what it found.

    Monitor itself asks for the training that an alarm calls for, by the one way it is set up for. So a task that is
    tried again asks for nothing twice: a window of answers is checked once, and an alarm that could not be handed on
    is taken up by the next look.

    :param model: name of the model
    """

    template_fields = ("model",)

    def __init__(self, *, model: str, http_conn_id: str = CONNECTION_ID, **kwargs: Any) -> None:
        super().__init__(
            endpoint="/drift",
            http_conn_id=http_conn_id,
            deferrable=False,
            response_check=lambda response: check_status(response, 200),
            response_filter=outcome_of,
            extra_options={
                "check_response": False,
                "allow_redirects": False,
                "timeout": _TIMEOUT_SECONDS,
            },
            **kwargs,
        )
        self.model = model

    @property
    def hook(self) -> FunctionHook:
        """Monitor's own hook."""
        return FunctionHook("monitor", self.http_conn_id)

    def execute(self, context: Any) -> Any:
        """Asks, and tells the task's log what came of it."""
        self.endpoint = f"/drift?model={quote(self.model, safe='')}"
        found = super().execute(context)
        self.log.info(Outcome.model_validate(found).describe())
        return found


def outcome_of(response: Response) -> dict[str, Any]:
    """Monitor's answer, if it is one."""
    try:
        return Outcome.model_validate_json(response.content).model_dump()
    except ValidationError as error:
        fault = error.errors()[0]
        where = ".".join(str(part) for part in fault["loc"]) or "body"
        raise AirflowFailException(
            f"{response.url} answers with no outcome of a check ({where}: {fault['msg']}): {response.text[:200]!r}"
        ) from error
