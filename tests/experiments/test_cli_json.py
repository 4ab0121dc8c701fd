"""`--json`: one document on standard output, with the numbers of the tables and of MLflow, and nothing where a command
fails."""

import csv
import io
import json
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import toy

from posegrid.datasets.store import FRAMES, Store
from posegrid.datasets.store import open_store as opened_store
from posegrid.experiments import patch_scoring
from posegrid.experiments.answers import answering, plain, say
from posegrid.experiments.cli import main
from posegrid.orchestration import checkpoint
from posegrid.orchestration.batches import shape_of
from posegrid.orchestration.launch import cluster, nodes
from posegrid.orchestration.launch.cluster import Connected
from posegrid.orchestration.pictures import PatchScores
from posegrid.orchestration.settings import Settings
from posegrid.orchestration.tracking import MODEL_ARTIFACT, Tracking, Trial, sqlite_uri

RECIPE = """
[model]
name = "mlp"
width = {width}
depth = 1
[data]
frames = 9
[training]
epochs = 1
batch = 32
lr = 1e-3
[evaluation]
batch = 64
"""
GRID = """
title = "two perceptrons"
train = ["none"]
test = ["none", "leg_run"]
[[members]]
recipe = "{folder}/narrow.toml"
label = "narrow"
[[members]]
recipe = "{folder}/wide.toml"
label = "wide"
"""
SEARCH = """
title = "toy"
recipe = "{folder}/narrow.toml"
trials = 2
method = "random"
replicates = [0]
[space."training.lr"]
kind = "log"
low = 1e-4
high = 1e-2
"""


def call(*arguments: object) -> tuple[int, str, str]:
    """Exit status, standard output and standard error of a command."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    return int(ended.value.code or 0), out.getvalue(), err.getvalue()


def document(*arguments: object) -> Any:
    """What a command answers with --json."""
    status, out, err = call(*arguments, "--json")
    assert status == 0, err
    return json.loads(out, parse_constant=pytest.fail)  # Python's json would take NaN, which is none


@dataclass
class Bench:
    """A store, a grid of two tiny models that was run, and what it answered."""

    folder: Path
    store: Store
    answer: dict[str, Any]
    said: str

    @property
    def where(self) -> tuple[object, ...]:
        return ("--home", self.folder / "runs")

    @property
    def tracking(self) -> Tracking:
        return Tracking.existing(sqlite_uri(self.folder / "runs" / "mlflow.db"))

    def trial(self, label: str) -> Trial:
        """The run of a member, found by its name."""
        every = self.tracking.trials().values()
        return next(trial for trial in every if trial.tags["mlflow.runName"] == f"{label} on none")


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    folder = tmp_path_factory.mktemp("json")
    for name, width in (("narrow", 4), ("wide", 8)):
        (folder / f"{name}.toml").write_text(RECIPE.format(width=width))
    for name, text in (("grid", GRID), ("search", SEARCH)):
        (folder / f"{name}.toml").write_text(text.format(folder=folder))
    store = toy.write_toy(folder / "store", 40)
    where = ("--data", folder / "store", "--home", folder / "runs", "--launch", "local")
    status, out, said = call("grid", folder / "grid.toml", *where, "--json")
    assert status == 0, said
    return Bench(folder=folder, store=store, answer=json.loads(out), said=said)


def test_a_grid_answers_with_its_names_matrices_and_runs(bench: Bench) -> None:
    answer, tracking = bench.answer, bench.tracking
    assert "study grid-toy: 2 stages, 0 done, 2 to run" in bench.said  # progress
    assert (answer["study"], answer["tracking"]) == ("grid-toy", tracking.uri)
    assert answer["parent_run"] == tracking.study("grid-toy")
    assert answer["mean_pose_mpjpe_mm"] == tracking.trial(answer["parent_run"]).metrics["control mean pose/mpjpe_mm"]
    assert list(answer["members"]) == ["narrow", "wide"]
    for label, member in answer["members"].items():
        trial = bench.trial(label)
        assert member["runs"] == [{"trained_on": "none", "seed": 0, "run": trial.run_id}]
        assert (member["trained_on"], member["tested_on"], member["seeds"]) == (["none"], ["none", "leg_run"], [1])
        for metric in ("mpjpe_mm", "p_mpjpe_mm", "mpjve_mm", "symmetry_gap_mm", "segment_std_mm"):
            logged = [[trial.metrics[f"test {pattern}/{metric}"] for pattern in ("none", "leg_run")]]
            assert member["mean"][metric] == logged
            assert member["std_over_seeds"][metric] == [[None, None]]  # one seed has no deviation
        assert member["protocol"] == "whole windows, tails dropped"
    rows = {(row["model"], row["tested_on"]): row for row in answer["models"]}
    costs = bench.trial("wide").metrics
    assert rows["wide", "leg_run"]["flops_per_pose"] == costs["complexity leg_run/flops per pose"]
    assert rows["wide", "none"]["parameters"] == int(bench.trial("wide").params["parameters"])
    assert rows["narrow", "none"]["mean"]["mpjpe_mm"] == answer["members"]["narrow"]["mean"]["mpjpe_mm"][0][0]


def test_a_report_answers_as_the_grid_did_and_as_its_tables_say(bench: Bench) -> None:
    assert document("report", "grid-toy", *bench.where, "--out", bench.folder / "report") == bench.answer
    lines = (bench.folder / "report" / "wide_mpjpe_mm.csv").read_text().splitlines()
    values = [f"{value:.4f}" for value in bench.answer["members"]["wide"]["mean"]["mpjpe_mm"][0]]
    assert lines == ["trained on,none,leg_run", ",".join(["none", *values])]
    table = (bench.folder / "report" / "models.md").read_text()
    for row in bench.answer["models"]:
        part = table.split(f"Tested on {row['tested_on']}; ")[1].splitlines()
        cells = next(line for line in part if line.startswith(f"| {row['model']} "))
        trained_on = [] if row["tested_on"] == "none" else [row["trained_on"]]  # a column where they differ
        assert [cell.strip() for cell in cells.strip("|").split("|")] == [
            *(row["model"], *trained_on, row["window"], *(f"{value:.1f}" for value in row["mean"].values())),
            *(f"{row['parameters']:,}", f"{row['flops_per_pose'] / 1e6:,.1f}", f"{row['poses_per_s']:,.0f}"),
        ]


def test_training_again_answers_although_nothing_is_left(bench: Bench) -> None:
    where = ("--data", bench.folder / "store", *bench.where, "--launch", "local")
    answer = document("train", bench.folder / "wide.toml", *where, "--test", "none", "--test", "leg_run")
    assert answer["study"] == "train-wide-none"
    assert answer["members"]["wide"] == bench.answer["members"]["wide"]


@pytest.mark.slow
def test_a_search_answers_with_trials_and_winner(bench: Bench) -> None:
    where = ("--data", bench.folder / "store", *bench.where, "--launch", "local")
    answer = document("search", bench.folder / "search.toml", *where, "--out", bench.folder / "best.toml")
    assert [one["trial"] for one in answer["trials"]] == [0, 1]
    runs = bench.tracking
    objectives = [runs.lowest(one["runs"][0], "validation/mpjpe_mm") for one in answer["trials"]]
    assert [one["objective"] for one in answer["trials"]] == objectives
    assert answer["best"] == answer["trials"][int(np.argmin(objectives))]
    assert answer["best_recipe"] == (bench.folder / "best.toml").read_text()
    (label,) = answer["members"]
    assert answer["members"][label]["runs"][0]["run"] == answer["best"]["runs"][0]
    assert answer["parent_run"] == runs.study(answer["study"])


def test_evaluation_answers_with_the_table_and_the_logged_scores(bench: Bench) -> None:
    run = bench.trial("wide").run_id
    command = ("evaluate", run, "--data", bench.folder / "store", *bench.where)
    command += ("--occlusion", "none", "--occlusion", "leg_run")
    answer, (_, out, _) = document(*command), call(*command)
    assert (answer["run"], answer["recipe"], answer["data"], answer["split"]) == (run, "wide", "toy", "test")
    assert answer["protocol"] == "whole windows, tails dropped"
    logged = bench.trial("wide").metrics
    tables = out.split("# ")[1:]
    for table, scores in zip(tables, answer["scores"], strict=True):
        label = scores["occlusion"]
        heading, *lines = table.splitlines()
        assert heading == f"wide on toy (test), {label}; whole windows, tails dropped; mm"
        assert scores["action_wise"]["mpjpe_mm"] == logged[f"test {label}/mpjpe_mm"]
        rows = scores["per_action"] | {"action-wise": scores["action_wise"], "frame-wise": scores["frame_wise"]}
        shown = {row.pop("action"): row for row in csv.DictReader([line for line in lines if line])}
        assert shown == {
            name: {key: f"{values[key]:.4f}" if key in values else "" for key in scores["frame_wise"]}
            for name, values in rows.items()
        }


def test_patches_answer_with_null_for_what_is_no_number(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    found = {40: PatchScores(worst_mm=61.5, free_mm=42.25, pictures=7)}
    found[80] = PatchScores(worst_mm=float("nan"), free_mm=float("inf"), pictures=0)
    monkeypatch.setattr(patch_scoring, "score_patches", lambda model, store, settings, one, *_, **__: found[one.size])
    command = ("evaluate", bench.trial("wide").run_id, "--data", bench.folder / "store", *bench.where)
    command += ("--patch", 40, "--patch", 80)
    answer, (_, out, _) = document(*command), call(*command)
    assert answer["patches"] == [
        {"patch_px": 40, "pictures": 7, "mpjpe_worst_mm": 61.5, "mpjpe_without_mm": 42.25},
        {"patch_px": 80, "pictures": 0, "mpjpe_worst_mm": None, "mpjpe_without_mm": None},
    ]
    assert answer["protocol"] in out
    assert "40,7,61.50,42.25" in out


def test_complexity_answers_with_what_the_run_keeps(bench: Bench) -> None:
    run = bench.trial("narrow").run_id
    command = ("complexity", run, *bench.where, "--batch", 2, "--repetitions", 1, "--occlusion", "arm_leg")
    answer = document(*command)
    (row,) = answer["networks"]
    logged = bench.trial("narrow").metrics
    assert (row["given_as"], row["run"], row["occlusion"], row["batch"]) == (run, run, "arm_leg", 2)
    assert row["flops_per_pose"] == logged["complexity arm_leg/flops per pose"]
    assert row["poses_per_s"] == logged["complexity arm_leg/poses per s"]
    with bench.tracking.fetched(run, MODEL_ARTIFACT) as file:
        weights = checkpoint.load_model(file)[0].state_dict()
    assert row["parameters"] == sum(weight.numel() for weight in weights.values())


def test_speed_answers_with_the_table(bench: Bench) -> None:
    run = bench.trial("wide").run_id
    command = ("analyse", "speed", run, "--data", bench.folder / "store", *bench.where, "--bins", 6, "--width", 0.2)
    answer = document(*command, "--out", bench.folder / "speed")
    (curve,) = answer["curves"]
    with (bench.folder / "speed" / "speed.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert curve["run"] == run
    assert (curve["bins"][-1]["from_m_per_s"], curve["bins"][-1]["to_m_per_s"]) == (1.2, None)
    assert [str(one["frames"]) for one in curve["bins"]] == [row["frames"] for row in rows]
    errors = [one["mpjpe_mm"] for one in curve["bins"]]
    assert ["" if error is None else f"{error:.4f}" for error in errors] == [row["mpjpe_mm"] for row in rows]
    assert None in errors  # a bin without frames
    assert answer["analysis_run"] == bench.tracking.study("analysis")


def test_checks_answer_with_what_they_found(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    store = bench.folder / "store"
    answer, (_, out, _) = document("check", "data", store), call("check", "data", store)
    sequences = opened_store(store).sequences
    for split in ("train", "held_out", "test"):
        rows = [one for one in sequences if one.split == split]
        assert answer["splits"][split]["frames"] == sum(one.frames for one in rows)
        assert answer["splits"][split]["subjects"] == len({one.subject for one in rows})
    assert out.splitlines()[-1] == ", ".join(f"{number} {status}" for status, number in answer["results"].items())
    assert sum(answer["results"].values()) == len(answer["checks"])
    assert all(one["measured"].split()[0] in out for one in answer["checks"])

    narrow = bench.folder / "narrow.toml"
    assert document("check", "recipe", narrow) == {"recipe": "narrow", "model": "mlp", "frames": 9}
    answer = document("check", "grid", bench.folder / "grid.toml")
    assert (answer["members"], answer["train"], answer["test"]) == (["narrow", "wide"], ["none"], ["none", "leg_run"])
    answer = document("check", "search", bench.folder / "search.toml")
    assert (answer["trials"], answer["space"]) == (2, ["training.lr"])

    table = bench.folder / "piece.csv"
    written = document("export-keypoints", store, table, "--seconds", 0.4)
    assert written == {"file": str(table), "sequence": "C/walk 1/0", "frames": 20}
    answer, (_, out, _) = document("check", "keypoints", table), call("check", "keypoints", table)
    assert answer["lines"] == out.splitlines()

    @contextmanager
    def connected(address: str | None, resources: Any) -> Iterator[Connected]:
        print("a library prints")
        yield Connected(address="", cpus=12, gpus=2, nodes=3, concurrent=5, grows=False)

    monkeypatch.setattr(cluster, "connected", connected)
    monkeypatch.setattr(nodes, "preflight", lambda *_, say, **__: say("node 1 answers"))
    status, out, err = call("check", "setup", *bench.where, "--data", store, "--json")
    answer = json.loads(out)
    assert (status, answer["nodes"], answer["cpu_cores"], answer["trainings_side_by_side"]) == (0, 3, 12, 5)
    assert answer["data_hash"] == bench.store.content_hash
    assert answer["tracking"] == bench.tracking.uri
    assert err.splitlines()[-2:] == ["a library prints", "node 1 answers"]


def test_stores_and_tables_answer_with_what_was_written(bench: Bench, tmp_path: Path) -> None:
    frames, content_hash = int(bench.store.lengths.sum()), bench.store.content_hash
    answer = document("export", bench.folder / "store", tmp_path / "parquet")
    assert (answer["sequences"], answer["frames"], answer["hash"]) == (8, frames, content_hash)
    address = (tmp_path / "there").as_uri()
    assert document("publish", bench.folder / "store", address) == {"address": address, "hash": content_hash}
    answer = document(
        "prepare", "parquet", "--raw", tmp_path / "parquet", "--out", tmp_path / "again", "--processes", 1
    )
    assert (answer["sequences"], sum(answer["frames"].values())) == (8, frames)
    assert answer["hash"] == opened_store(tmp_path / "again").content_hash


def test_lifted_files_and_drawings_answer(bench: Bench, lifter_settings: Settings, tmp_path: Path) -> None:
    shape = shape_of(bench.store.skeleton, lifter_settings.data)
    weights = checkpoint.build(lifter_settings, shape).state_dict()
    about = {"hash": "", "source": "toy", "skeleton": "h36m_17", "frame_rate": 50.0}
    checkpoint.write(tmp_path / "model.pt", checkpoint.model_file(lifter_settings, shape, weights, about))
    (tmp_path / "in").mkdir()
    assert call("export-keypoints", bench.folder / "store", tmp_path / "in" / "a.csv", "--seconds", 0.4)[0] == 0
    lift = ("lift", tmp_path / "in", "--model", tmp_path / "model.pt")
    answer = document(*lift, "-o", tmp_path / "a.parquet")
    (clip,) = answer["clips"]
    assert (answer["file"], clip["frames"], clip["frame_rate"]) == (str(tmp_path / "a.parquet"), 20, 50)
    first, again = (document(*lift, "-o", tmp_path / "poses") for _ in range(2))
    assert [one["was_there"] for answer in (first, again) for one in answer["files"]] == [False, True]
    assert first["files"][0]["clips"][0]["mpjpe_mm"] == clip["mpjpe_mm"]
    drawn = document("animate", tmp_path / "a.parquet", "-o", tmp_path / "a.gif", "--seconds", 0.1)
    assert (drawn["first_frame"], drawn["last_frame"], drawn["frames_drawn"]) == (0, 4, 3)


def test_a_dry_run_of_a_table_answers_with_its_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    answer, (_, out, _) = document("reproduce", "mixste", "--dry-run"), call("reproduce", "mixste", "--dry-run")
    assert (answer["scale"], answer["ran"]) == ("small", False)
    assert answer["commands"][0].startswith("posegrid prepare synthetic")
    for line in answer["commands"]:
        assert line in out


def test_mistakes_leave_standard_output_empty(bench: Bench, tmp_path: Path) -> None:
    damaged = toy.write_toy(tmp_path / "store", 20).path
    content = bytearray((damaged / FRAMES).read_bytes())
    content[len(content) // 2] ^= 1
    (damaged / FRAMES).write_bytes(content)
    odd = tmp_path / "odd.csv"
    odd.write_text("frame,person\n1,a\n")
    store = bench.folder / "store"
    for arguments in (
        ("check", "data", damaged),
        ("check", "keypoints", odd),
        ("check", "recipe", "nothing"),
        ("evaluate", "nothing.pt", "--data", store),
        ("report", "nothing", *bench.where),
        ("train", bench.folder / "wide.toml", "--data", store, *bench.where, "--set", "training.rate=1"),
        ("complexity", "nothing", *bench.where),
        ("analyse", "strides", "nothing.pt", "--data", store),
        ("study-samplers", bench.trial("wide").run_id, "--data", store, *bench.where),
        ("lift", tmp_path / "none.csv", "--model", "model.pt", "-o", tmp_path / "a.parquet"),
        ("plan", "demo"),
        ("package", "nothing", *bench.where),
        ("grid",),
    ):
        status, out, err = call(*arguments, "--json")
        assert (status, out) == (2, ""), arguments
        assert err


def test_only_the_document_reaches_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    with answering(True) as answer:
        say("progress")
        print("a library prints")
        answer.show("a table")
        answer.give({"mean": np.array([[1.5, np.nan]]), "file": Path("a") / "b", "rows": (np.float32(2), np.int64(3))})
    out, err = capsys.readouterr()
    assert json.loads(out) == {"mean": [[1.5, None]], "file": "a/b", "rows": [2.0, 3]}
    assert err == "progress\na library prints\n"

    with answering(False) as answer:
        say("progress")
        answer.show("a table")
        answer.give({"mean": 1})
    assert capsys.readouterr() == ("progress\na table\n", "")

    def interrupted() -> None:
        with answering(True) as answer:
            answer.give({"mean": 1})
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert capsys.readouterr() == ("", "")


def test_plain_data() -> None:
    facts = PatchScores(worst_mm=float("inf"), free_mm=1.0, pictures=2)
    assert plain({"a": facts, 3: [True, None, float("nan")]}) == {
        "a": {"worst_mm": None, "free_mm": 1.0, "pictures": 2},
        "3": [True, None, None],
    }
    assert plain(SimpleNamespace(a=1)) == "namespace(a=1)"
