"""Files of a run: whole or absent, read without running code, refused when foreign."""

from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pytest
import torch

from posegrid.datasets.store import Store
from posegrid.orchestration import checkpoint
from posegrid.orchestration.batches import pose_shape
from posegrid.orchestration.settings import Settings


@pytest.fixture
def model_file(toy_store: Store, lifter_settings: Settings, tmp_path: Path) -> Path:
    pose = pose_shape(toy_store, lifter_settings.data)
    model = checkpoint.build(lifter_settings, pose)
    file = tmp_path / "model.pt"
    content = checkpoint.model_file(lifter_settings, pose, model.state_dict(), {"skeleton": "h36m_17"})
    checkpoint.write(file, content)
    return file


def test_model_file_round_trip(model_file: Path, lifter_settings: Settings) -> None:
    model, settings, data = checkpoint.load_model(model_file)
    assert settings == lifter_settings
    assert data == {"skeleton": "h36m_17"}
    again, _, _ = checkpoint.load_model(model_file)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
    assert not model.training


def test_weights_of_another_architecture_are_refused(model_file: Path, toy_store: Store) -> None:
    content = checkpoint.read(model_file)
    content["settings"]["model"]["width"] = 32
    checkpoint.write(model_file, content)
    with pytest.raises(ValueError, match=r"another architecture.*other shape: .* instead of"):
        checkpoint.load_model(model_file)


def test_wrapper_file_holds_its_conditioner(toy_store: Store, wrapper_settings: Settings, tmp_path: Path) -> None:
    lifter = replace(wrapper_settings, model={"name": "mlp", "width": 8}, conditioner=None)
    settings = replace(wrapper_settings, upstream=lifter.plain())
    pose = pose_shape(toy_store, settings.data)
    model = checkpoint.build(settings, pose)
    checkpoint.write(tmp_path / "model.pt", checkpoint.model_file(settings, pose, model.state_dict(), {}))
    loaded, _, _ = checkpoint.load_model(tmp_path / "model.pt")
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), loaded.parameters(), strict=True))


@pytest.mark.parametrize("kept", [0, 100, 2000])
def test_damaged_file_is_refused(model_file: Path, kept: int) -> None:
    model_file.write_bytes(model_file.read_bytes()[:kept])
    with pytest.raises(ValueError, match="cannot be read"):
        checkpoint.load_model(model_file)


class Evil:
    """Unpickling an object of this class would write a file."""

    def __init__(self, target: str) -> None:
        self.target = target

    def __reduce__(self):  # type: ignore[no-untyped-def]
        return open, (self.target, "w")


def test_no_code_runs_from_a_checkpoint(tmp_path: Path) -> None:
    target = tmp_path / "executed"
    torch.save({"evil": Evil(str(target))}, tmp_path / "evil.pt")
    with pytest.raises(ValueError, match="cannot be read"):
        checkpoint.read(tmp_path / "evil.pt")
    assert not target.exists()


def test_interrupted_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "state.pt"
    checkpoint.write(file, {"epoch": 1})

    def cut(content: object, aside: BinaryIO) -> None:
        aside.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(torch, "save", cut)
    with pytest.raises(OSError, match="disk full"):
        checkpoint.write(file, {"epoch": 2})
    assert checkpoint.read(file) == {"epoch": 1}


def test_foreign_file_is_refused(tmp_path: Path) -> None:
    torch.save({"weights": torch.from_numpy(np.zeros(3))}, tmp_path / "other.pt")
    with pytest.raises(ValueError, match="no posegrid model file"):
        checkpoint.load_model(tmp_path / "other.pt")
