"""The sensor on a worker: what it settles by itself, and what it leaves to the triggerer."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException, TaskDeferred

from dandelion.sensor import StepSensor
from dandelion.trigger import RunTrigger

RUNNING = {"id": "ab", "function": "train", "status": "running", "attempt": 1}
DONE = {**RUNNING, "status": "succeeded", "result": {"id": "1", "data": {}}}
FAILED = {**RUNNING, "status": "failed", "problem": {"code": "bad-data", "detail": "one class"}}


@contextmanager
def sensor_at(
    monkeypatch: pytest.MonkeyPatch, status: int, *bodies: Any
) -> Iterator[tuple[StepSensor, list[Any]]]:
    """A sensor of a run that a server describes by these answers, the last again and again; and who asked for it."""
    asked: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = bodies[min(len(asked), len(bodies) - 1)]
            text = body if isinstance(body, str) else json.dumps(body)
            asked.append((self.path, self.headers["authorization"]))
            self.send_response(status)
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    connection = {"conn_type": "http", "password": "secret", "extra": {"url_template": f"{url}/{{name}}"}}
    monkeypatch.setenv("AIRFLOW_CONN_SENSOR", json.dumps(connection))
    try:
        yield StepSensor(task_id="wait", location=f"{url}/train/runs/ab", http_conn_id="sensor"), asked
    finally:
        server.shutdown()
        server.server_close()


def test_a_short_step_ends_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    with sensor_at(monkeypatch, 200, DONE) as (sensor, asked):
        assert sensor.execute({}) == DONE["result"]
    assert asked == [("/train/runs/ab?wait=2s", "Bearer secret")]


def test_the_end_is_seen_behind_other_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    with sensor_at(monkeypatch, 200, RUNNING, DONE) as (sensor, asked):
        assert sensor.execute({}) == DONE["result"]
    assert len(asked) == 2


def test_a_step_that_failed_soon_fails_its_task_for_good(monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        sensor_at(monkeypatch, 200, FAILED) as (sensor, _),
        pytest.raises(AirflowFailException, match="one class"),
    ):
        sensor.execute({})


@pytest.mark.parametrize(("status", "body"), [(200, RUNNING), (200, "<html>"), (503, "cold"), (401, "no")])
def test_everything_else_is_the_triggerers(monkeypatch: pytest.MonkeyPatch, status: int, body: Any) -> None:
    with sensor_at(monkeypatch, status, body) as (sensor, _), pytest.raises(TaskDeferred) as deferred:
        sensor.execute({})
    assert isinstance(deferred.value.trigger, RunTrigger)
    assert deferred.value.trigger.ends_task


def test_nobody_there_is_the_triggerers_too(monkeypatch: pytest.MonkeyPatch) -> None:
    with sensor_at(monkeypatch, 200, DONE) as (sensor, _):
        pass
    with pytest.raises(TaskDeferred):
        sensor.execute({})
