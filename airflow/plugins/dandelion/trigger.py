"""Waiting without a worker slot: a trigger that long-polls the run."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
from airflow.providers.common.compat.connection import get_async_connection
from airflow.sdk.execution_time.xcom import XCom
from airflow.triggers.base import BaseTrigger, TaskSuccessEvent, TriggerEvent

from dandelion.connection import CONNECTION_ID, functions_in
from dandelion.links import links_of
from dandelion.runs import (
    LARGEST_RESULT_BYTES,
    TEMPORARY_STATUSES,
    Run,
    UnusableAnswer,
    problem_in,
    read_run,
)

WAIT_SECONDS = 25
_REQUEST_TIMEOUT_SECONDS = WAIT_SECONDS + 20
_FIRST_PAUSE_SECONDS = 0.5
_LONGEST_PAUSE_SECONDS = 15.0
# A run that changes without ending answers at once; this keeps the loop from spinning.
_PAUSE_BETWEEN_SECONDS = 0.2


class _NotYet(Exception):
    """The function could not be asked just now."""


class RunTrigger(BaseTrigger):
    """Fires when a run has ended, when asking is useless, or when the time is over.

    The connection is read here and not handed over: what a trigger is given is kept in Airflow's database.

    :param location: absolute address of the run
    :param deadline: seconds since 1970, so that a restarted triggerer grants no new time
    :param ends_task: whether a step that succeeded ends its task here, where no worker has to start for it. One that
        did not always goes back to a worker, since only there a task can fail without being tried again.
    """

    def __init__(
        self,
        location: str,
        deadline: float,
        http_conn_id: str = CONNECTION_ID,
        ends_task: bool = False,
    ) -> None:
        super().__init__()
        self.location = location
        self.deadline = deadline
        self.http_conn_id = http_conn_id
        self.ends_task = ends_task

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """What a triggerer needs to take the waiting over."""
        return (
            "dandelion.trigger.RunTrigger",
            {
                "location": self.location,
                "deadline": self.deadline,
                "http_conn_id": self.http_conn_id,
                "ends_task": self.ends_task,
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Asks until there is an outcome; progress goes to the task's log."""
        try:
            outcome = await self._wait()
        except UnusableAnswer as error:
            outcome = {"outcome": "unusable", "detail": str(error)}
        run = outcome.get("run", {})
        result = run.get("result")
        # dag.test() runs triggers without an id, and goes on with a worker in any case.
        if self.ends_task and self.trigger_id is not None and run.get("status") == "succeeded" and result:
            await self._leave(result)
            yield TaskSuccessEvent()
        else:
            yield TriggerEvent(outcome)

    async def _leave(self, result: dict[str, Any]) -> None:
        """What the task would leave on a worker. Not with the event: Airflow 3.3.2 keeps those values as text."""
        task = self.task_instance
        for key, value in {"return_value": result, **links_of(result)}.items():
            await XCom.aset(
                key,
                value,
                dag_id=task.dag_id,
                task_id=task.task_id,
                run_id=task.run_id,
                map_index=task.map_index,
            )

    async def _wait(self) -> dict[str, Any]:
        connection = await get_async_connection(self.http_conn_id)
        headers = functions_in(connection).headers
        timeout = aiohttp.ClientTimeout(total=_REQUEST_TIMEOUT_SECONDS)
        pause = _FIRST_PAUSE_SECONDS
        trouble = "the step is still running"
        said = ""
        async with aiohttp.ClientSession(headers=headers, timeout=timeout) as session:
            while (remaining := self.deadline - time.time()) > 0:
                try:
                    run = await self._ask(session, min(WAIT_SECONDS, remaining))
                except (TimeoutError, _NotYet, aiohttp.ClientError) as error:
                    trouble = str(error) or type(error).__name__
                    self.log.warning("%s; asking again in %.1f s", trouble, pause)
                    await asyncio.sleep(min(pause, remaining))
                    pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)
                    continue
                pause = _FIRST_PAUSE_SECONDS
                if (line := run.describe()) != said:
                    self.log.info(line)
                    said = trouble = line
                if run.has_ended:
                    return {"outcome": "ended", "run": run.model_dump()}
                await asyncio.sleep(_PAUSE_BETWEEN_SECONDS)
        return {"outcome": "timeout", "detail": trouble}

    async def _ask(self, session: aiohttp.ClientSession, wait: float) -> Run:
        params = {"wait": f"{max(wait, 0):.0f}s"}
        async with session.get(self.location, params=params, allow_redirects=False) as response:
            body = await _read_bounded(response)
            if response.status == 200:
                return read_run(body)
            sentence = (
                f"{self.location} answered {response.status}: {problem_in(body.decode(errors='replace'))}"
            )
            if response.status in TEMPORARY_STATUSES or response.status == 500:
                raise _NotYet(sentence)
            raise UnusableAnswer(sentence)


async def _read_bounded(response: aiohttp.ClientResponse) -> bytes:
    """One byte more than allowed is enough to know."""
    chunks = bytearray()
    async for chunk in response.content.iter_chunked(64 * 1024):
        chunks += chunk
        if len(chunks) > LARGEST_RESULT_BYTES:
            break
    return bytes(chunks)
