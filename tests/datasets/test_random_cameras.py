"""Windows before random cameras, against the functions for one camera, one window at a time."""

import json
from dataclasses import replace
from pathlib import Path

import filmed
import numpy as np
import pytest
import toy

from posegrid.datasets.cameras import Camera, camera_to_world, h36m_cameras, project, world_to_camera
from posegrid.datasets.random_cameras import RandomCameras
from posegrid.datasets.skeletons import H36M_17
from posegrid.datasets.store import Store
from posegrid.datasets.windows import Windows, random_windows

SPLITS = ("train", "held_out")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Recordings of three subjects, two cameras for some."""
    return filmed.write_filmed(tmp_path_factory.mktemp("filmed") / "s")


def some(store: Store, count: int = 40, stride: int = 3) -> Windows:
    """Windows that also begin and end with repeated frames."""
    return random_windows(store, SPLITS, 9, count, stride=stride, edges="replicate_grid", seed=1, epoch=0)


def expected(store: Store, windows: Windows, row: int, camera: Camera, mirrored: bool) -> tuple[np.ndarray, np.ndarray]:
    """One window, frame by frame, in float64."""
    sequence = store.sequences[windows.sequence[row]]
    recorded_by = Camera.from_plain(json.loads(sequence.camera_parameters))
    assert windows.stride is not None
    shown = [int(windows.start[row] + step * windows.stride[row]) for step in range(9)]
    inside = [frame for frame in shown if 0 <= frame < sequence.frames]
    keypoints, poses = [], []
    for frame in shown:
        held = min(inside, key=lambda other: abs(other - frame))
        world = camera_to_world(store.poses[sequence.offset + held], recorded_by)
        if mirrored:
            world = (world * [-1, 1, 1])[list(H36M_17.mirror)]
        seen = world_to_camera(world, camera)
        keypoints.append(project(seen, camera))
        poses.append(seen - seen[0])
    return np.array(keypoints), np.array(poses)


def test_each_window_is_what_its_camera_sees(store: Store) -> None:
    windows, random = some(store), RandomCameras(store, SPLITS)
    cameras = random.drawn(windows, 5)
    mirrored = np.arange(len(windows)) % 3 == 0
    before = store.poses.copy()
    keypoints, poses = random.film(windows, cameras, mirrored)
    assert keypoints.dtype == poses.dtype == np.float32
    for row in range(len(windows)):
        camera = random.cameras[cameras[row]]
        wanted = expected(store, windows, row, camera, bool(mirrored[row]))
        # screen units and metres: float32 rounding of coordinates of some metres
        np.testing.assert_allclose(keypoints[row], wanted[0], atol=3e-6)
        np.testing.assert_allclose(poses[row], wanted[1], atol=3e-6)
    np.testing.assert_array_equal(store.poses, before)


def test_the_recording_camera_gives_the_stored_poses_and_noise_free_keypoints(store: Store) -> None:
    windows, random = some(store), RandomCameras(store, SPLITS)
    windows = windows[windows.sequence == 0]
    own = next(index for index, camera in enumerate(random.cameras) if camera == h36m_cameras()["S1"][0])
    keypoints, poses = random.film(windows, np.full(len(windows), own))
    rows = store.offsets[0] + np.clip(windows.start[:, None] + 3 * np.arange(9), 0, 59)
    rows = rows[:, 4]  # the centre is never a repeated frame
    stored = store.poses[rows]
    np.testing.assert_allclose(poses[:, 4], stored - stored[:, :1], atol=3e-6)
    np.testing.assert_allclose(keypoints[:, 4], project(stored, h36m_cameras()["S1"][0]), atol=3e-6)
    assert np.abs(keypoints[:, 4] - store.keypoints[rows]).max() > 0.02  # the detector's errors are left behind


def test_blocks_do_not_change_what_is_seen(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    windows, random = some(store), RandomCameras(store, SPLITS)
    cameras = random.drawn(windows, 5)
    whole = random.film(windows, cameras)
    monkeypatch.setattr("posegrid.datasets.random_cameras._BLOCK", 7 * 9 * 17)
    for one, other in zip(whole, random.film(windows, cameras), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_cameras_are_drawn_alike_and_belong_to_the_window(store: Store) -> None:
    random = RandomCameras(store, SPLITS)
    windows = Windows(
        sequence=np.zeros(28_000, dtype=np.int64), start=np.arange(28_000), weight=np.ones((28_000, 1), dtype=bool)
    )
    drawn = random.drawn(windows, 3)
    counts = np.bincount(drawn, minlength=28)
    assert len(random.cameras) == len(counts) == 28  # seven subjects, four cameras
    # a camera is drawn with variance n p (1 - p): five standard deviations
    assert np.abs(counts - 1000).max() < 5 * np.sqrt(1000 * 27 / 28)
    order = np.random.default_rng(0).permutation(28_000)[:100]
    np.testing.assert_array_equal(random.drawn(windows[order], 3), drawn[order])
    second = np.zeros(28_000, dtype=bool)
    second[::2] = True
    other = random.drawn(windows, 3, second)
    np.testing.assert_array_equal(other[1::2], drawn[1::2])
    for different in (other[::2] == drawn[::2], random.drawn(windows, 4) == drawn):
        assert abs(different.mean() - 1 / 28) < 5 * np.sqrt(27 / 28**2 / len(different))


@pytest.mark.parametrize(
    ("parameters", "what"),
    [
        ({}, "has no camera parameters"),
        (Camera(id="0", width=10, height=10, focal_px=(5, 5), centre_px=(5, 5)).to_plain(), "without a place"),
    ],
)
def test_motion_of_an_unknown_world_is_refused(tmp_path: Path, parameters: dict, what: str) -> None:
    sequences = filmed.sequences("A", "walk 1", h36m_cameras()["S1"][:1], 0)
    other = replace(toy.sequence("C", "walk", "walk 1", 40, 0), camera_parameters=parameters)
    RandomCameras(filmed.write(tmp_path / "tests only", [*sequences, other]), ("train",))
    other = replace(other, subject="B")
    with pytest.raises(ValueError, match=rf"sequence B/walk 1/0 .*{what}.*Use a source .* data.cameras = \"stored\""):
        RandomCameras(filmed.write(tmp_path / "trains", [*sequences, other]), ("train",))


def test_keypoints_without_poses_are_refused(tmp_path: Path) -> None:
    sequence = replace(filmed.sequences("A", "walk 1", h36m_cameras()["S1"][:1], 0)[0], poses=None)
    with pytest.raises(ValueError, match="no 3D poses"):
        RandomCameras(filmed.write(tmp_path / "s", [sequence]), ("train",))


def test_people_who_stand_elsewhere_are_refused(store: Store, tmp_path: Path) -> None:
    RandomCameras(store, SPLITS).check(some(store))
    camera = h36m_cameras()["S1"][0]
    away = replace(camera, translation=(30.0, 5.0, 1.5))  # and so are those it films
    sequence = replace(filmed.sequences("A", "walk 1", [camera], 0)[0], camera_parameters=away.to_plain())
    elsewhere = filmed.write(tmp_path / "s", [sequence])
    windows = random_windows(elsewhere, ("train",), 9, 50, seed=0, epoch=0)
    with pytest.raises(ValueError, match=r"of the keypoints of store .* inside the images.*Use a source"):
        RandomCameras(elsewhere, ("train",)).check(windows)
