"""`posegrid prepare` on damaged raw files: status 2, the file named, the store that stood before intact."""

import shutil
from pathlib import Path

import h36m_files
import numpy as np
import pytest
import toy

from posegrid.datasets.store import open_store
from posegrid.experiments.cli import main

CMU = Path(__file__).resolve().parents[3] / "shared" / "data" / "cmu"


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A store that an earlier command made."""
    toy.write_toy(tmp_path / "store", frames=30)
    return tmp_path / "store"


def refused(capsys: pytest.CaptureFixture[str], store: Path, source: str, raw: Path) -> str:
    """Prepare over an existing store; returns the message after checking that the store is as it was."""
    before = open_store(store).content_hash
    with pytest.raises(SystemExit) as stopped:
        main(["prepare", source, "--raw", str(raw), "--out", str(store), "--processes", "1"])
    said = capsys.readouterr().err
    assert stopped.value.code == 2, said
    assert open_store(store).content_hash == before
    left = [entry for entry in store.parent.iterdir() if entry.name.startswith(".")]
    # nothing, or the finished recordings for the next attempt
    assert all(entry.name.startswith(".store.work-") and any(entry.glob("parts/*.part")) for entry in left)
    assert bool(left) == ("are read and kept for the next attempt" in said)
    return said


@pytest.mark.parametrize("source", ["cmu", "h36m"])
def test_missing_raw_files_say_what_and_where_from(
    source: str, store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = refused(capsys, store, source, tmp_path / "nowhere")
    assert "nowhere" in said
    assert {"cmu": "mocap.cs.cmu.edu", "h36m": "vision.imar.ro"}[source] in said


@pytest.mark.skipif(not CMU.is_dir(), reason="the CMU motion files are not beside this checkout")
@pytest.mark.parametrize("cut", ["asfamc/02/02_03.amc", "bvh/60/60_05.bvh"])
def test_truncated_motion_files(cut: str, store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("asfamc/02/02.asf", "asfamc/02/02_03.amc", "bvh/60/60_05.bvh"):
        target = tmp_path / "raw" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(CMU / name, target)
    damaged = tmp_path / "raw" / cut
    damaged.write_bytes(damaged.read_bytes()[: damaged.stat().st_size * 6 // 10 + 1])
    assert Path(cut).name in refused(capsys, store, "cmu", tmp_path / "raw")


def test_truncated_archive(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "raw").mkdir()
    raw = h36m_files.write(tmp_path / "raw")
    file = raw / h36m_files.POSES
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    assert h36m_files.POSES in refused(capsys, store, "h36m", raw)


def test_nan_in_the_poses(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "raw").mkdir()
    poses = {subject: dict(takes) for subject, takes in h36m_files.POSE_DATA.items()}
    broken = poses["S5"]["Walking"].copy()
    broken[1, 6, 2] = np.nan
    poses["S5"]["Walking"] = broken
    said = refused(capsys, store, "h36m", h36m_files.write(tmp_path / "raw", poses=poses))
    assert "S5/Walking" in said
    assert "NaN" in said
