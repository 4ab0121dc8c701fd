"""Outages: epochs are delivered later and once, runs are made once; a full disk is named, nothing is half-written."""

import errno
import json
import os
import resource
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import TEMPORARILY_UNAVAILABLE

from posegrid.datasets.store import Store
from posegrid.orchestration import checkpoint, delivery, outages, saved_states, tracking
from posegrid.orchestration.delivery import FILE, Delivery
from posegrid.orchestration.grid import Stage, Study, Work, build_stages, open_study, remaining_work
from posegrid.orchestration.launch.local import run_local
from posegrid.orchestration.outages import NoAnswerError, Patience, Trouble
from posegrid.orchestration.settings import Settings, occlusion_values
from posegrid.orchestration.tracking import Tracking

Fault = Callable[[str, tuple[Any, ...]], None]
AWAY = MlflowException("API request to http://head:5000/api failed with exception connection refused")


class FaultyClient(MlflowClient):
    """MLflow's client; `before` and `after` a call, a test may raise what a broken server would make it raise."""

    before: Fault | None = None
    after: Fault | None = None

    def __getattribute__(self, name: str) -> Any:
        found = super().__getattribute__(name)
        if name.startswith("_") or name in ("before", "after", "tracking_uri") or not callable(found):
            return found

        def call(*given: Any, **named: Any) -> Any:
            if FaultyClient.before is not None:
                FaultyClient.before(name, given)
            answer = found(*given, **named)
            if FaultyClient.after is not None:
                FaultyClient.after(name, given)
            return answer

        return call


@pytest.fixture
def faulty(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[FaultyClient]]:
    """The client of every tracking store opened from now on."""
    monkeypatch.setattr(tracking, "MlflowClient", FaultyClient)
    yield FaultyClient
    FaultyClient.before = FaultyClient.after = None


@pytest.fixture
def store_of_runs(faulty: type[FaultyClient], tracking_uri: str, request: pytest.FixtureRequest) -> Tracking:
    """An empty experiment that does not wait long for anything."""
    return Tracking.open(tracking_uri, request.node.nodeid)


def away(name: str, given: tuple[Any, ...]) -> None:
    raise AWAY


def points(store: Tracking, run: str, metric: str = "train/loss") -> list[tuple[int, float, int]]:
    """(step, value, time in ms) of a metric, in the order in which it was logged."""
    return [(point.step, point.value, point.timestamp) for point in store._client.get_metric_history(run, metric)]


# ---- delivery --------------------------------------------------------------------------------------------------------


def test_epochs_of_an_outage_arrive_later_in_order_with_their_times(
    store_of_runs: Tracking, faulty: type[FaultyClient], tmp_path: Path
) -> None:
    run = store_of_runs.open_study("s", {}, "")
    now = [0.0]
    post = Delivery(tracking=store_of_runs, run_id=run, folder=str(tmp_path / "state"), clock=lambda: now[0])
    kept: list[dict[str, Any]] = []
    for epoch in range(8):
        faulty.before = away if 2 <= epoch <= 5 else None
        now[0] += 100
        post.log({"train/loss": 1.0 / (epoch + 1), "train/lr": 0.1, "broken": float("nan")}, epoch)
        file = tmp_path / "state" / FILE
        assert file.exists() == (2 <= epoch <= 5)
        if epoch == 5:
            kept = [json.loads(line) for line in file.read_text().splitlines()]
        time.sleep(0.002)
    assert [line["step"] for line in kept] == [2, 3, 4, 5]
    found = points(store_of_runs, run)
    assert [step for step, _, _ in found] == list(range(8))
    assert [value for _, value, _ in found] == [1.0 / (epoch + 1) for epoch in range(8)]
    times = [when for _, _, when in found]
    assert times == sorted(times)
    assert len(set(times)) == 8
    assert times[2:6] == [line["time_ms"] for line in kept]
    assert "broken" not in store_of_runs.trial(run).metrics
    assert [path.name for path in (tmp_path / "state").iterdir()] == []


def test_killed_worker_leaves_its_epochs_to_the_next(
    store_of_runs: Tracking, faulty: type[FaultyClient], tmp_path: Path
) -> None:
    run = store_of_runs.open_study("s", {}, "")
    first = Delivery(tracking=store_of_runs, run_id=run, folder=str(tmp_path))
    first.log({"train/loss": 1.0}, 0)
    faulty.before = away
    for epoch in (1, 2, 3):
        first.log({"train/loss": 1.0 - epoch / 10}, epoch)
    # killed; its checkpoint was that of epoch 1, so the next one repeats 2 and 3, still without a server
    again = Delivery(tracking=store_of_runs, run_id=run, folder=str(tmp_path))
    again.log({"train/loss": 0.8}, 2)
    again.log({"train/loss": 0.7}, 3)
    again.log({"train/loss": 0.6}, 4)
    faulty.before = None
    last = Delivery(tracking=store_of_runs, run_id=run, folder=str(tmp_path))
    last.finish()
    assert [(step, value) for step, value, _ in points(store_of_runs, run)] == [
        (0, 1.0), (1, 0.9), (2, 0.8), (3, 0.7), (4, 0.6)
    ]  # fmt: skip
    assert not (tmp_path / FILE).exists()


def test_epoch_that_was_logged_before_a_kill_is_not_logged_again(store_of_runs: Tracking, tmp_path: Path) -> None:
    run = store_of_runs.open_study("s", {}, "")
    for start in (0, 2, 1):
        post = Delivery(tracking=store_of_runs, run_id=run, folder=str(tmp_path))
        for epoch in range(start, 4):
            post.log({"train/loss": float(epoch)}, epoch)
            time.sleep(0.002)
    assert [step for step, _, _ in points(store_of_runs, run)] == [0, 1, 2, 3]


def test_answer_that_is_lost_doubles_nothing(
    store_of_runs: Tracking, faulty: type[FaultyClient], tmp_path: Path
) -> None:
    run = store_of_runs.open_study("s", {}, "")
    now = [0.0]
    post = Delivery(tracking=store_of_runs, run_id=run, folder=str(tmp_path), clock=lambda: now[0])
    faulty.after = lambda name, given: away(name, given) if name == "log_batch" else None
    post.log({"train/loss": 2.0}, 0)  # written, but nobody said so
    faulty.after = None
    now[0] += 100
    post.log({"train/loss": 1.0}, 1)
    assert [(step, value) for step, value, _ in points(store_of_runs, run)] == [(0, 2.0), (1, 1.0)]


def test_server_that_hangs_is_asked_now_and_then_only(
    store_of_runs: Tracking, faulty: type[FaultyClient], tmp_path: Path
) -> None:
    run = store_of_runs.open_study("s", {}, "")
    now, asked = [0.0], []
    post = Delivery(tracking=store_of_runs, run_id=run, folder=str(tmp_path), clock=lambda: now[0])

    def hang(name: str, given: tuple[Any, ...]) -> None:
        asked.append((now[0], os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"], os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"]))
        raise AWAY

    faulty.before = hang
    for epoch in range(100):  # an epoch a second
        now[0] += 1
        post.log({"train/loss": 1.0}, epoch)
    assert len(asked) == pytest.approx(100 / delivery.AGAIN_S, abs=1)
    assert {(timeout, retries) for _, timeout, retries in asked} == {("5", "0")}
    assert "MLFLOW_HTTP_REQUEST_TIMEOUT" not in os.environ


def test_epochs_stay_in_memory_when_the_disk_is_full_too(
    store_of_runs: Tracking, faulty: type[FaultyClient], tmp_path: Path
) -> None:
    run = store_of_runs.open_study("s", {}, "")
    (tmp_path / "taken").write_text("a file where the folder should be")
    post = Delivery(tracking=store_of_runs, run_id=run, folder=str(tmp_path / "taken"))
    faulty.before = away
    post.log({"train/loss": 1.0}, 0)
    post.log({"train/loss": 0.5}, 1)
    faulty.before = None
    post.finish()
    assert [step for step, _, _ in points(store_of_runs, run)] == [0, 1]


# ---- waiting ---------------------------------------------------------------------------------------------------------


def patience(wait_s: float) -> tuple[Patience, list[float]]:
    """Patience on a clock that only sleeping moves, and the sleeps."""
    slept: list[float] = []
    return Patience(where="the store", wait_s=wait_s, sleep=slept.append, clock=lambda: sum(slept)), slept


def test_waits_as_long_as_it_may_and_then_says_what_to_do(caplog: pytest.LogCaptureFixture) -> None:
    waiting, slept = patience(600)

    def fail() -> None:
        raise ConnectionError("refused")

    with pytest.raises(NoAnswerError, match=r"the store does not answer for 600 s \(gone\).*Start it, then repeat"):
        waiting.insist(fail, lambda error: Trouble(reason="gone"))
    assert sum(slept) == pytest.approx(600)
    assert 8 <= len([line for line in caplog.messages if "waiting for up to" in line]) <= 12  # told each minute
    slept.clear()
    with pytest.raises(NoAnswerError, match=r"answered with an error of its own for 30 s.*Its log names the cause"):
        patience(600)[0].insist(fail, lambda error: Trouble(reason="500", refused=True))
    with pytest.raises(ConnectionError, match="refused"):
        patience(600)[0].insist(fail, lambda error: None)
    answers = iter([ConnectionError("refused"), ConnectionError("refused"), None])

    def come_back() -> str:
        error = next(answers)
        if error is not None:
            raise error
        return "there"

    assert patience(600)[0].insist(come_back, lambda error: Trouble(reason="gone")) == "there"


def test_wait_is_read_from_the_environment(monkeypatch: pytest.MonkeyPatch, tracking_uri: str) -> None:
    monkeypatch.delenv(outages.WAIT, raising=False)
    assert Tracking(tracking_uri).wait_s == 600
    monkeypatch.setenv(outages.WAIT, "45")
    assert Tracking(tracking_uri).wait_s == 45
    assert Tracking(tracking_uri, wait_s=7).wait_s == 7
    for wrong in ("soon", "-1", "inf", "nan"):
        monkeypatch.setenv(outages.WAIT, wrong)
        with pytest.raises(ValueError, match=r"POSEGRID_TRACKING_WAIT = .*Allowed: seconds from 0.*Correct it"):
            Tracking(tracking_uri)


def test_run_is_made_once_if_the_answer_is_lost(
    store_of_runs: Tracking, faulty: type[FaultyClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_of_runs._patience, "sleep", lambda seconds: None)
    lost = {"create_run", "log_batch", "update_run"}

    def lose(name: str, given: tuple[Any, ...]) -> None:
        if name in lost:
            lost.remove(name)
            raise AWAY

    faulty.after = lose
    parent = store_of_runs.open_study("s", {"a": 1}, "")
    lost |= {"create_run", "log_batch", "update_run"}
    run = store_of_runs.open_trial("k", "trial", parent, {"lr": 0.1}, {"model": "mlp"})
    assert not lost
    assert len(store_of_runs._search("")) == 2
    assert store_of_runs.trial(run).params == {"lr": "0.1"}


def test_driver_killed_while_it_opens_a_run_leaves_what_the_next_completes(
    store_of_runs: Tracking, faulty: type[FaultyClient]
) -> None:
    parent = store_of_runs.open_study("s", {}, "")

    def kill(name: str, given: tuple[Any, ...]) -> None:
        if name == "create_run":
            raise KeyboardInterrupt

    faulty.after = kill
    with pytest.raises(KeyboardInterrupt):
        store_of_runs.open_trial("k", "trial", parent, {"lr": 0.1}, {"model": "mlp"})
    faulty.after = None
    run = store_of_runs.open_trial("k", "trial", parent, {"lr": 0.1}, {"model": "mlp"})
    assert list(store_of_runs.trials()) == ["k"]
    assert store_of_runs.trial(run).params == {"lr": "0.1"}
    assert store_of_runs.trial(run).status == "RUNNING"


def test_reopened_run_no_longer_says_that_it_failed(tracking: Tracking) -> None:
    parent = tracking.open_study("s", {}, "")
    run = tracking.open_trial("k", "trial", parent, {}, {})
    tracking.set_tags(run, {"failure": "no space", "posegrid.diverged": "nan"})
    tracking.finish(run, "FAILED")
    tracking.open_trial("k", "trial", parent, {}, {})
    assert not {"failure", "posegrid.diverged"} & tracking.trial(run).tags.keys()


def test_repeated_results_are_stored_once(tracking: Tracking) -> None:
    run = tracking.open_study("s", {}, "")
    for _ in range(2):
        tracking.log_metrics(run, {"test/mpjpe_mm": 40.0}, tags={"scored": "yes"})
        time.sleep(0.002)
    tracking.log_metrics(run, {"test/mpjpe_mm": 41.0})
    assert [value for _, value, _ in points(tracking, run, "test/mpjpe_mm")] == [40.0, 41.0]
    assert tracking.trial(run).tags["scored"] == "yes"


@contextmanager
def server(status: int, seconds: float = 0.0) -> Iterator[tuple[str, list[str]]]:
    """A server that answers every request with an error, or hangs; yields its address and what it was asked."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked.append(self.path)
            time.sleep(seconds)
            self.send_response(status)
            self.end_headers()

        do_GET = do_PUT = do_POST  # noqa: N815

        def log_message(self, *given: Any) -> None:
            """Silent."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        thread = threading.Thread(target=listening.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listening.server_port}", asked
        listening.shutdown()


def test_mlflow_itself_repeats_nothing() -> None:
    with server(503) as (uri, asked):
        store = Tracking(uri, wait_s=0)
        began = time.monotonic()
        with pytest.raises(NoAnswerError, match=r"does not answer.*503"):
            store.set_tags("run", {"a": "b"})
        assert len(asked) == 1
        assert time.monotonic() - began < 3
    with server(500) as (uri, asked), pytest.raises(NoAnswerError, match=r"answered with an error of its own.*500"):
        Tracking(uri, wait_s=0).set_tags("run", {"a": "b"})
    with pytest.raises(NoAnswerError, match=r"127.0.0.1:9 does not answer"):
        Tracking("http://127.0.0.1:9", wait_s=0).set_tags("run", {"a": "b"})


def test_hanging_server_costs_an_epoch_seconds_only(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(tracking._SHORT, "MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    with server(200, seconds=2.5) as (uri, asked):
        post = Delivery(tracking=Tracking(uri), run_id="run", folder=str(tmp_path))
        began = time.monotonic()
        for epoch in range(5):
            post.log({"train/loss": 1.0}, epoch)
        assert time.monotonic() - began < 2
        assert len(asked) == 1
    assert len((tmp_path / FILE).read_text().splitlines()) == 5


# ---- whole stages ----------------------------------------------------------------------------------------------------


def study_of(
    store: Store, opened: Tracking, lifter: Settings, seeds: tuple[int, ...] = (0,)
) -> tuple[Study, list[Work], dict[str, Stage]]:
    pattern = [occlusion_values("none", "test")]
    stages = build_stages([lifter], pattern, pattern, seeds, lambda _: lifter, store)
    study = open_study("s", store, opened, {}, "")
    return study, remaining_work(stages, opened.trials(), store.content_hash), stages


def silent(key: str, metrics: dict[str, float]) -> None:
    """Progress that says nothing."""


def test_training_goes_on_without_a_server_and_nothing_is_lost(
    toy_store: Store, store_of_runs: Tracking, faulty: type[FaultyClient], lifter_settings: Settings, tmp_path: Path
) -> None:
    study, work, _ = study_of(toy_store, store_of_runs, lifter_settings)
    reached = []

    def progress(key: str, metrics: dict[str, float]) -> None:
        reached.append(metrics["epoch"])
        faulty.before = {0: away, 1: away, 2: None}[int(metrics["epoch"])]  # back before the model is logged

    assert run_local(study, work, tmp_path, progress) == {}
    assert reached == [0, 1, 2]
    run = study.runs[work[0].stage.key]
    assert [step for step, _, _ in points(store_of_runs, run)] == [0, 1, 2]
    assert store_of_runs.trial(run).status == "FINISHED"


def test_command_killed_in_an_outage_delivers_when_it_is_repeated(
    toy_store: Store, store_of_runs: Tracking, faulty: type[FaultyClient], lifter_settings: Settings, tmp_path: Path
) -> None:
    def progress(key: str, metrics: dict[str, float]) -> None:
        faulty.before = away
        if metrics["epoch"] == 2:
            raise KeyboardInterrupt

    study, work, _ = study_of(toy_store, store_of_runs, lifter_settings)
    with pytest.raises(KeyboardInterrupt):
        run_local(study, work, tmp_path, progress)
    faulty.before = None
    assert len(list(tmp_path.rglob(FILE))) == 1
    again, left, _ = study_of(toy_store, store_of_runs, lifter_settings)
    reached = []
    run_local(again, left, tmp_path, lambda key, metrics: reached.append(metrics["epoch"]))
    assert reached == []  # all epochs were in the state: nothing is trained again
    run = again.runs[left[0].stage.key]
    found = points(store_of_runs, run)
    assert [step for step, _, _ in found] == [0, 1, 2]
    assert found == sorted(found, key=lambda point: point[2])
    assert list(tmp_path.rglob(FILE)) == []


def test_artifact_store_that_refuses_fails_one_stage_and_the_rest_goes_on(
    toy_store: Store,
    store_of_runs: Tracking,
    faulty: type[FaultyClient],
    lifter_settings: Settings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(outages, "REFUSED_S", 0.0)
    study, work, _ = study_of(toy_store, store_of_runs, lifter_settings, seeds=(0, 1))
    refused = work[0].stage.key

    def refuse(name: str, given: tuple[Any, ...]) -> None:
        if name == "log_artifact" and given[0] == study.runs[refused]:
            raise OSError(errno.ENOSPC, "No space left on device")

    faulty.before = refuse
    failed = run_local(study, work, tmp_path, silent)
    assert set(failed) == {refused}
    assert "could not write" in failed[refused]
    assert "Free space there, then repeat the command" in failed[refused]
    trials = store_of_runs.trials()
    assert {key: one.status for key, one in trials.items()} == {refused: "FAILED", work[1].stage.key: "FINISHED"}
    assert not trials[refused].trained
    assert "could not write" in trials[refused].tags["failure"]
    faulty.before = None
    again, left, _ = study_of(toy_store, store_of_runs, lifter_settings, seeds=(0, 1))
    left = [item for item in left if not item.done]
    epochs: list[float] = []
    assert [item.stage.key for item in left] == [refused]
    assert run_local(again, left, tmp_path, lambda key, metrics: epochs.append(metrics["epoch"])) == {}
    assert epochs == []
    after = store_of_runs.trials()[refused]
    assert (after.status, after.trained, "failure" in after.tags) == ("FINISHED", True, False)
    assert [step for step, _, _ in points(store_of_runs, after.run_id)] == [0, 1, 2]


def test_full_database_is_named(
    store_of_runs: Tracking, faulty: type[FaultyClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outages, "REFUSED_S", 0.0)
    run = store_of_runs.open_study("s", {}, "")

    def fill(name: str, given: tuple[Any, ...]) -> None:
        raise MlflowException("(sqlite3.OperationalError) database or disk is full", TEMPORARILY_UNAVAILABLE)

    faulty.before = fill
    with pytest.raises(NoAnswerError, match=r"could not write .*disk is full.*Free space there"):
        store_of_runs.set_tags(run, {"a": "b"})


# ---- the driver of a Ray study ---------------------------------------------------------------------------------------


def test_driver_waits_for_nothing_that_trains(
    toy_store: Store,
    store_of_runs: Tracking,
    faulty: type[FaultyClient],
    lifter_settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from posegrid.orchestration.launch import ray_tune

    monkeypatch.setattr(ray_tune, "_ASK_EVERY_S", 0.0)
    monkeypatch.setattr(ray_tune, "time", SimpleNamespace(monotonic=lambda: now[0]))
    now = [1000.0]
    store_of_runs.wait_s = 60
    study, work, _ = study_of(toy_store, store_of_runs, lifter_settings, seeds=(0, 1))
    stages, follow = ray_tune._ReadyStages(study, work), ray_tune._Follow(study, silent)
    first = stages.suggest("a")
    assert isinstance(first, dict)
    faulty.before = away
    began = time.monotonic()
    assert stages.suggest("b") is None
    follow.on_trial_complete(0, [], SimpleNamespace(config=first, last_result={}))  # type: ignore[arg-type]
    now[0] += 3600
    assert stages.suggest("b") is None  # the first one is still being trained
    follow.on_step_end(1, [])
    assert time.monotonic() - began < 5
    stages.on_trial_complete("a")
    with pytest.raises(NoAnswerError, match="does not answer"):
        stages.suggest("b")
    faulty.before = None
    assert store_of_runs.trial(first["task"]["run_id"]).status == "RUNNING"
    follow.on_step_end(2, [])
    assert store_of_runs.trial(first["task"]["run_id"]).status == "FINISHED"
    second = stages.suggest("b")
    assert isinstance(second, dict)
    assert {first["task"]["key"], second["task"]["key"]} == {item.stage.key for item in work}
    assert stages.suggest("c") == ray_tune.Searcher.FINISHED
    assert len(store_of_runs.trials()) == 2


# ---- full disks ------------------------------------------------------------------------------------------------------


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """For the time of a block, no file of this process grows beyond so many bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_state_that_does_not_fit_leaves_the_last_good_one(tmp_path: Path) -> None:
    file = tmp_path / "state.pt"
    checkpoint.write(file, {"epoch": 0, "weights": torch.ones(10)})
    with (
        files_of_at_most(100_000),
        pytest.raises(OSError, match=r"state.pt could not be written to .*--storage.*repeat the command"),
    ):
        checkpoint.write(file, {"epoch": 1, "weights": torch.ones(100_000)})
    assert [path.name for path in tmp_path.iterdir()] == ["state.pt"]
    assert checkpoint.read(file)["epoch"] == 0


def test_stage_whose_state_does_not_fit_fails_and_continues_later(
    toy_store: Store,
    store_of_runs: Tracking,
    lifter_settings: Settings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    written, write = [], checkpoint.write

    def fill(file: Path, content: dict[str, Any]) -> None:
        written.append(content.get("epoch"))
        with files_of_at_most(2_000 if content.get("epoch") == 1 and len(written) == 2 else resource.RLIM_INFINITY):
            write(file, content)

    monkeypatch.setattr(checkpoint, "write", fill)
    study, work, _ = study_of(toy_store, store_of_runs, lifter_settings)
    failed = run_local(study, work, tmp_path, silent)
    assert "state.pt could not be written" in failed[work[0].stage.key]
    assert store_of_runs.trials()[work[0].stage.key].status == "FAILED"
    again, left, _ = study_of(toy_store, store_of_runs, lifter_settings)
    assert run_local(again, left, tmp_path, silent) == {}
    assert written[:4] == [0, 1, 1, 2]  # epoch 1 was lost with the disk, and only that
    trial = store_of_runs.trials()[work[0].stage.key]
    assert (trial.status, "failure" in trial.tags) == ("FINISHED", False)
    assert [step for step, _, _ in points(store_of_runs, trial.run_id)] == [0, 1, 2]


def saved(folder: Path, name: str, epoch: int) -> str:
    """A state as Ray keeps it."""
    (folder / name).mkdir(parents=True)
    checkpoint.write(folder / name / "state.pt", {"epoch": epoch, "weights": torch.ones(2000)})
    return name


@pytest.mark.parametrize("scheme", ["", "file://"])
@pytest.mark.parametrize(
    ("content", "damaged"),
    [
        ("", True),
        ('{"checkpoint_results": [{"checkpoint_dir', True),
        ('{"checkpoint_results": [{"checkpoint_dir_name": "checkpoint_2026-11-21_20-00-00"}]}', True),
        ('{"checkpoint_results": [{"checkpoint_dir_name": "checkpoint_2026-11-21_22-00-00"}]}', False),
        ('{"checkpoint_results": []}', False),
    ],
)
def test_list_of_states_that_was_cut_off_is_done_without(
    content: str, damaged: bool, scheme: str, tmp_path: Path
) -> None:
    folder = f"{scheme}{tmp_path}"
    assert not saved_states.mend_list(folder)
    assert saved_states.newest(folder) is None
    for hour, epoch in ((21, 0), (22, 1)):
        saved(tmp_path, f"checkpoint_2026-11-21_{hour}-00-00", epoch)
    half = saved(tmp_path, "checkpoint_2026-11-21_23-00-00", 2)
    (tmp_path / half / "state.pt").write_bytes((tmp_path / half / "state.pt").read_bytes()[:5000])
    (tmp_path / "checkpoint_2026-11-21_23-30-00").mkdir()
    (tmp_path / saved_states.LIST).write_text(content)
    assert saved_states.mend_list(folder) == damaged
    assert (tmp_path / saved_states.LIST).exists() != damaged
    found = saved_states.newest(folder)
    assert found is not None
    assert found["epoch"] == 1
    assert not saved_states.mend_list(folder)
    for epoch, wanted in ((0, 1), (5, 5)):  # of a training without Ray that began the study, or went on with it
        (tmp_path / "state.pt").unlink(missing_ok=True)
        (tmp_path / saved(tmp_path, f"other {epoch}", epoch) / "state.pt").rename(tmp_path / "state.pt")
        state = saved_states.furthest(folder)
        assert state is not None
        assert state["epoch"] == wanted
    state = saved_states.furthest(folder, registered={"epoch": 7})
    assert state == {"epoch": 7}
