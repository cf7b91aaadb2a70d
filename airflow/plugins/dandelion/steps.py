"""One step of a DAG: submit, then wait."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from dandelion.sensor import StepSensor
from dandelion.submit import SubmitOperator

_TRIES_AGAIN = 5


def step(function: str, event: Any, *, accepts: str | None = None, timeout_seconds: float = 3600) -> Any:
    """Adds the two tasks of a step.

    :param accepts: type of event that the step is for, as a broker's Trigger filters: at another one the step is
        skipped, and what follows it
    :returns: the result event, to be given to the next step as it is
    """
    submitted = SubmitOperator(
        task_id=function,
        function=function,
        event=event,
        accepts=accepts,
        retries=_TRIES_AGAIN,
        retry_delay=timedelta(seconds=5),
        retry_exponential_backoff=True,
        max_retry_delay=timedelta(minutes=2),
    )
    # A failed step raises AirflowFailException, which no retry follows; these are for a lost worker or triggerer.
    waited = StepSensor(
        task_id=f"wait_{function}",
        location=submitted.output,
        timeout=timeout_seconds,
        retries=2,
        retry_delay=timedelta(seconds=5),
    )
    return waited.output
