"""Links from a finished step to what it made, shown beside the task."""

from __future__ import annotations

import os
from typing import Any
from urllib.parse import quote, urlsplit

from airflow.sdk import BaseOperatorLink
from airflow.sdk.bases.operator import BaseOperator
from airflow.sdk.execution_time.xcom import XCom


def _data_of(result: Any) -> dict[str, Any]:
    data = result.get("data") if isinstance(result, dict) else None
    return data if isinstance(data, dict) else {}


def model_page(result: Any, server: str) -> str:
    """Page of the model that a result names; empty when it names none."""
    model = _data_of(result).get("model")
    if not server or not isinstance(model, dict) or "name" not in model:
        return ""
    return f"{server.rstrip('/')}/#/models/{quote(model['name'], safe='')}"


def run_page(result: Any, server: str) -> str:
    """Page of the tracked run that a result names, on the server as people reach it; empty when it names none."""
    url = _data_of(result).get("runUrl")
    if not server or not isinstance(url, str):
        return ""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.fragment.startswith("/experiments/"):
        return ""
    return f"{server.rstrip('/')}/#{parts.fragment}"


def _linked(ti_key: Any) -> tuple[Any, str]:
    """Result of the task, and the MLflow that MLFLOW_TRACKING_URI names to whoever shows the link."""
    result = XCom.get_value(ti_key=ti_key, key="return_value")
    return result, os.environ.get("MLFLOW_TRACKING_URI", "")


class ModelLink(BaseOperatorLink):
    """The model in MLflow, once a step's result names one."""

    name = "Model in MLflow"

    def get_link(self, operator: BaseOperator, *, ti_key: Any) -> str:
        """Airflow asks when the task has ended."""
        return model_page(*_linked(ti_key))


class RunLink(BaseOperatorLink):
    """The tracked run in MLflow, once a step's result names one."""

    name = "Run in MLflow"

    def get_link(self, operator: BaseOperator, *, ti_key: Any) -> str:
        """Airflow asks when the task has ended."""
        return run_page(*_linked(ti_key))


def links_of(result: Any) -> dict[str, str]:
    """The links of a task that ends without a worker, which would otherwise leave them: XComs by their keys."""
    server = os.environ.get("MLFLOW_TRACKING_URI", "")
    links = {
        RunLink().xcom_key: run_page(result, server),
        ModelLink().xcom_key: model_page(result, server),
    }
    return {key: address for key, address in links.items() if address}
