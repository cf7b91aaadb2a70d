"""The trigger against a server that answers as it is told."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import time
from types import SimpleNamespace
from typing import Any

import pytest
from aiohttp import web
from airflow.sdk.execution_time.xcom import XCom
from airflow.triggers.base import TaskSuccessEvent, TriggerEvent

from dandelion.trigger import RunTrigger

RUNNING = {"id": "ab", "function": "train", "status": "running", "attempt": 1}
DONE = {**RUNNING, "status": "succeeded", "result": {"id": "1", "data": {}}}
PATH = "/function/train/runs/ab"


def free_port() -> int:
    """A port nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def answer(status: int, body: Any = "", **headers: str) -> web.Response:
    """One answer of the server; anything but text is sent as JSON."""
    text = body if isinstance(body, str) else json.dumps(body)
    return web.Response(status=status, text=text, headers=headers)


def outcome_of(
    monkeypatch: pytest.MonkeyPatch,
    *answers: web.Response,
    seconds: float = 30,
    starts_after: float = 0,
) -> tuple[dict[str, Any], list[web.Request]]:
    """Fires a trigger at a server with these answers, the last of them again and again."""
    event, asked = event_of(monkeypatch, *answers, seconds=seconds, starts_after=starts_after)
    return event.payload, asked


def event_of(
    monkeypatch: pytest.MonkeyPatch,
    *answers: web.Response,
    seconds: float = 30,
    starts_after: float = 0,
    task: object = None,
) -> tuple[TriggerEvent, list[web.Request]]:
    """The event itself; with a task the trigger runs as in a triggerer, and may end that task."""
    port = free_port()
    extra = {"url_template": f"http://127.0.0.1:{port}/function/{{name}}"}
    monkeypatch.setenv(
        "AIRFLOW_CONN_TRIGGER",
        json.dumps({"conn_type": "http", "password": "secret", "extra": extra}),
    )
    asked: list[web.Request] = []

    async def handle(request: web.Request) -> web.Response:
        template = answers[min(len(asked), len(answers) - 1)]
        asked.append(request)
        return web.Response(status=template.status, text=template.text, headers=template.headers)

    async def serve() -> web.AppRunner:
        await asyncio.sleep(starts_after)
        app = web.Application()
        app.router.add_get("/{path:.*}", handle)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        return runner

    async def fire() -> TriggerEvent:
        location = f"http://127.0.0.1:{port}{PATH}"
        trigger = RunTrigger(location, time.time() + seconds, "trigger", ends_task=True)
        trigger.task_instance = task
        trigger.trigger_id = None if task is None else 7
        serving = asyncio.create_task(serve())
        if starts_after == 0:
            await serving
        event = await anext(trigger.run())
        await (await serving).cleanup()
        return event

    return asyncio.run(fire()), asked


@pytest.mark.parametrize("status", [404, 429, 500, 502, 503, 504])
def test_trouble_that_passes_is_waited_out(monkeypatch: pytest.MonkeyPatch, status: int) -> None:
    outcome, asked = outcome_of(monkeypatch, answer(status, "cold"), answer(200, DONE))
    assert outcome["outcome"] == "ended"
    assert outcome["run"]["result"] == DONE["result"]
    assert len(asked) == 2


def test_a_function_that_is_not_there_yet_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    outcome, asked = outcome_of(monkeypatch, answer(200, DONE), starts_after=1)
    assert outcome["outcome"] == "ended"
    assert len(asked) == 1


@pytest.mark.parametrize(
    ("given", "named"),
    [
        (answer(200, "<html>hello"), "no description of a run"),
        (answer(200, {**RUNNING, "status": "odd"}), "status"),
        (answer(200, "x" * 2_000_000), "bytes"),
        (answer(401, {"code": "unauthorized", "detail": "who are you?"}), "who are you"),
        (answer(302, location="http://evil.test/runs/ab"), "302"),
    ],
)
def test_an_answer_that_waiting_does_not_mend_ends_it(
    monkeypatch: pytest.MonkeyPatch, given: web.Response, named: str
) -> None:
    outcome, asked = outcome_of(monkeypatch, given)
    assert outcome["outcome"] == "unusable"
    assert named in outcome["detail"]
    assert len(asked) == 1


def test_a_run_without_an_end_times_out_and_says_how_far_it_came(monkeypatch: pytest.MonkeyPatch) -> None:
    far = {**RUNNING, "progress": {"done": 3, "total": 9, "note": "epochs"}}
    outcome, _ = outcome_of(monkeypatch, answer(200, far), seconds=1)
    assert outcome["outcome"] == "timeout"
    assert "3 of 9 epochs" in outcome["detail"]


def test_progress_is_logged_once_for_each_change(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = [{**RUNNING, "progress": {"done": done, "total": 2}} for done in (0, 1, 1)]
    said: list[str] = []
    monkeypatch.setattr(RunTrigger, "log", Recorder(said))
    outcome, _ = outcome_of(monkeypatch, *(answer(200, step) for step in steps), answer(200, DONE))
    assert outcome["outcome"] == "ended"
    assert [line.partition(": ")[2] for line in said] == ["0 of 2", "1 of 2", ""]


def test_the_token_goes_along_and_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    _, asked = outcome_of(monkeypatch, answer(200, DONE))
    assert asked[0].headers["authorization"] == "Bearer secret"
    assert asked[0].query["wait"] == "25s"
    assert "secret" not in json.dumps(RunTrigger("http://x/runs/a", 0.0).serialize())


TASK = {"dag_id": "d", "run_id": "r", "task_id": "wait_train", "map_index": 2}


def test_a_step_that_succeeded_ends_its_task_without_a_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    left: list[dict[str, Any]] = []

    async def keep(key: str, value: Any, **task: Any) -> None:
        left.append({"key": key, "value": value, **task})

    monkeypatch.setattr(XCom, "aset", keep)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow:5000")
    result = {"id": "1", "data": {"model": {"name": "dandelion"}}}
    event, _ = event_of(monkeypatch, answer(200, {**DONE, "result": result}), task=SimpleNamespace(**TASK))
    assert isinstance(event, TaskSuccessEvent)
    page = "http://mlflow:5000/#/models/dandelion"
    assert left == [
        {"key": "return_value", "value": result, **TASK},
        {"key": "_link_ModelLink", "value": page, **TASK},
    ]


@pytest.mark.parametrize(
    "run",
    [
        {**RUNNING, "status": "failed", "problem": {"code": "bad-data", "detail": "one class"}},
        {**RUNNING, "status": "cancelled"},
        {**RUNNING, "status": "succeeded"},
    ],
)
def test_a_step_without_a_result_fails_on_a_worker_where_no_retry_follows(
    monkeypatch: pytest.MonkeyPatch, run: dict[str, Any]
) -> None:
    event, _ = event_of(monkeypatch, answer(200, run), task=SimpleNamespace(**TASK))
    assert type(event) is TriggerEvent
    assert event.payload["run"]["status"] == run["status"]


class Recorder(logging.LoggerAdapter):
    """Keeps what a task's log would show."""

    def __init__(self, said: list[str]) -> None:
        super().__init__(logging.getLogger(__name__))
        self.said = said

    def info(self, message: object, *rest: object, **_: object) -> None:
        """Keeps the line."""
        self.said.append(str(message) % rest if rest else str(message))
