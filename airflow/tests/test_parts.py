"""The provider's parts, without an Airflow that runs."""

from __future__ import annotations

import pytest
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from dandelion.connection import functions_in
from dandelion.events import complete_event, event_id, to_binary
from dandelion.links import model_page, run_page
from dandelion.runs import UnusableAnswer, read_run, run_url
from dandelion.submit import SubmitOperator

HERE = "http://127.0.0.1:8080/function/train/"


class Connection:
    """A connection as Airflow hands it out."""

    def __init__(self, extra: dict, password: str | None = None) -> None:
        self.extra_dejson = extra
        self.password = password


def test_an_event_id_depends_on_the_task_and_not_on_its_try() -> None:
    assert event_id("d", "r", "t", -1) == event_id("d", "r", "t", -1)
    others = {event_id("d", "r", "t", index) for index in range(-1, 3)} | {event_id("d", "r", "u", -1)}
    assert len(others) == 5


def test_a_result_keeps_its_identity() -> None:
    result = {"id": "1", "source": "/s", "type": "t", "data": {}}
    assert complete_event(result, dag_id="d", run_id="r", task_id="t", map_index=-1) == result


def test_headers_are_percent_encoded() -> None:
    headers, body = to_binary({"id": "ü %", "source": "/s", "type": "t", "data": {"a": "ü"}})
    assert headers["ce-id"] == "%C3%BC%20%25"
    assert "datacontenttype" not in headers
    assert body == '{"a":"\\u00fc"}'


def test_headers_hold_booleans_as_cloudevents_writes_them() -> None:
    extensions = {"sampled": True, "late": False, "priority": 3}
    headers, _ = to_binary({"id": "1", "source": "/s", "type": "t", **extensions})
    assert (headers["ce-sampled"], headers["ce-late"], headers["ce-priority"]) == ("true", "false", "3")


def test_one_template_serves_gateway_and_cluster() -> None:
    local = functions_in(Connection({"url_template": "http://127.0.0.1:8080/function/{name}"}, "secret"))
    cluster = functions_in(Connection({"url_template": "http://{name}.ml.svc.cluster.local"}))
    assert local.url_of("train") == "http://127.0.0.1:8080/function/train"
    assert cluster.url_of("train") == "http://train.ml.svc.cluster.local"
    assert local.headers == {"authorization": "Bearer secret"}
    assert cluster.headers == {}
    assert "secret" not in repr(local)


def test_a_connection_without_a_template_is_refused() -> None:
    with pytest.raises(AirflowFailException, match="url_template"):
        functions_in(Connection({}))


def test_a_location_is_resolved_on_the_host_that_was_asked() -> None:
    assert run_url(HERE, "/function/train/runs/ab") == "http://127.0.0.1:8080/function/train/runs/ab"


@pytest.mark.parametrize(
    "location",
    [
        None,
        "",
        "http://evil.test/runs/ab",
        "//evil.test/runs/ab",
        "https://127.0.0.1:8080/runs/ab",
        "/elsewhere",
    ],
)
def test_a_location_elsewhere_is_refused(location: str | None) -> None:
    with pytest.raises(UnusableAnswer):
        run_url(HERE, location)


@pytest.mark.parametrize(
    "body",
    [
        "<html>",
        "[]",
        '{"id":"a","function":"b","status":"done","attempt":1}',
        "x" * 2_000_000,
    ],
)
def test_garbage_is_named_as_such(body: str) -> None:
    with pytest.raises(UnusableAnswer):
        read_run(body)


def test_a_step_is_skipped_at_an_event_that_is_not_for_it() -> None:
    skipped = {"id": "1", "source": "/s", "type": "skipped", "data": {"reason": "nothing new"}}
    operator = SubmitOperator(task_id="t", function="evaluate", event=skipped, accepts="trained")
    with pytest.raises(AirflowSkipException, match="nothing new"):
        operator.execute({})


TRAINED = {
    "data": {
        "model": {"name": "dandelion", "version": "v0"},
        "runUrl": "http://mlflow:5000/#/experiments/1/runs/ab?workflowType=x",
    }
}


def test_links_lead_to_mlflow_as_people_reach_it() -> None:
    assert model_page(TRAINED, "http://localhost:5000/") == "http://localhost:5000/#/models/dandelion"
    run = "http://localhost:5000/#/experiments/1/runs/ab?workflowType=x"
    assert run_page(TRAINED, "http://localhost:5000") == run


@pytest.mark.parametrize(
    "result",
    [None, "text", {}, {"data": None}, {"data": {"model": "m", "runUrl": "file:///runs/ab"}}],
)
def test_a_result_without_a_page_has_no_link(result: object) -> None:
    assert model_page(result, "http://localhost:5000") == ""
    assert run_page(result, "http://localhost:5000") == ""


def test_without_mlflow_there_is_no_link() -> None:
    assert model_page(TRAINED, "") == run_page(TRAINED, "") == ""
