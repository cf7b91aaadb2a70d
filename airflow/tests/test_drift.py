"""Asking monitor for a check, against answers as they come over the wire."""

from __future__ import annotations

import json
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException
from requests import Response

from dandelion.drift import Outcome, outcome_of
from dandelion.events import run_id_of_request
from on_request import run_of

ALARM = {"version": "v0", "ordinal": 2, "decision": {"action": "wait", "reason": "0 of 20 labels"}}
REQUESTED = {"source": "/dandelion/functions/monitor", "id": "drift-v0-2", "by": "airflow"}


def answer(body: Any) -> Response:
    """Monitor's answer; anything but text is sent as JSON."""
    response = Response()
    response.status_code = 200
    response.url = "http://127.0.0.1:8080/function/monitor/drift"
    response._content = (body if isinstance(body, str) else json.dumps(body)).encode()
    return response


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"status": "no-champion"}, "Nothing was checked: no-champion"),
        (
            {"status": "too-few-photos", "photos": 3, "wanted": 200},
            "3 of 200 new photos: too few for a check",
        ),
        ({"status": "checked", "check": {"ordinal": 1}}, "Nothing has drifted"),
        (
            {"status": "too-few-photos", "photos": 3, "wanted": 200, "alarm": ALARM},
            "Drift of what v0 is asked (check 2): wait, 0 of 20 labels",
        ),
    ],
)
def test_an_outcome_says_why_nothing_is_trained(body: dict[str, Any], said: str) -> None:
    assert Outcome.model_validate(outcome_of(answer(body))).describe() == said


def test_the_run_that_a_request_becomes_is_known_beforehand() -> None:
    decision = {"action": "retrain", "reason": "20 new photos with a reviewed label"}
    alarm = {**ALARM, "decision": decision, "requested": REQUESTED}
    outcome = Outcome.model_validate(outcome_of(answer({"status": "checked", "alarm": alarm})))
    assert outcome.alarm
    assert outcome.alarm.requested
    data = {"model": "m", "source": {"kind": "folder", "uri": "file:///photos"}}
    run = run_of({"event": {"id": REQUESTED["id"], "source": REQUESTED["source"], "data": data}})
    named = run_id_of_request(outcome.alarm.requested.source, outcome.alarm.requested.id)
    assert run["trigger_run_id"] == named


@pytest.mark.parametrize("body", ["<html>", "[]", {"status": "odd"}, {"status": "checked", "alarm": {}}])
def test_garbage_is_named_and_not_asked_for_again(body: Any) -> None:
    with pytest.raises(AirflowFailException, match="no outcome of a check"):
        outcome_of(answer(body))
