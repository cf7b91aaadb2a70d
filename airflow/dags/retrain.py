"""Photos to a serving model: each step is a function, chained here instead of by the broker."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from typing import Any

from airflow.sdk import DAG, CronTriggerTimetable, get_current_context, task
from airflow.sdk.exceptions import AirflowFailException

from dandelion.steps import step
from dandelion_params import (
    canary_param,
    force_param,
    kind_param,
    model_param,
    reason_param,
    seed_param,
    source_param,
)

TRAINED = "dev.dandelion.model.trained.v1"
APPROVED = "dev.dandelion.model.approved.v1"


def schedule() -> CronTriggerTimetable | None:
    """By the clock where DANDELION_RETRAIN_CRON says so and it is known where the photos are; `on_request` does the rest."""
    cron = os.environ.get("DANDELION_RETRAIN_CRON")
    if not cron or not os.environ.get("DANDELION_SOURCE_URI"):
        return None
    return CronTriggerTimetable(cron, timezone="UTC")


with DAG(
    dag_id="retrain",
    schedule=schedule(),
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    # Nothing runs by itself unless the settings say so, and a request must not wait for somebody to switch it on.
    is_paused_upon_creation=False,
    max_active_runs=1,
    params={
        "uri": source_param(),
        "kind": kind_param(),
        "model": model_param(),
        "seed": seed_param(),
        "force": force_param(),
        "canary": canary_param(),
        "reason": reason_param(),
    },
    doc_md=__doc__,
    tags=["dandelion"],
) as dag:

    @task
    def request() -> dict[str, Any]:
        """What the run's Params ask for, as an event without an identity yet."""
        context = get_current_context()
        params = context["params"]
        data = {
            "model": params["model"],
            "source": {"kind": params["kind"], "uri": params["uri"]},
            "seed": params["seed"],
            "force": params["force"],
            "reason": params["reason"] or f"{context['dag_run'].run_type} run of Airflow",
        }
        if params["canary"]:
            data["canary"] = params["canary"]
        return {
            "type": "dev.dandelion.retrain.requested.v1",
            "subject": params["model"],
            "data": data,
        }

    @task.branch
    def gate(verdict: dict[str, Any]) -> str:
        """Only an approved model goes on."""
        return "deploy" if verdict["type"] == APPROVED else "stop"

    @task
    def stop(verdict: dict[str, Any]) -> str:
        """Says why the model stays out; that the gate refused is no failure of the run."""
        failed = [check["detail"] for check in verdict["data"]["checks"] if not check["passed"]]
        if not failed:
            raise AirflowFailException(f"A model was refused without a reason: {verdict['id']}")
        reason = "; ".join(failed)
        print(f"The gate refused the model: {reason}")
        return reason

    ingested = step("ingest", request())
    stored = step("preprocess", ingested)
    trained = step("train", stored)
    # Train answers with another event when the photos are those that the champion knows.
    verdict = step("evaluate", trained, accepts=TRAINED)
    decision = gate(verdict)
    stopped = stop(verdict)
    deployed = step("deploy", verdict)
    decision >> [dag.get_task("deploy"), stopped]
