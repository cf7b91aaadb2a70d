"""Requests to retrain that come as events of an asset: each of them becomes a run of `retrain`.

Airflow joins asset events that arrive together into one run of the DAG they start, and runs such a DAG with the
defaults of its Params. So this DAG is the one that is started, and hands each request on by itself, with its Params.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator
from airflow.sdk import DAG, Asset, get_current_context, task

from dandelion.events import run_id_of_request
from dandelion_params import LONGEST_REASON

RETRAIN_REQUESTED = Asset(name="dandelion_retrain_requested", uri="dandelion://retrain/requested")


def run_of(extra: dict[str, Any]) -> dict[str, Any]:
    """The run of `retrain` that a request asks for; the same request is the same run."""
    event = extra.get("event")
    if not isinstance(event, dict):
        # Someone pressed the button: the Params' defaults say what to do.
        return {"trigger_run_id": None, "conf": {}}
    data = event["data"]
    conf = {
        "uri": data["source"]["uri"],
        "kind": data["source"]["kind"],
        "model": data["model"],
        "seed": data.get("seed", 1),
        "force": data.get("force", True),
        "canary": data.get("canary"),
        "reason": data.get("reason", f"requested by {event['source']}")[:LONGEST_REASON],
    }
    return {"trigger_run_id": run_id_of_request(event["source"], event["id"]), "conf": conf}


with DAG(
    dag_id="on_request",
    schedule=RETRAIN_REQUESTED,
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    # A request must not be lost because nobody has switched the DAG on.
    is_paused_upon_creation=False,
    doc_md=__doc__,
    tags=["dandelion"],
) as dag:

    @task
    def requests() -> list[dict[str, Any]]:
        """One run of `retrain` a request."""
        events = get_current_context()["triggering_asset_events"][RETRAIN_REQUESTED]
        return [run_of(event.extra or {}) for event in events]

    TriggerDagRunOperator.partial(
        task_id="retrain",
        trigger_dag_id="retrain",
        skip_when_already_exists=True,
    ).expand_kwargs(requests())
