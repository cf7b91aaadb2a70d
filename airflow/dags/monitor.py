"""Has what the champion is asked drifted? Then a model is trained anew, if monitor's policy says so.

Monitor looks by itself whenever enough answers have come. This DAG looks by the clock: for models that are asked little,
and for alarms that wait for reviewed labels or for time. What asks for the training is monitor, by its one way: where it
has AIRFLOW_URL, as an event of the asset that starts `on_request` and with it a run of `retrain`; else by the broker.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.sdk import DAG, CronTriggerTimetable, task

from dandelion.drift import CheckDriftOperator, Outcome
from dandelion.events import run_id_of_request
from dandelion_params import model_param


def schedule() -> CronTriggerTimetable | None:
    """By the clock where DANDELION_MONITOR_CRON says so."""
    cron = os.environ.get("DANDELION_MONITOR_CRON")
    return CronTriggerTimetable(cron, timezone="UTC") if cron else None


with DAG(
    dag_id="monitor",
    schedule=schedule(),
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    is_paused_upon_creation=False,
    max_active_runs=1,
    params={"model": model_param()},
    doc_md=__doc__,
    tags=["dandelion"],
) as dag:
    checked = CheckDriftOperator(
        task_id="drift",
        model="{{ params.model }}",
        retries=5,
        retry_delay=timedelta(seconds=5),
        retry_exponential_backoff=True,
        max_retry_delay=timedelta(minutes=2),
    )

    @task.branch
    def decide(found: dict[str, Any]) -> str:
        """What monitor's policy said."""
        alarm = Outcome.model_validate(found).alarm
        return "retrain" if alarm and alarm.decision.action == "retrain" else "stop"

    @task
    def retrain(found: dict[str, Any]) -> str:
        """Says who trains the next model."""
        outcome = Outcome.model_validate(found)
        requested = outcome.alarm.requested if outcome.alarm else None
        if requested is None or requested.by == "broker":
            return f"{outcome.describe()}. The broker chains the steps."
        return f"{outcome.describe()}. See the run {run_id_of_request(requested.source, requested.id)} of retrain."

    @task
    def stop(found: dict[str, Any]) -> str:
        """Says why nothing is trained; that there is no reason to is no failure of the run."""
        return Outcome.model_validate(found).describe()

    decide(checked.output) >> [retrain(checked.output), stop(checked.output)]
