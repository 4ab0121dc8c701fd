"""Fixtures that several rooms share: a toy store, one tracking database with an experiment for each test."""

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from toy import write_toy

from posegrid.datasets.store import Store
from posegrid.orchestration.settings import Settings
from posegrid.orchestration.tracking import Tracking, sqlite_uri


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Small tensors are faster on one thread, and sums do not depend on the machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def toy_store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Eight short sequences of made-up motion."""
    return write_toy(tmp_path_factory.mktemp("toy") / "store")


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty one to copy: MLflow takes four seconds to make it."""
    file = tmp_path_factory.mktemp("empty") / "mlflow.db"
    Tracking(sqlite_uri(file))
    return file


@pytest.fixture(scope="session", autouse=True)
def new_databases(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[None]:
    """A database that a test in this process would have made is copied from an empty one."""
    as_ever = Tracking.open.__func__  # type: ignore[attr-defined]

    def opened(kind: type[Tracking], uri: str, *others: str) -> Tracking:
        file = Path(uri.removeprefix("sqlite:///"))
        if file.is_relative_to(tmp_path_factory.getbasetemp()) and not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(request.getfixturevalue("empty_database"), file)
        return as_ever(kind, uri, *others)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Tracking, "open", classmethod(opened))
        yield


@pytest.fixture(scope="session")
def tracking_uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One database for all tests: making one takes seconds."""
    uri = sqlite_uri(tmp_path_factory.mktemp("tracking") / "mlflow.db")
    Tracking.open(uri)
    return uri


@pytest.fixture
def tracking(tracking_uri: str, request: pytest.FixtureRequest) -> Tracking:
    """An empty experiment of the shared database."""
    return Tracking.open(tracking_uri, request.node.nodeid)


@pytest.fixture
def lifter_settings() -> Settings:
    """A tiny lifter that trains in a second."""
    return Settings.from_plain(
        {
            "name": "tiny",
            "model": {"name": "mixste", "width": 16, "depth": 1, "heads": 2, "drop_path": 0.0},
            "data": {"frames": 9},
            "training": {"epochs": 3, "batch": 8, "lr": 1e-3},
            "evaluation": {"batch": 16},
        },
        "test",
    )


@pytest.fixture
def wrapper_settings(lifter_settings: Settings) -> Settings:
    """A tiny diffusion model around the tiny lifter."""
    plain = lifter_settings.plain()
    model = {"name": "diffhpe", "conditioning": "lifter", "channels": 8, "blocks": 2, "steps": 4, "step_embedding": 16}
    evaluation = {"batch": 16, "hypotheses": 2}
    changed = {"name": "tiny wrapper", "model": model, "evaluation": evaluation, "conditioner": {"recipe": "tiny"}}
    return Settings.from_plain({**plain, **changed}, "test")


@pytest.fixture
def trained_settings(lifter_settings: Settings) -> Settings:
    """The tiny lifter with what can make a run depend on its history: schedule, average, dropped paths, occlusion."""
    training = replace(
        lifter_settings.training, epochs=4, schedule="plateau", patience=0, ema=0.9, optimizer="adamw", weight_decay=0.1
    )
    model = {**lifter_settings.model, "drop_path": 0.2, "depth": 2}
    return replace(lifter_settings, training=training, model=model).with_occlusion({"pattern": "leg_run"})
