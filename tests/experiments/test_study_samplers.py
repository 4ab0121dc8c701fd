"""`posegrid study-samplers` on a tiny trained model: table, figure, what is refused."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from posegrid.datasets.store import Store
from posegrid.experiments.benchmarks.sampling import one_by_one, wrapper
from posegrid.experiments.catalogue import Grid, Member
from posegrid.experiments.cli import app
from posegrid.experiments.planning import plan
from posegrid.models.diffhpe import DiffHPE
from posegrid.orchestration import checkpoint
from posegrid.orchestration.batches import pose_shape
from posegrid.orchestration.evaluation import evaluate
from posegrid.orchestration.sampler_study import Choices, Point, fewest_steps, study_samplers, usual_choices
from posegrid.orchestration.settings import Settings
from posegrid.orchestration.tracking import MODEL_ARTIFACT, Tracking, sqlite_uri
from posegrid.orchestration.workers import Workers

NONE = {"pattern": "none"}


@pytest.fixture
def settings(lifter_settings: Settings) -> Settings:
    model = {"name": "diffhpe", "channels": 8, "blocks": 2, "steps": 6, "step_embedding": 16, "dropout": 0.0}
    return Settings.from_plain({**lifter_settings.plain(), "name": "tiny 2D", "model": model}, "test")


def model_file(folder: Path, settings: Settings, store: Store) -> Path:
    torch.manual_seed(0)
    model = checkpoint.build(settings, pose_shape(store, settings.data))
    if isinstance(model, DiffHPE):
        torch.nn.init.normal_(model.predictor.output.weight, std=0.1)  # which starts at zero
    data = {"hash": store.content_hash, "source": store.source, "skeleton": store.skeleton.name}
    file = folder / "model.pt"
    checkpoint.write(file, checkpoint.model_file(settings, model.pose, model.state_dict(), data))
    return file


def test_every_combination_is_scored_as_evaluation_scores_it(
    toy_store: Store, settings: Settings, tmp_path: Path
) -> None:
    model, _, _ = checkpoint.load_model(model_file(tmp_path, settings, toy_store))
    choices = Choices(
        samplers=("ddpm", "dpm_solver"), steps=(2, 6), hypotheses=(1, 3), aggregations=("mean", "best_joint_oracle")
    )
    told: list[Point] = []
    points = study_samplers(model, toy_store, settings, NONE, choices, report=told.append)
    assert told == points
    assert len(points) == len({(p.sampler, p.steps, p.hypotheses, p.aggregation) for p in points}) == 16
    for point in points:
        if point.hypotheses == 3 and point.steps == 2:
            chosen = {"sampler": point.sampler, "steps": 2, "hypotheses": 3, "aggregation": point.aggregation}
            asked = replace(settings, evaluation=replace(settings.evaluation, **chosen))
            scores = evaluate(model, toy_store, asked, NONE, Workers())
            assert point.mpjpe_mm == pytest.approx(scores.sums.action_wise()["mpjpe_mm"], rel=1e-6)
    by_name = {(p.sampler, p.steps, p.hypotheses, p.aggregation): p.mpjpe_mm for p in points}
    for sampler in choices.samplers:
        assert by_name[sampler, 6, 1, "mean"] == by_name[sampler, 6, 1, "best_joint_oracle"]
        assert by_name[sampler, 6, 3, "best_joint_oracle"] < by_name[sampler, 6, 1, "mean"]
        times = {p.ms_per_window for p in points if (p.sampler, p.steps, p.hypotheses) == (sampler, 6, 3)}
        assert len(times) == 1
        assert times.pop() > 0


def test_the_command_logs_table_and_figure_in_the_run(toy_store: Store, settings: Settings, tmp_path: Path) -> None:
    file = model_file(tmp_path, settings, toy_store)
    tracking = Tracking.open(sqlite_uri(tmp_path / "mlflow.db"))
    run = tracking.open_study("s", {}, "")
    tracking.log_file(run, file, MODEL_ARTIFACT.split("/")[0])
    command = ["study-samplers", run, "--data", str(toy_store.path), "--home", str(tmp_path), "--steps", "1"]
    command += ["--steps", "6", "--hypotheses", "2", "--aggregation", "mean", "--aggregation", "best_pose_oracle"]
    command += ["--every", "2", "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    assert "within 0.5 mm of the full chain with ddpm" in result.output
    assert tracking.artifacts(run, "sampler_study/none") == [
        "sampler_study/none/plane.png",
        "sampler_study/none/table.csv",
    ]
    lines = (tmp_path / "out" / "table.csv").read_text().splitlines()
    assert lines[0].startswith("sampler,eta,steps,hypotheses,aggregation,mpjpe_mm")
    assert len(lines) == 1 + 3 * 2 * 2
    assert (tmp_path / "out" / "plane.png").read_bytes()[1:4] == b"PNG"


def test_the_command_answers_with_the_table_as_json(toy_store: Store, settings: Settings, tmp_path: Path) -> None:
    file = model_file(tmp_path, settings, toy_store)
    command = ["study-samplers", str(file), "--data", str(toy_store.path), "--sampler", "ddim", "--sampler", "ddpm"]
    command += ["--steps", "6", "--hypotheses", "2", "--aggregation", "mean", "--every", "4", "--occlusion", "leg_run"]
    result = CliRunner().invoke(app, [*command, "--out", str(tmp_path / "out"), "--json"])
    assert result.exit_code == 0, result.output
    answer = json.loads(result.stdout)
    assert (answer["file"], answer["run"], answer["occlusion"]) == (str(file), None, "leg_run")
    assert answer["protocol"] == "whole windows, tails dropped, 1 window of 4 scored"
    rows = list(csv.DictReader((tmp_path / "out" / "table.csv").read_text().splitlines()))
    assert len(rows) == len(answer["points"]) == 2
    for row, point in zip(rows, answer["points"], strict=True):
        assert row == {key: f"{value:.4f}" if isinstance(value, float) else str(value) for key, value in point.items()}
        assert f"{point['mpjpe_mm']:>9.2f}" in result.stderr  # told while it ran
    enough = answer["within_half_a_mm_of_the_full_chain"]
    assert enough["ddpm"] == next(one for one in answer["points"] if one["sampler"] == "ddpm")


def test_models_that_do_not_sample_are_refused(toy_store: Store, lifter_settings: Settings, tmp_path: Path) -> None:
    file = model_file(tmp_path, lifter_settings, toy_store)
    result = CliRunner().invoke(app, ["study-samplers", str(file), "--data", str(toy_store.path)])
    assert isinstance(result.exception, ValueError)
    assert "holds a MixSTE, which does not sample" in str(result.exception)


def test_what_is_refused_comes_before_sampling(toy_store: Store, settings: Settings, tmp_path: Path) -> None:
    model, _, _ = checkpoint.load_model(model_file(tmp_path, settings, toy_store))
    usual = usual_choices(model, settings)
    assert usual.steps == (1, 2, 5, 6)
    for wrong, message in (
        ({"steps": (1, 7)}, "trained with model.steps = 6"),
        ({"samplers": ("ddpm", "euler")}, 'sampler "euler"'),
        ({"aggregations": ("jpma_true_root",)}, "no usable camera"),
        ({"aggregations": ("mode",)}, "is unknown"),
    ):
        told: list[Point] = []
        with pytest.raises(ValueError, match=message):
            study_samplers(model, toy_store, settings, NONE, replace(usual, **wrong), report=told.append)
        assert not told


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ([], "jpma_true_root projects poses, but the store has no usable camera"),
        (["evaluation.aggregation=mean", "evaluation.steps=1001"], "trained with model.steps = 1000"),
        (["evaluation.aggregation=mean", "evaluation.sampler=ddpm", "evaluation.eta=1"], "does not read eta"),
    ],
)
def test_a_plan_refuses_what_cannot_be_scored(changes: list[str], message: str, toy_store: Store) -> None:
    grid = Grid(title="t", train=("none",), test=("none",), members=(Member(recipe="d3dp_27", label="d3dp"),))
    with pytest.raises(ValueError, match=message):
        plan("s", grid, toy_store.path, changes)


def test_fewest_steps() -> None:
    def point(sampler: str, steps: int, error: float, hypotheses: int = 5, aggregation: str = "mean") -> Point:
        return Point(
            sampler=sampler,
            eta=0.0,
            steps=steps,
            hypotheses=hypotheses,
            aggregation=aggregation,
            mpjpe_mm=error,
            ms_per_window=1.0,
            windows=1,
        )

    points = [point("ddpm", 50, 40.0), point("ddpm", 10, 40.4), point("ddpm", 5, 41.0), point("ddim", 5, 40.5)]
    points += [point("ddim", 2, 39.0, hypotheses=1), point("ddim", 1, 30.0, aggregation="best_joint_oracle")]
    assert {name: found.steps for name, found in fewest_steps(points).items()} == {"ddpm": 10, "ddim": 5}


def test_the_naive_sampler_of_the_benchmark_returns_the_same() -> None:
    model = wrapper(16, 4, 5)
    noise = torch.randn(4, 2, 3, 5, 17, 3, generator=torch.Generator().manual_seed(0))
    keypoints = torch.randn(2, 5, 17, 2, generator=torch.Generator().manual_seed(1))
    calls = []
    assert model.conditioner is not None
    model.conditioner.spatial[0].register_forward_hook(lambda *_: calls.append(1))
    quick = model.sample(keypoints, lambda draw: noise[draw])
    assert len(calls) == 1
    slow = one_by_one(model, keypoints, noise)
    assert len(calls) == 1 + 4 * 3
    np.testing.assert_allclose(quick.numpy(), slow.numpy(), rtol=1e-4, atol=1e-4 * slow.abs().max().item())
