"""Boxes around people, the lens and its inverse."""

import numpy as np
import pytest

from posegrid.datasets import cameras
from posegrid.datasets.images import crops, lenses
from posegrid.datasets.images.scenes import Scene, pixel_rays, pixels_to_screen, ray_polynomials, screen_to_pixels


def test_box_by_hand():
    keypoints = np.array([[[100.0, 100.0], [140.0, 300.0], [900.0, 900.0]], [[0.0, 50.0], [400.0, 60.0], [9.0, 55.0]]])
    confidence = np.array([[1.0, 0.5, 0.0], [1.0, 1.0, 1.0]])
    config = crops.Config(padding=1.5)
    boxes = crops.person_boxes(config, keypoints, confidence, np.full((2, 2), 1000))
    # the missing third keypoint does not count: 200 px high, 1.5 x 200 = 300 high and 225 wide around (120, 200)
    assert boxes[0].tolist() == [7.5, 50.0, 232.5, 350.0]
    # wide: 400 px, 600 wide and 800 high around (200, 55)
    assert boxes[1].tolist() == [-100.0, -345.0, 500.0, 455.0]


def test_box_has_a_least_size_and_forgets_gross_errors():
    one = np.full((1, 2, 2), 50.0)
    size = np.array([[100, 100]])
    box = crops.person_boxes(crops.Config(), one, np.ones((1, 2)), size)[0]
    np.testing.assert_allclose(box, [50 - 12, 50 - 16, 50 + 12, 50 + 16])
    far = np.array([[[50.0, 50.0], [1e7, -1e7]]])
    box = crops.person_boxes(crops.Config(padding=1.0), far, np.ones((1, 2)), size)[0]
    # pulled in to (150, -50): 100 px wide, so 133 high around (100, 0)
    np.testing.assert_allclose(box, [50, -200 / 3, 150, 200 / 3])
    assert np.isnan(crops.person_boxes(crops.Config(), one, np.zeros((1, 2)), size)).all()


def test_affine_maps_corners_and_back():
    generator = np.random.default_rng(0)
    corner = generator.uniform(-50, 500, (6, 2))
    boxes = np.concatenate([corner, corner + generator.uniform(50, 300, (6, 2))], axis=1)
    config = crops.Config()
    corners = np.stack([boxes[:, :2], boxes[:, 2:], boxes[:, [2, 1]]], axis=1)
    np.testing.assert_allclose(
        crops.to_crop(config, boxes, corners), np.broadcast_to([[0, 0], [192, 256], [192, 0]], (6, 3, 2)), atol=1e-9
    )
    affine = crops.crop_affine(config, boxes)
    points = generator.uniform(0, 500, (6, 4, 2))
    by_hand = np.einsum("nij,nqj->nqi", affine, np.concatenate([points, np.ones((6, 4, 1))], axis=-1))
    np.testing.assert_allclose(crops.to_crop(config, boxes, points), by_hand, atol=1e-9)
    np.testing.assert_allclose(crops.from_crop(config, boxes, by_hand), points, atol=1e-9)


@pytest.mark.parametrize(
    "values", [{"height": 0}, {"width": 10_000}, {"padding": 0.5}, {"confidence": 1.0}, {"smallest_px": float("nan")}]
)
def test_settings_are_checked(values):
    with pytest.raises(ValueError, match=r"images\.crop"):
        crops.Config(**values)


def test_lens_table_agrees_with_the_camera_of_each_row():
    all_cameras = [camera for row in cameras.h36m_cameras().values() for camera in row]
    generator = np.random.default_rng(1)
    points = generator.uniform([-1.2, -1.2, 3], [1.2, 1.2, 6], (len(all_cameras), 9, 3))
    table = np.stack([camera.intrinsics for camera in all_cameras])
    screen = lenses.project(points, table)
    for row, camera in enumerate(all_cameras):
        np.testing.assert_allclose(screen[row], cameras.project(points[row], camera), atol=1e-12)
    np.testing.assert_allclose(lenses.rays_through(screen, table), points[..., :2] / points[..., 2:], atol=1e-7)
    sizes = np.array([[camera.width, camera.height] for camera in all_cameras])
    pixels = screen_to_pixels(screen, sizes)
    for row, camera in enumerate(all_cameras):
        by_hand = cameras.screen_to_pixels(screen[row], camera.width, camera.height)
        np.testing.assert_allclose(pixels[row], by_hand, atol=1e-9)
    np.testing.assert_allclose(pixels_to_screen(pixels, sizes), screen, atol=1e-12)


def test_rays_of_pixels_project_back_onto_their_pixels():
    """In every camera of Human3.6M, in crops that reach to the corners of the image."""
    config = crops.Config(height=64, width=48)
    for row in cameras.h36m_cameras().values():
        for camera in row:
            boxes = np.array([[0, 0, 600, 800], [500, 300, 1025, 1000], [400, 400, 550, 600]], dtype=np.float64)
            scene = Scene(
                poses=np.zeros((3, 17, 3)),
                intrinsics=np.repeat(camera.intrinsics[None], 3, axis=0),
                size=np.repeat([[camera.width, camera.height]], 3, axis=0),
                boxes=boxes,
                subject_keys=np.zeros(3, np.uint64),
                sequence_keys=np.zeros(3, np.uint64),
                frames=np.zeros(3, np.int64),
            )
            rays = pixel_rays(config, ray_polynomials(config, scene)).astype(np.float64)
            points = np.stack([rays[0], rays[1], np.ones_like(rays[0])], axis=-1)
            pixels = cameras.screen_to_pixels(cameras.project(points, camera), camera.width, camera.height)
            scale = 48 / (boxes[:, 2] - boxes[:, 0])
            x = (pixels[..., 0] - boxes[:, 0, None, None]) * scale[:, None, None]
            y = (pixels[..., 1] - boxes[:, 1, None, None]) * scale[:, None, None]
            assert np.abs(x - (np.arange(48) + 0.5)).max() < 0.15
            assert np.abs(y - (np.arange(64) + 0.5)[:, None]).max() < 0.15


def test_unknown_camera_is_fitted():
    generator = np.random.default_rng(2)
    poses = generator.uniform([-1, -1, 3], [1, 1, 6], (20, 17, 3))
    screen = poses[..., :2] / poses[..., 2:] * [2.2, 2.3] + [0.05, -0.1]
    np.testing.assert_allclose(
        lenses.fitted_intrinsics(poses, screen), [2.2, 2.3, 0.05, -0.1, 0, 0, 0, 0, 0], atol=1e-9
    )
    with pytest.raises(ValueError, match="in front"):
        lenses.fitted_intrinsics(-poses, screen)
