"""The DAGs: their shape, and what they do with the real functions."""

from __future__ import annotations

import copy
import itertools
import uuid
from pathlib import Path
from typing import Any

import pytest
import requests
from airflow.dag_processing.dagbag import DagBag
from conftest import Photos

from dandelion.submit import SubmitOperator
from on_request import run_of


def states(run: Any) -> dict[str, str]:
    """State of each task; a mapped one shows its last instance."""
    return {ti.task_id: str(ti.state) for ti in run.get_task_instances()}


def reconciled(photos: Photos) -> list[Any]:
    """What monitor sends again of the results that did not come to their next step."""
    asked = requests.post(f"{photos.gateway}/function/monitor/reconcile", timeout=60)
    assert asked.status_code == 200, asked.text
    return asked.json()["sent"]


def conf(uri: str, **more: Any) -> dict[str, Any]:
    """Params of a run that shares nothing with others."""
    return {
        "uri": uri,
        "kind": "folder",
        "model": f"t{uuid.uuid4().hex[:8]}",
        "seed": 1,
        **more,
    }


def test_every_dag_is_read_without_an_error(dag_bag: DagBag) -> None:
    assert dag_bag.import_errors == {}
    assert set(dag_bag.dags) == {"retrain", "on_request", "backfill_images", "monitor"}


def test_retrain_chains_the_steps_and_branches_at_the_gate(
    dag_bag: DagBag,
) -> None:
    dag = dag_bag.dags["retrain"]
    chain = ["ingest", "preprocess", "train", "evaluate"]
    for name in chain:
        assert dag.get_task(f"wait_{name}").upstream_task_ids == {name}
    for before, after in itertools.pairwise(chain):
        assert f"wait_{before}" in dag.get_task(after).upstream_task_ids
    assert dag.get_task("gate").downstream_task_ids == {"deploy", "stop"}


def test_retrain_ends_with_a_model_that_serves(dag_bag: DagBag, photos: Photos) -> None:
    run = dag_bag.dags["retrain"].test(run_conf=conf(photos.good))
    assert str(run.state) == "success", states(run)
    assert states(run)["wait_deploy"] == "success"
    assert states(run)["stop"] == "skipped"


def test_monitor_stops_with_the_reason_where_there_is_nothing_to_check(
    dag_bag: DagBag, photos: Photos
) -> None:
    assert photos.gateway
    run = dag_bag.dags["monitor"].test(run_conf={"model": "nobody-serves-this"})
    assert str(run.state) == "success", states(run)
    assert states(run)["stop"] == "success"
    assert states(run)["retrain"] == "skipped"
    (stop,) = (ti for ti in run.get_task_instances() if ti.task_id == "stop")
    assert stop.xcom_pull("stop") == "Nothing was checked: no-champion"


def test_a_request_becomes_a_run_with_its_params_and_the_same_one_when_repeated() -> None:
    data = {
        "model": "m",
        "source": {"kind": "folder", "uri": "file:///photos"},
        "seed": 7,
        "force": False,
        "canary": {"shares": [100]},
        "reason": "drift",
    }
    event = {"id": "1", "source": "/dandelion/functions/monitor", "data": data}
    run = run_of({"event": event, "from_rest_api": True})
    assert run == run_of({"event": dict(event)})
    assert run["trigger_run_id"] != run_of({"event": {**event, "id": "2"}})["trigger_run_id"]
    wanted = {"uri": "file:///photos", "kind": "folder", "model": "m", "seed": 7, "force": False}
    assert run["conf"] == {**wanted, "canary": {"shares": [100]}, "reason": "drift"}


@pytest.mark.parametrize("uri", ["s3://dandelion/incoming/", "https://photos.example/all.csv"])
def test_a_request_that_the_functions_take_is_none_that_the_params_refuse(dag_bag: DagBag, uri: str) -> None:
    data = {"model": "m", "source": {"kind": "folder", "uri": uri}, "reason": "drift " * 200}
    conf = run_of({"event": {"id": "1", "source": "/s", "data": data}})["conf"]
    params = copy.deepcopy(dag_bag.dags["retrain"].params)
    params.update(conf)
    params.validate()


def test_nobody_has_to_switch_a_dag_on(dag_bag: DagBag) -> None:
    assert {dag.is_paused_upon_creation for dag in dag_bag.dags.values()} == {False}


def test_a_hand_made_event_of_the_asset_leaves_the_params_to_their_defaults() -> None:
    assert run_of({"from_rest_api": True}) == {"trigger_run_id": None, "conf": {}}


def test_a_refused_step_fails_on_its_first_try_and_nothing_follows(dag_bag: DagBag, photos: Photos) -> None:
    run = dag_bag.dags["retrain"].test(run_conf=conf(photos.one_class))
    assert str(run.state) == "failed"
    instances = {ti.task_id: ti for ti in run.get_task_instances()}
    assert str(instances["wait_ingest"].state) == "failed"
    assert instances["wait_ingest"].try_number == 1
    assert str(instances["preprocess"].state) == "upstream_failed"


@pytest.mark.parametrize(
    "wrong",
    [
        {"uri": "ftp://x/y"},
        {"kind": "tape"},
        {"model": "Not A Name"},
        {"seed": -1},
        {"force": "perhaps"},
        {"canary": {"shares": [0]}},
        {"canary": {"policy": "brave"}},
    ],
)
def test_wrong_params_are_refused_before_anything_runs(
    dag_bag: DagBag, photos: Photos, wrong: dict[str, Any]
) -> None:
    with pytest.raises(Exception, match=next(iter(wrong))):
        dag_bag.dags["retrain"].test(run_conf=conf(photos.good, **wrong))


def test_shards_are_worked_side_by_side(dag_bag: DagBag, photos: Photos) -> None:
    params = {
        "uris": [photos.good, f"{photos.good}/"],
        "kind": "folder",
        "model": f"t{uuid.uuid4().hex[:8]}",
        "seed": 1,
    }
    run = dag_bag.dags["backfill_images"].test(run_conf=params)
    ended = [ti for ti in run.get_task_instances() if ti.task_id.endswith("wait_preprocess")]
    assert [str(ti.state) for ti in ended] == ["success", "success"]
    # Nobody lost a result that the caller alone carries on: neither shard is trained behind his back.
    assert reconciled(photos) == []


def test_a_stock_http_sensor_waits_for_a_result(photos: Photos) -> None:
    assert photos.good.startswith("file:")
    dags = DagBag(Path(__file__).parent / "dags", bundle_name="test-dags")
    assert dags.import_errors == {}
    run = dags.dags["stock_sensor"].test()
    assert str(run.state) == "success", states(run)


def test_the_same_event_again_is_the_same_run(photos: Photos) -> None:
    data = {
        "model": f"t{uuid.uuid4().hex[:8]}",
        "source": {"kind": "folder", "uri": photos.good},
        "seed": 1,
    }
    operator = SubmitOperator(
        task_id="ingest",
        function="ingest",
        event={"type": "dev.dandelion.retrain.requested.v1", "data": data},
    )
    task = type(
        "Task",
        (),
        {
            "dag_id": "again",
            "run_id": data["model"],
            "task_id": "ingest",
            "map_index": -1,
        },
    )()
    assert operator.execute({"ti": task}) == operator.execute({"ti": task})


def test_a_function_out_of_reach_can_be_tried_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(
        "AIRFLOW_CONN_NOBODY",
        '{"conn_type":"http","extra":{"url_template":"http://127.0.0.1:9/{name}"}}',
    )
    operator = SubmitOperator(
        task_id="t",
        function="ingest",
        http_conn_id="nobody",
        event={"type": "t", "data": {}},
    )
    task = type(
        "Task",
        (),
        {"dag_id": "d", "run_id": "r", "task_id": "t", "map_index": -1},
    )()
    with pytest.raises(Exception, match=r"127\.0\.0\.1") as caught:
        operator.execute({"ti": task})
    assert "AirflowFailException" not in type(caught.value).__name__
