"""Links from a finished step to what it made, shown beside the task."""

from __future__ import annotations

import os
from typing import Any
from urllib.parse import quote

from airflow.sdk import BaseOperatorLink
from airflow.sdk.bases.operator import BaseOperator
from airflow.sdk.execution_time.xcom import XCom


def mlflow_page(result: Any, server: str) -> str:
    """Page of the model that a result names; empty when it names none."""
    data = result.get("data") if isinstance(result, dict) else None
    if not server or not isinstance(data, dict):
        return ""
    model = data.get("model")
    if not isinstance(model, dict) or "name" not in model:
        return ""
    return f"{server.rstrip('/')}/#/models/{quote(model['name'], safe='')}"


class RunLink(BaseOperatorLink):
    """The model in MLflow, once a step's result names one and MLFLOW_TRACKING_URI is set for the workers."""

    name = "Model in MLflow"

    def get_link(self, operator: BaseOperator, *, ti_key: Any) -> str:
        """Airflow asks when the task has ended."""
        result = XCom.get_value(ti_key=ti_key, key="return_value")
        return mlflow_page(result, os.environ.get("MLFLOW_TRACKING_URI", ""))
