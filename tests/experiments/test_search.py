"""Searches from one end to the other, on made-up data: what is trained, when again, what is chosen, what is written."""

import csv
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from posegrid.datasets.store import Store
from posegrid.experiments import catalogue, search_study
from posegrid.experiments.cli import main
from posegrid.experiments.reports import search_report
from posegrid.experiments.reports.search_report import winner_text
from posegrid.experiments.search_commands import resolved_search
from posegrid.experiments.search_study import OBJECTIVE, Found, SearchPlan
from posegrid.experiments.studies import Where
from posegrid.orchestration.launch import local
from posegrid.orchestration.tracking import DIVERGED, Tracking, Trial, sqlite_uri

RECIPE = """
[model]
name = "mlp"
width = 8
depth = 1
feature_width = 4
[data]
frames = 9
[training]
epochs = {epochs}
batch = 16
lr = 1e-3
select = "last"
[evaluation]
batch = 64
hypotheses = 1
"""
SEARCH = """
title = "toy"
recipe = "{recipe}"
trials = 3
method = "tpe"
startup = 2
at_once = 1
test = ["leg_run"]
replicates = [0, 1]
[space."training.lr"]
kind = "log"
low = 1e-4
high = 1e-1
[space."model.dropout"]
kind = "uniform"
low = 0.0
high = 0.5
"""
STEPWISE = SEARCH.replace("trials = 3", "trials = 2").replace("startup = 2", "startup = 1")
STATIC = """
title = "one rate is too large"
recipe = "{recipe}"
trials = 1
method = "random"
replicates = [0]
recipe_first = false
[space."training.lr"]
values = [1e-3, 1e30]
"""


@dataclass
class Bench:
    """A recipe, a search and a place for results."""

    folder: Path
    home: Path
    store: Store
    said: list[str] = field(default_factory=list)

    @property
    def tracking(self) -> Tracking:
        return Tracking(sqlite_uri(self.home / "mlflow.db"))

    def file(self, text: str = SEARCH, epochs: int = 2, recipe: str = RECIPE) -> Path:
        """Write recipe and search."""
        (self.folder / "tiny.toml").write_text(recipe.replace("{epochs}", str(epochs)))
        file = self.folder / "search.toml"
        file.write_text(text.replace("{recipe}", str(self.folder / "tiny.toml")))
        return file

    def run(self, file: Path, changes: dict[str, Any] | None = None, overrides: tuple[str, ...] = ()) -> Found:
        """The search, in this process."""
        uri = sqlite_uri(self.home / "mlflow.db")
        resolved = resolved_search(str(file), changes or {}, list(overrides))
        runs = partial(Tracking.existing, uri)
        planned = SearchPlan(name="s", resolved=resolved, store=self.store, runs=runs, gpu=False)
        where = Where(tracking=uri, storage=str(self.home / "state"), launch="local")
        return search_study.run(planned, where, self.said.append)

    def trials(self) -> dict[str, Trial]:
        """Run name -> run."""
        return {trial.tags["mlflow.runName"]: trial for trial in self.tracking.trials().values()}

    def steps(self, run_id: str) -> list[int]:
        return [point.step for point in self.tracking._client.get_metric_history(run_id, "train/loss")]


@pytest.fixture
def bench(tmp_path: Path, empty_database: Path, toy_store: Store) -> Bench:
    return another(tmp_path, "runs", empty_database, toy_store)


def another(folder: Path, name: str, empty_database: Path, store: Store) -> Bench:
    (folder / name).mkdir()
    shutil.copy(empty_database, folder / name / "mlflow.db")
    return Bench(folder=folder, home=folder / name, store=store)


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the runs that were trained, or at least scored, in the order in which it happened."""
    seen: list[str] = []
    before = local.run_task

    def counted(task: Any, *more: Any) -> None:
        seen.append(task.run_id)
        before(task, *more)

    monkeypatch.setattr(local, "run_task", counted)
    return seen


def command(bench: Bench, file: Path, *more: object) -> tuple[str, ...]:
    where = ("--data", bench.store.path, "--home", bench.home, "--launch", "local")
    return tuple(str(one) for one in ("search", file, *where, *more))


def works(*arguments: object) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([str(argument) for argument in arguments])
    assert not stopped.value.code


def fails(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """Run a command that must end with status 2; returns what it says on standard error."""
    with pytest.raises(SystemExit) as stopped:
        main([str(argument) for argument in arguments])
    said = capsys.readouterr().err
    assert stopped.value.code == 2, said
    return said


def artifact(tracking: Tracking, name: str) -> str:
    with tracking.fetched(tracking.study("search-search-toy"), f"search/{name}") as file:
        return file.read_text()


def test_search_from_the_command_line(
    bench: Bench, trained: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file, winner = bench.file(), bench.folder / "out" / "best.toml"
    works(*command(bench, file, "--out", winner))
    said = capsys.readouterr().out
    assert "round 0, trials 0 to 1: 2 stages, 0 done, 2 to run" in said
    assert "round 1, trials 2 to 2: 1 stages, 0 done, 1 to run" in said
    assert "with seeds 0, 1: 2 stages, 0 done, 2 to run" in said
    # the winner's first seed is its trial, which is scored but not trained again
    assert len(trained) == 5
    trials = bench.trials()
    assert len(trials) == 4

    rows = list(csv.DictReader(artifact(bench.tracking, "search.csv").splitlines()))
    objectives = [float(row["MPJPE (mm) on held-out recordings"]) for row in rows]
    best = objectives.index(min(objectives))
    assert [row["state"] for row in rows] == ["best" if place == best else "" for place in range(3)]
    assert float(rows[0]["training.lr"]) == 1e-3  # the recipe's own
    for row, value in zip(rows, objectives, strict=True):
        history = bench.tracking._client.get_metric_history(row["runs"], "validation/mpjpe_mm")
        assert value == min(point.value for point in history)
        run = bench.tracking.trial(row["runs"])
        assert run.metrics[OBJECTIVE] == value
        assert run.tags["selection"] == "held_out"
        assert run.tags["posegrid.trial.search-search-toy"].startswith(row["trial"])
        assert float(run.params["training.lr"]) == float(row["training.lr"])
        # what chooses must not look at the test subjects
        assert run.evaluated.keys() == ({"leg_run"} if row["state"] == "best" else set())
    parent = bench.tracking.study("search-search-toy")
    made = bench.tracking.artifacts(parent, "search")
    assert {"search/parallel_coordinates.png", "search/surface.png", "search/importances.json"} <= set(made)
    assert "+-" in said
    assert "Tested on leg_run" in said

    works("train", winner, "--data", bench.store.path, "--home", bench.home, "--launch", "local", "--test", "leg_run")
    assert "1 stages, 1 done, 0 to run" in capsys.readouterr().out
    assert winner.read_text() == artifact(bench.tracking, "winner.toml")

    before = {name: trial.run_id for name, trial in trials.items()}
    monkeypatch.setattr(search_report, "report_search", lambda *_: None)  # the same again
    works(*command(bench, file))
    said = capsys.readouterr().out
    assert said.count(" 0 to run") == 3
    assert len(trained) == 5
    assert {name: trial.run_id for name, trial in bench.trials().items()} == before


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, empty_database: Path, toy_store: Store) -> Found:
    """What the search below comes to if nothing happens."""
    bench = another(tmp_path_factory.mktemp("undisturbed"), "runs", empty_database, toy_store)
    return bench.run(bench.file(STEPWISE))


@pytest.mark.parametrize("stop_after", [1, 3, 6])
def test_killed_search_continues_and_ends_like_an_undisturbed_one(
    stop_after: int, bench: Bench, undisturbed: Found, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two trials of two epochs, each a round, and another seed: killed in each of them."""
    file = bench.file(STEPWISE)
    epochs = 0

    class Stopping(search_study.Progress):
        def __call__(self, key: str, metrics: dict[str, float]) -> None:
            nonlocal epochs
            epochs += 1
            if epochs == stop_after:
                raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(search_study, "Progress", Stopping)
        with pytest.raises(KeyboardInterrupt):
            bench.run(file)
    assert bench.tracking.trial(bench.tracking.study("s")).status == "FAILED"
    found = bench.run(file)
    assert [(one.proposal, one.objective) for one in found.outcomes] == [
        (one.proposal, one.objective) for one in undisturbed.outcomes
    ]
    trials = bench.trials().values()
    assert len(trials) == 3
    for trial in trials:
        assert bench.steps(trial.run_id) == [0, 1]
        assert trial.status == "FINISHED"
    assert bench.tracking.trial(found.study.parent).status == "FINISHED"


def test_trial_that_diverges_is_marked_and_the_rest_goes_on(bench: Bench, trained: list[str]) -> None:
    file = bench.file(STATIC.replace("trials = 1", "trials = 6"))
    found = bench.run(file)
    lost = [one for one in found.outcomes if one.proposal.values["training.lr"] > 1]
    assert lost
    assert all(one.objective is None for one in lost)
    assert found.best.proposal.values["training.lr"] == 1e-3
    (run,) = {one.runs for one in lost}
    trial = bench.tracking.trial(run[0])
    assert trial.status == "FAILED"
    assert "lower training.lr" in trial.tags[DIVERGED]
    assert "lower training.lr" in trial.tags["failure"]
    assert any("diverged" in line for line in bench.said)
    once = len(trained)
    assert bench.run(file).outcomes == found.outcomes
    assert len(trained) == once


def test_search_of_which_all_trials_diverge_says_so(bench: Bench) -> None:
    with pytest.raises(RuntimeError, match="every trial diverged"):
        bench.run(bench.file(STATIC.replace("1e-3, ", "")))
    assert bench.tracking.trial(bench.tracking.study("s")).status == "FAILED"


def test_stage_that_fails_otherwise_ends_the_search(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(local, "run_task", broken)
    with pytest.raises(RuntimeError, match=r"2 of 2 stages did not finish(.|\n)*disk full(.|\n)*repeat the command"):
        bench.run(bench.file())


def test_halving_trains_the_survivors_for_longer(bench: Bench, trained: list[str]) -> None:
    text = SEARCH.replace('"tpe"', '"halving"\nrounds = 2\nkeep = 2').replace("[0, 1]", "[0]")
    text = text.replace("trials = 3", "trials = 4")
    found = bench.run(bench.file(text, epochs=3))
    rounds: list[list[Any]] = [[one for one in found.outcomes if one.proposal.round == place] for place in range(2)]
    assert [len(one) for one in rounds] == [4, 2]
    for place, epochs in enumerate((2, 3)):
        assert {len(bench.steps(one.runs[0])) for one in rounds[place]} == {epochs}
    ranked = sorted(rounds[0], key=lambda one: one.objective)
    assert {one.proposal.trial for one in rounds[1]} == {one.proposal.trial for one in ranked[:2]}
    assert found.best == min(rounds[1], key=lambda one: one.objective)
    assert len(trained) == 7  # six trials, one of them scored afterwards
    resolved = resolved_search(str(bench.folder / "search.toml"), {}, [])
    assert resolved.settings(found.best.proposal).training.epochs == 3


def test_trial_of_several_patterns_and_seeds_has_their_mean(bench: Bench) -> None:
    text = STATIC.replace(", 1e30", "").replace("[0]", '[0]\nseeds = [0, 1]\ntrain = ["none", "leg_run"]')
    found = bench.run(bench.file(text, epochs=1))
    one = found.outcomes[0]
    assert len(one.runs) == 4
    values = [bench.tracking.lowest(run, "validation/mpjpe_mm") for run in one.runs]
    assert one.objective == pytest.approx(sum(values) / 4, rel=1e-12)
    assert len(set(values)) == 4


def test_selection_on_the_test_subjects_is_tagged(bench: Bench) -> None:
    text = STATIC.replace(", 1e30", "").replace('"random"', '"random"\nselect_on = "test"\nminimise = "loss"')
    file = bench.file(text, epochs=1)
    found = bench.run(file)
    run = bench.tracking.trial(found.best.runs[0])
    assert run.tags["selection"] == "test"
    assert "selected on the test subjects" in run.tags["optimistic"]
    assert found.best.objective == run.metrics["validation/loss"]
    resolved = resolved_search(str(file), {}, [])
    assert "its test scores are optimistic" in winner_text(resolved, found)


def test_overrides_reach_trials_and_the_winners_recipe(bench: Bench) -> None:
    file = bench.file(STATIC.replace(", 1e30", ""))
    found = bench.run(file, overrides=("training.epochs=1", "model.width=4"))
    assert bench.steps(found.best.runs[0]) == [0]
    resolved = resolved_search(str(file), {}, ["training.epochs=1", "model.width=4"])
    (bench.folder / "w.toml").write_text(winner_text(resolved, found))
    written = catalogue.recipe(str(bench.folder / "w.toml"))
    assert (written.training.epochs, written.model["width"]) == (1, 4)
    trained = bench.tracking.trial(found.best.runs[0])
    assert written.resolved(gpu=False).training_fingerprint(bench.store.content_hash) == trained.key


Change = Callable[[str], str]


@pytest.mark.parametrize(
    ("change", "more", "expected"),
    [
        (lambda text: text.replace("training.lr", "training.lrr"), (), 'space."training.lrr", value 0.0001'),
        (lambda text: text.replace("training.lr", "training.lrr"), (), 'did you mean "lr"'),
        (
            lambda text: text.replace("model.dropout", "training.ema").replace("high = 0.5", "high = 1.5"),
            (),
            'space."training.ema", value 1.5',
        ),
        (lambda text: text.replace("low = 1e-4", "low = 1e-2"), (), "does not hold the recipe's own value 0.001"),
        (lambda text: text.replace("training.lr", "training.seed"), (), "decides by its key seeds"),
        (lambda text: text.replace("training.lr", "training.select"), (), "decides by its key select_on"),
        (lambda text: text.replace("training.lr", "evaluation.every"), (), "changes nothing that is minimised"),
        (lambda text: text.replace('"tpe"', '"asha"'), (), "Known: halving, random, tpe"),
        (lambda text: text.replace("trials", "trails"), (), 'did you mean "trials"'),
        (lambda text: text.replace("[0, 1]", "[]"), (), "replicates = []"),
        (lambda text: text.replace("{recipe}", "nowhere.toml"), (), "does not exist"),
        (lambda text: text.replace('"leg_run"', '"leg_runn"'), (), 'did you mean "leg_run"'),
        (str, ("--set", "training.lr=1e-3"), "Allowed is one of both"),
        (str, ("--set", "training.select=test"), "decides by its key select_on"),
        (str, ("--set", "training.epoch=3"), 'did you mean "epochs"'),
        (str, ("--select-on", "train"), "Known: held_out, test"),
        (str, ("--trials", "0"), "trials = 0"),
        (str, ("--out", "best"), "files that end with .toml"),
        (str, ("--launch", "slurm"), "--launch slurm is unknown"),
        (str, ("--study", "a/b"), "study name 'a/b'"),
    ],
)
def test_mistakes_end_with_status_2_before_anything_is_written(
    change: Change, more: tuple[str, ...], expected: str, bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    (bench.home / "mlflow.db").unlink()
    said = fails(capsys, *command(bench, bench.file(change(SEARCH)), *more))
    assert expected in said
    assert not list(bench.home.iterdir())


def test_unknown_search_names_the_nearest(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    assert 'did you mean "small_wrapper"' in fails(capsys, *command(bench, Path("small_wraper")))


def test_checking_a_search(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    works("check", "search", bench.file())
    assert "3 trials" in capsys.readouterr().out
    assert "does not exist" in fails(capsys, "check", "search", "nothing.toml")


def test_conditioners_are_not_trained_on_what_selects() -> None:
    resolved = resolved_search("diffhpe_wrapper", {}, [])
    assert 'mixste_27:training.select="held_out"' in resolved.set
    on_test = resolved_search("diffhpe_wrapper", {"select_on": "test"}, [])
    assert not any("mixste_27" in text for text in on_test.set)
    own = resolved_search("diffhpe_wrapper", {}, ["mixste_27:training.epochs=3"])
    assert "mixste_27:training.epochs=3" in own.set
