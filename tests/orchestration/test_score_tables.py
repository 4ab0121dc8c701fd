"""The tables of a scored pattern: recordings give the published numbers again, parts give the whole."""

import csv
import io
import json
from dataclasses import replace
from pathlib import Path

import mlflow
import numpy as np
import pytest
import torch

from posegrid.datasets.metrics.summary import METRICS
from posegrid.datasets.store import Store
from posegrid.orchestration import checkpoint
from posegrid.orchestration.batches import pose_shape
from posegrid.orchestration.evaluation import Scores, evaluate
from posegrid.orchestration.score_tables import actions_table, breakdown_csv, with_table
from posegrid.orchestration.settings import Settings
from posegrid.orchestration.tracking import Tracking, sqlite_uri
from posegrid.orchestration.workers import Workers

PATTERN = {"pattern": "leg_run"}
WEIGHTS = {"mpjve_mm": "pairs", "segment_std_mm": "windows"}


@pytest.fixture(scope="module")
def scored(toy_store: Store) -> Scores:
    """An untrained lifter, scored by whole windows."""
    return scores_of(toy_store, settings())


def settings() -> Settings:
    plain = {
        "name": "tiny",
        "model": {"name": "mixste", "width": 16, "depth": 1, "heads": 2, "drop_path": 0.0},
        "data": {"frames": 9},
        "training": {"epochs": 3, "batch": 8, "lr": 1e-3},
        "evaluation": {"batch": 16},
    }
    return Settings.from_plain(plain, "test")


def scores_of(store: Store, chosen: Settings) -> Scores:
    torch.manual_seed(0)
    model = checkpoint.build(chosen, pose_shape(store, chosen.data))
    return evaluate(model, store, chosen, PATTERN, Workers())


def rows_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_rows_of_recordings_give_the_numbers_of_the_study(toy_store: Store, scored: Scores) -> None:
    rows = rows_of(scored.recordings.csv())
    tested = [one for one in toy_store.sequences if one.split == "test"]
    assert {(row["subject"], row["recording"], row["camera"]) for row in rows} == {
        (one.subject, one.recording, one.camera) for one in tested
    }
    assert sum(int(row["frames"]) for row in rows) == sum(9 * (one.frames // 9) for one in tested)  # tails are dropped
    for metric in METRICS:
        weight = WEIGHTS.get(metric, "frames")
        by_action = []
        for action in sorted({row["action"] for row in rows}):
            part = [row for row in rows if row["action"] == action]
            weights = [int(row[weight]) for row in part]
            by_action.append(np.average([float(row[metric]) for row in part], weights=weights))
        assert np.mean(by_action) == pytest.approx(scored.sums.action_wise()[metric], rel=1e-6), metric


def test_parts_give_the_whole(scored: Scores) -> None:
    rows = rows_of(breakdown_csv(scored.breakdown))

    def mean(by: str, split: str) -> float:
        part = [row for row in rows if (row["by"], row["split"]) == (by, split)]
        return np.average([float(row["mpjpe_mm"]) for row in part], weights=[int(row["entries"]) for row in part])

    whole = scored.sums.frame_wise()
    assert mean("joint", "all") == pytest.approx(whole["mpjpe_mm"], rel=1e-5)
    for split in ("occluded", "visible"):
        assert mean("joint", split) == pytest.approx(whole[f"mpjpe_mm/{split}"], rel=1e-5)
    assert mean("gap", "occluded") == pytest.approx(whole["mpjpe_mm/occluded"], rel=1e-5)
    fast = [row for row in rows if row["by"] == "speed"]
    frames = sum(int(row["frames"]) for row in rows_of(scored.recordings.csv()))
    assert 0 < sum(int(row["entries"]) for row in fast) < frames  # the first frame of a recording has no speed


def test_scored_around_every_frame_there_are_no_gaps(toy_store: Store) -> None:
    chosen = settings()
    centre = replace(chosen, evaluation=replace(chosen.evaluation, score="centre", every=3))
    rows = rows_of(breakdown_csv(scores_of(toy_store, centre).breakdown))
    assert {row["by"] for row in rows} == {"joint", "speed"}


def test_table_of_actions_is_one_that_mlflow_reads(tmp_path: Path) -> None:
    tracking = Tracking.open(sqlite_uri(tmp_path / "mlflow.db"))
    run = tracking.open_study("s", {}, "")
    hidden = "mpjpe_mm occluded"
    rows = {"walk": {"mpjpe_mm": 50.0, hidden: 60.0}, "sit": {"mpjpe_mm": 70.0, hidden: np.nan}}
    for tested_on in ("leg_run", "leg_run", "none"):  # scored again: each row once
        path = f"test/{tested_on}/actions.json"
        tracking.log_text(run, actions_table(rows, tested_on), path)
        listed = with_table(tracking.trial(run).tags.get("mlflow.loggedArtifacts"), path)
        tracking.set_tags(run, {"mlflow.loggedArtifacts": listed})
    mlflow.set_tracking_uri(tracking.uri)  # the client's load_table searches runs where this says
    try:
        client = mlflow.MlflowClient(tracking.uri)
        frame = client.load_table(tracking.experiment_id, "test/leg_run/actions.json", run_ids=[run])
    finally:
        mlflow.set_tracking_uri(None)  # type: ignore[arg-type]
    assert frame["action"].tolist() == ["walk", "sit"]
    assert frame["tested_on"].tolist() == ["leg_run"] * 2
    assert frame["mpjpe_mm"].tolist() == [50.0, 70.0]
    assert frame[hidden].isna().tolist() == [False, True]
    assert [one["path"] for one in json.loads(tracking.trial(run).tags["mlflow.loggedArtifacts"])] == [
        "test/leg_run/actions.json",
        "test/none/actions.json",
    ]
