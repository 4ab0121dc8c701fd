"""Cameras against the published test vectors, the parity fixture and their own invariants."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest

from posegrid.datasets import cameras
from posegrid.datasets.cameras import Camera

FIXTURE = Path(__file__).parents[2] / ".." / "shared" / "parity" / "cameras.npz"
needs_fixture = pytest.mark.skipif(not FIXTURE.exists(), reason="shared/parity/cameras.npz is not there")

VECTORS = [
    ("S1", 0, (-0.320303, -0.435265, 5.288662), (-0.113366, -0.159032), (443.3168, 421.4839)),
    ("S9", 1, (0.011864, -0.574354, 5.496442), (0.022611, -0.223341), (511.3054, 388.3294)),
    ("S11", 3, (-0.089957, -0.540743, 4.173568), (-0.019314, -0.294027), (490.3432, 353.9863)),
]
"""Subject, camera, and where (0, 0, 1 m) must be: camera frame (m), screen, pixels."""


@pytest.fixture
def points() -> np.ndarray:
    return np.random.default_rng(3).uniform([-1.5, -1.5, 0], [1.5, 1.5, 2], (40, 17, 3))


@pytest.mark.parametrize(("subject", "index", "in_camera", "screen", "pixels"), VECTORS)
def test_published_vectors(subject, index, in_camera, screen, pixels):
    camera = cameras.h36m_cameras()[subject][index]
    point = cameras.world_to_camera(np.array([0.0, 0.0, 1.0]), camera)
    np.testing.assert_allclose(point, in_camera, atol=2e-6)
    np.testing.assert_allclose(cameras.project(point, camera), screen, atol=2e-6)
    found = cameras.screen_to_pixels(cameras.project(point, camera), camera.width, camera.height)
    np.testing.assert_allclose(found, pixels, atol=2e-3)


def test_h36m_calibration_is_complete():
    table = cameras.h36m_cameras()
    assert list(table) == ["S1", "S5", "S6", "S7", "S8", "S9", "S11"]
    for row in table.values():
        assert tuple(camera.id for camera in row) == cameras.H36M_CAMERA_IDS
        assert [(camera.width, camera.height) for camera in row] == [
            (1000, 1002), (1000, 1000), (1000, 1000), (1000, 1002)
        ]  # fmt: skip
        for camera in row:
            assert abs(np.linalg.norm(camera.orientation) - 1) < 3.2e-8
            assert 1 < camera.translation[2] < 2.5, "cameras hang at head height, in metres"


def test_world_and_camera_frames_are_inverse(points):
    for row in cameras.h36m_cameras().values():
        for camera in row:
            there = cameras.world_to_camera(points, camera)
            np.testing.assert_allclose(cameras.camera_to_world(there, camera), points, atol=1e-6)
            assert (there[..., 2] > 0).all(), "the capture space lies in front of every camera"


def test_screen_and_pixels_are_inverse():
    pixels = np.random.default_rng(0).uniform(0, 1000, (30, 2))
    screen = cameras.normalise_screen(pixels, 1000, 1002)
    np.testing.assert_allclose(cameras.screen_to_pixels(screen, 1000, 1002), pixels, atol=1e-10)
    np.testing.assert_allclose(cameras.normalise_screen(np.array([500.0, 501.0]), 1000, 1002), 0, atol=1e-12)
    np.testing.assert_allclose(cameras.normalise_screen(np.array([0.0, 0.0]), 1000, 1002), [-1, -1.002])
    assert cameras.inside_image(np.array([[0.99, 1.001], [1.01, 0]]), 1000, 1002).tolist() == [True, False]


def test_without_distortion_both_projections_agree(points):
    plain = {**cameras.h36m_cameras()["S1"][0].to_plain(), "radial": [0, 0, 0], "tangential": [0, 0]}
    camera = Camera.from_plain(plain)
    there = cameras.world_to_camera(points, camera)
    np.testing.assert_allclose(cameras.project(there, camera), cameras.project_linear(there, camera), atol=1e-12)


def test_distortion_term_by_term():
    """One point written out by hand: 1.25 and 0.5 are sums of powers of two, so the figures are exact."""
    camera = Camera(
        id="x", width=1000, height=1000, focal_px=(500, 500), centre_px=(500, 500),
        radial=(0.1, 0.2, 0.3), tangential=(0.01, 0.02),
    )  # fmt: skip
    u, v, squared = 0.5, -0.25, 0.3125
    factor = 1 + 0.1 * squared + 0.2 * squared**2 + 0.3 * squared**3 + 0.01 * u + 0.02 * v
    expected = [u * factor + 0.01 * squared, v * factor + 0.02 * squared]
    np.testing.assert_allclose(cameras.project(np.array([1.0, -0.5, 2.0]), camera), expected, atol=1e-14)


def test_points_far_outside_are_clipped():
    camera = cameras.h36m_cameras()["S1"][0]
    edge, beyond = np.array([1.0, 0.2, 1.0]), np.array([7.0, 0.2, 1.0])
    np.testing.assert_array_equal(cameras.project(edge, camera), cameras.project(beyond, camera))
    np.testing.assert_array_equal(cameras.project_linear(edge, camera), cameras.project_linear(beyond, camera))


@needs_fixture
def test_parity_with_reference_implementation():
    with np.load(FIXTURE, allow_pickle=False) as data:
        values = {key: data[key] for key in data.files}
    tolerance = {"rtol": 1e-4, "atol": 2e-6}
    row = cameras.h36m_cameras()["S1"]
    for index, camera in enumerate(row):
        np.testing.assert_allclose(camera.intrinsics, values["input_intrinsic"][index], **tolerance)
        np.testing.assert_allclose(camera.orientation, values["input_orientation"][index], **tolerance)
        np.testing.assert_allclose(camera.translation, values["input_translation"][index], **tolerance)
        there = cameras.world_to_camera(values["input_world_points"], camera)
        projected = cameras.project(there, camera)
        wide = values["input_wide_points"]
        size = camera.width, camera.height
        normalised = cameras.normalise_screen(values["input_pixels"], *size)
        for key, found in {
            "camera_points": there,
            "world_points_again": cameras.camera_to_world(there, camera),
            "projected": projected,
            "projected_linear": cameras.project_linear(there, camera),
            "wide_projected": cameras.project(wide, camera),
            "wide_projected_linear": cameras.project_linear(wide, camera),
            "normalised": normalised,
            "pixels_again": cameras.screen_to_pixels(normalised, *size),
            "projected_pixels": cameras.screen_to_pixels(projected, *size),
        }.items():
            np.testing.assert_allclose(found, values[f"output_{key}"][index], err_msg=key, **tolerance)
    quaternions = values["input_quaternions"]
    vectors = cameras.quaternion_rotate(quaternions, values["input_world_points"])
    np.testing.assert_allclose(vectors, values["output_rotated"], **tolerance)
    np.testing.assert_allclose(
        cameras.quaternion_inverse(quaternions), values["output_inverse_quaternions"], **tolerance
    )


def test_cylinder_around_the_meeting_point_is_seen_by_all():
    around, up = np.linspace(0, 2 * np.pi, 60)[:, None], np.linspace(0, 1.9, 7)[None]
    for row in cameras.h36m_cameras().values():
        x, y, _ = cameras.meeting_point(row)
        rim = np.stack(np.broadcast_arrays(x + 1.5 * np.cos(around), y + 1.5 * np.sin(around), up), axis=-1)
        for camera in row:
            screen = cameras.project(cameras.world_to_camera(rim, camera), camera)
            assert cameras.inside_image(screen, camera.width, camera.height).all()


def test_camera_survives_json_and_pickle():
    camera = cameras.h36m_cameras()["S7"][2]
    assert Camera.from_plain(json.loads(json.dumps(camera.to_plain()))) == camera
    assert pickle.loads(pickle.dumps(camera)) == camera
    assert hash(camera) == hash(Camera.from_plain(camera.to_plain()))


def test_wrong_cameras_are_refused():
    plain = cameras.h36m_cameras()["S1"][0].to_plain()
    with pytest.raises(ValueError, match="unit quaternion"):
        Camera.from_plain({**plain, "orientation": [2.0, 0.0, 0.0, 0.0]})
    with pytest.raises(ValueError, match="expected 2 finite numbers"):
        Camera.from_plain({**plain, "focal_px": [1.0]})
    with pytest.raises(ValueError, match="positive sizes"):
        Camera.from_plain({**plain, "width": 0})
    with pytest.raises(ValueError, match="have the keys"):
        Camera.from_plain({})
