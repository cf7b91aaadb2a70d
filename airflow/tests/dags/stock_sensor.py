"""A step waited for by the stock HttpSensor, for those who bring no plugin of their own."""

from __future__ import annotations

import os
import uuid
from datetime import timedelta

from airflow.providers.http.sensors.http import HttpSensor
from airflow.sdk import DAG, task

from dandelion.submit import SubmitOperator

with DAG("stock_sensor", schedule=None) as dag:

    @task
    def request() -> dict:
        """A request that shares nothing with others."""
        return {
            "type": "dev.dandelion.retrain.requested.v1",
            "data": {
                "model": f"t{uuid.uuid4().hex[:8]}",
                "source": {"kind": "folder", "uri": os.environ["DANDELION_TEST_PHOTOS"]},
                "seed": 1,
            },
        }

    submitted = SubmitOperator(task_id="submit", function="ingest", event=request())
    wait = HttpSensor(
        task_id="wait",
        http_conn_id="gateway",
        endpoint="function{{ ti.xcom_pull('submit').partition('/function')[2] }}/result",
        poke_interval=1,
        timeout=120,
        # Not found yet, busy, cold: asked again.
        response_error_codes_allowlist=["404", "429", "502", "503", "504"],
        retries=2,
        retry_delay=timedelta(seconds=5),
    )
    submitted >> wait
