"""Errors and interpolation between key frames equal those of Uplift and Upsample's released evaluation."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from toy import PROTOCOL, sequence

from posegrid.datasets.centred_windows import Interpolation
from posegrid.datasets.metrics.position import mpjpe, n_mpjpe, p_mpjpe
from posegrid.datasets.skeletons import H36M_17
from posegrid.datasets.store_writer import write_store
from posegrid.datasets.windows import consecutive_windows

FILE = Path(__file__).parents[3] / "shared" / "parity" / "metrics_uplift.npz"
ROOT = 6
"""Place of the root in the joint order of that code."""


@pytest.fixture
def fixture():
    if not FILE.is_file():
        pytest.skip(f"parity fixture {FILE.name} is not here")
    return np.load(FILE)


def _relative(poses: np.ndarray) -> np.ndarray:
    poses = poses[..., :3].astype(np.float64)
    return poses - poses[:, ROOT, None]


def _close(fixture, key: str, value: np.ndarray) -> None:
    tolerance = json.loads(str(fixture["config_json"]))["tolerance"]
    np.testing.assert_allclose(value, fixture[f"output_{key}"], tolerance["rtol"], tolerance["atol"][key])


def _errors(fixture, ending: str) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """(N, J) errors by name, and which joints are valid. Joints that are not are left out of the means and of the scale
    of N-MPJPE (zeros take no part in its sums), but not of the alignment of P-MPJPE."""
    given = fixture[f"input_target{ending}"]
    predicted, target, valid = _relative(fixture["input_predicted"]), _relative(given), given[..., 3] > 0
    masked = [np.where(valid[..., None], poses, 0) for poses in (predicted, target)]
    errors = {
        "mpjpe": mpjpe(predicted, target),
        "n_mpjpe_root": n_mpjpe(*masked),
        "p_mpjpe": p_mpjpe(predicted, target),
    }
    return errors, valid


@pytest.mark.parametrize("ending", ["", "_all_valid"])
def test_errors_after_aligning_the_roots(fixture, ending):
    errors, valid = _errors(fixture, ending)
    assert valid.all() == bool(ending)
    for name, values in errors.items():
        _close(fixture, f"{name}{ending}", values[valid].mean())
        _close(fixture, f"{name}_per_joint{ending}", np.where(valid, values, -1))


def test_action_wise_means(fixture):
    errors, valid = _errors(fixture, "")
    rows = [fixture["input_actions"] == action for action in range(15)]
    per_action = np.array([[1000 * value[row][valid[row]].mean() for value in errors.values()] for row in rows])
    _close(fixture, "per_action_mm", per_action)
    _close(fixture, "action_wise_mm", per_action.mean(axis=0))
    _close(fixture, "frame_wise_mm", [1000 * value[valid].mean() for value in errors.values()])


def test_frames_between_key_frames(fixture, tmp_path):
    """Two sequences of 30 frames, every fifth frame kept: linear between two, copies of the last one after it."""
    lengths = [int(n) for n in np.bincount(np.cumsum(fixture["input_frame_indices"] == 0) - 1)]
    made = [replace(sequence("C", "walk", f"walk {i}", n, i), subject="C") for i, n in enumerate(lengths)]
    others = [sequence("A", "walk", "walk 1", 30, 7), sequence("B", "walk", "walk 2", 30, 8)]
    store = write_store(
        tmp_path / "store", [*made, *others], source="toy", source_config={}, skeleton=H36M_17, protocol=PROTOCOL
    )
    windows = consecutive_windows(store, "test", 30)
    assert [store.sequences[i].recording for i in windows.sequence] == ["walk 0", "walk 1"]
    frames = Interpolation(store, windows, 5)
    poses = fixture["input_predicted"].astype(np.float64).reshape(2, 30, 17, 3)
    place = {int(index): row for row, index in enumerate(windows.sequence)}
    lifted = np.stack(
        [poses[place[int(index)], frame] for index, frame in zip(frames.sequence, frames.frame, strict=True)]
    )
    kept = fixture["output_is_keyframe"].reshape(2, 30)
    assert all(kept[place[int(i)], f] for i, f in zip(frames.sequence, frames.frame, strict=True))
    assert len(frames.frame) == kept.sum()
    everything = slice(None)
    filled = frames.filled(lifted, everything, frames.needed_by(everything))
    _close(fixture, "interpolated", filled.reshape(60, 17, 3))
