"""What a function tells of a run, checked at the edge."""

from __future__ import annotations

import json
from typing import Any, Literal
from urllib.parse import urljoin, urlsplit

from pydantic import BaseModel, ValidationError

# XCom lives in Airflow's database; results hold references, so a larger one is a fault.
LARGEST_RESULT_BYTES = 1024 * 1024
# Cold, busy, restarting or not there yet: worth another try.
TEMPORARY_STATUSES = frozenset({404, 429, 502, 503, 504})


class UnusableAnswer(Exception):
    """The answer is none of ours; asking again would not change it."""


class Progress(BaseModel):
    """How far a step is."""

    done: int
    total: int
    note: str = ""


class Problem(BaseModel):
    """The part of an RFC 9457 problem that people read."""

    code: str = "unknown"
    detail: str = ""


class Run(BaseModel):
    """A run as `GET /runs/{id}` describes it."""

    id: str
    function: str
    status: Literal["queued", "running", "succeeded", "failed", "cancelled"]
    attempt: int
    progress: Progress | None = None
    result: dict[str, Any] | None = None
    problem: Problem | None = None

    @property
    def has_ended(self) -> bool:
        """Whether waiting is over."""
        return self.status in ("succeeded", "failed", "cancelled")

    def describe(self) -> str:
        """One line for the task's log."""
        line = f"{self.function} is {self.status}, attempt {self.attempt}"
        if self.progress is None:
            return line
        return f"{line}: {self.progress.done} of {self.progress.total} {self.progress.note}".rstrip()


def read_run(body: bytes | str) -> Run:
    """Reads the description of a run."""
    if len(body) > LARGEST_RESULT_BYTES:
        raise UnusableAnswer(
            f"The run's description has {len(body)} bytes, more than {LARGEST_RESULT_BYTES}."
        )
    try:
        return Run.model_validate_json(body)
    except ValidationError as error:
        shown = body[:200] if isinstance(body, str) else body[:200].decode(errors="replace")
        fault = error.errors()[0]
        where = ".".join(str(part) for part in fault["loc"]) or "body"
        raise UnusableAnswer(
            f"That is no description of a run ({where}: {fault['msg']}): {shown!r}"
        ) from error


def run_url(asked: str, location: str | None) -> str:
    """The run's absolute address; only the host that was asked may be named, since the token goes there."""
    if not location:
        raise UnusableAnswer(f"{asked} accepted the event but named no Location.")
    url = urljoin(asked, location)
    if urlsplit(url)[:2] != urlsplit(asked)[:2]:
        raise UnusableAnswer(f"{asked} names a Location on another host, which is refused: {location}")
    if "/runs/" not in urlsplit(url).path:
        raise UnusableAnswer(f"{asked} names a Location that is no run: {location}")
    return url


def problem_in(body: str) -> str:
    """What a function says is wrong, or the beginning of whatever answered instead."""
    try:
        problem = json.loads(body)
        return f"{problem['code']}: {problem['detail']}"
    except (ValueError, KeyError, TypeError):
        return body[:200]
