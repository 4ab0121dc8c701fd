"""Tracking: runs are found again, nothing is stored twice, servers that are not there are named at once."""

import time
from pathlib import Path

import pytest

from posegrid.orchestration.tracking import Tracking


def test_study_and_trial_are_reopened_not_repeated(tracking: Tracking) -> None:
    parent = tracking.open_study("s", {"a": 1}, "what it asks")
    assert tracking.open_study("s", {"a": 1}, "what it asks") == parent
    run = tracking.open_trial("k1", "trial", parent, {"lr": 0.1}, {"model": "mlp"})
    assert tracking.open_trial("k1", "trial", parent, {"lr": 0.1}, {"model": "mlp"}) == run
    assert list(tracking.trials()) == ["k1"]
    assert tracking.trial(run).tags["mlflow.parentRunId"] == parent
    assert tracking.study("s") == parent


def test_deleted_trial_is_made_anew(tracking: Tracking) -> None:
    parent = tracking.open_study("s", {}, "")
    run = tracking.open_trial("k1", "trial", parent, {}, {})
    tracking.delete(run)
    assert tracking.trials() == {}
    assert tracking.open_trial("k1", "trial", parent, {}, {}) != run


def test_parameters_are_flat_and_stay(tracking: Tracking) -> None:
    parent = tracking.open_study("s", {"training": {"lr": 0.1, "nothing": None}}, "")
    tracking.log_params(parent, {"training": {"lr": 0.2}, "new": 1})
    assert tracking.trial(parent).params == {"training.lr": "0.1", "new": "1"}


def test_metrics_and_last_step(tracking: Tracking) -> None:
    run = tracking.open_study("s", {}, "")
    assert tracking.last_step(run, "loss") == -1
    for step in range(3):
        tracking.log_metrics(run, {"loss": 1.0 / (step + 1), "broken": float("nan")}, step)
    assert tracking.last_step(run, "loss") == 2
    assert tracking.trial(run).metrics == {"loss": pytest.approx(1 / 3)}


def test_more_metrics_than_one_call_takes(tracking: Tracking) -> None:
    run = tracking.open_study("s", {}, "")
    tracking.log_metrics(run, {f"m{index}": float(index) for index in range(1500)})
    assert len(tracking.trial(run).metrics) == 1500


def test_artifacts_come_back(tracking: Tracking, tmp_path: Path) -> None:
    run = tracking.open_study("s", {}, "")
    (tmp_path / "table.csv").write_text("a,b\n")
    tracking.log_file(run, tmp_path / "table.csv", "test/none")
    with tracking.fetched(run, "test/none/table.csv") as file:
        assert file.read_text() == "a,b\n"
    assert tracking.artifacts(run, "test/none") == ["test/none/table.csv"]
    with pytest.raises(ValueError, match=r"has no artifact model.pt"), tracking.fetched(run, "model.pt"):
        pass
    tracking.probe()
    assert tracking.trials() == {}


def test_data_input_is_logged_once(tracking: Tracking) -> None:
    run = tracking.open_study("s", {}, "")
    for _ in range(2):
        tracking.log_data(run, "cmu", "0" * 64, "/data/cmu", "training")
    inputs = tracking._client.get_run(run).inputs.dataset_inputs
    assert [(given.dataset.name, given.dataset.digest) for given in inputs] == [("cmu", "0" * 36)]


def test_status_is_the_drivers(tracking: Tracking) -> None:
    run = tracking.open_trial("k", "trial", tracking.open_study("s", {}, ""), {}, {})
    assert tracking.trial(run).status == "RUNNING"
    tracking.finish(run, "FAILED")
    assert tracking.trial(run).status == "FAILED"


def test_unknown_study_lists_the_known_ones(tracking: Tracking) -> None:
    tracking.open_study("demo-cmu", {}, "")
    with pytest.raises(ValueError, match=r"study 'demo' is not in .* Known: demo-cmu"):
        tracking.study("demo")
    with pytest.raises(ValueError, match="run 'abc' is not in"):
        tracking.trial("abc")


def test_server_that_does_not_answer_is_named_within_seconds() -> None:
    began = time.monotonic()
    with pytest.raises(ValueError, match=r"tracking server http://127.0.0.1:9 does not answer.*--tracking"):
        Tracking.open("http://127.0.0.1:9")
    assert time.monotonic() - began < 15
