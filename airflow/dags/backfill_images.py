"""Many sources at once through ingest and preprocess.

Photos are stored and embedded once, whatever dataset they end in, so a later retraining over all of them finds that
work done. Each shard becomes a dataset of its own and needs two classes with ten photos each.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from airflow.sdk import DAG, Param, get_current_context, task, task_group

from dandelion.steps import step
from dandelion_params import SOURCE_URI, kind_param, model_param, seed_param

with DAG(
    dag_id="backfill_images",
    schedule=None,
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    is_paused_upon_creation=False,
    max_active_tasks=8,
    params={
        "uris": Param(
            type="array",
            items={"type": "string", "pattern": SOURCE_URI},
            minItems=1,
            maxItems=1000,
            uniqueItems=True,
            description="Address of each shard",
        ),
        "kind": kind_param(),
        "model": model_param(),
        "seed": seed_param(),
    },
    doc_md=__doc__,
    tags=["dandelion"],
) as dag:

    @task
    def requests() -> list[dict[str, Any]]:
        """One event a shard."""
        params = get_current_context()["params"]
        return [
            {
                "type": "dev.dandelion.retrain.requested.v1",
                "subject": params["model"],
                "data": {
                    "model": params["model"],
                    "source": {"kind": params["kind"], "uri": uri},
                    "seed": params["seed"],
                    "reason": "backfill",
                },
            }
            for uri in params["uris"]
        ]

    @task_group
    def shard(event: Any) -> None:
        """Ingest and preprocess of one shard."""
        step("preprocess", step("ingest", event))

    shard.expand(event=requests())
