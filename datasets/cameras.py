"""Pinhole cameras with lens distortion: world to camera, camera to screen, screen to pixels.

Points are arrays (..., 3) in metres, NumPy float64 inside. World axes: z up. Camera axes: x right, y down, z forward.
Screen coordinates map the width to [-1, 1] and keep the aspect ratio: x' = 2x/w - 1, y' = 2y/w - h/w (x, y pixels).
Quaternions are (w, x, y, z).
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

H36M_CAMERA_IDS = ("54138969", "55011271", "58860488", "60457274")
"""Order of the cameras in every Human3.6M file that lists them per recording."""

_CALIBRATION = Path(__file__).parent / "h36m_cameras.json"


@dataclass(frozen=True, kw_only=True)
class Camera:
    """One calibrated camera; plain numbers only, so that it can be hashed, pickled and written as JSON."""

    id: str
    width: int
    """Image width in pixels."""
    height: int
    """Image height in pixels."""
    focal_px: tuple[float, float]
    """Focal length along x and y, pixels."""
    centre_px: tuple[float, float]
    """Principal point, pixels."""
    radial: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Factors of r^2, r^4, r^6."""
    tangential: tuple[float, float] = (0.0, 0.0)
    """The first goes with x, the second with y: not OpenCV's order, nor its formula."""
    orientation: tuple[float, float, float, float] = (1.0, 0.0, 0.0, 0.0)
    """Unit quaternion (w, x, y, z), camera to world."""
    translation: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Centre of the camera in world coordinates, metres."""

    def __post_init__(self) -> None:
        sizes = {"focal_px": 2, "centre_px": 2, "radial": 3, "tangential": 2, "orientation": 4, "translation": 3}
        for name, size in sizes.items():
            value = tuple(float(number) for number in getattr(self, name))
            if len(value) != size or not np.isfinite(value).all():
                raise ValueError(f"camera {self.id}: {name} = {value}, expected {size} finite numbers. Correct it.")
            object.__setattr__(self, name, value)
        if self.width <= 0 or self.height <= 0:
            raise ValueError(f"camera {self.id}: image of {self.width} x {self.height} px; give positive sizes.")
        norm = float(np.linalg.norm(self.orientation))
        if abs(norm - 1) > 1e-5:
            raise ValueError(
                f"camera {self.id}: orientation {self.orientation} has norm {norm:.6f}, expected a unit quaternion "
                "(w, x, y, z), camera to world. Divide it by its norm."
            )

    @property
    def intrinsics(self) -> np.ndarray:
        """(9,) float64 in screen units: fx, fy, cx, cy, k1, k2, k3, p1, p2; both focal lengths are divided by width."""
        focal = np.asarray(self.focal_px) * 2 / self.width
        centre = normalise_screen(np.asarray(self.centre_px), self.width, self.height)
        return np.concatenate([focal, centre, self.radial, self.tangential])

    def to_plain(self) -> dict[str, Any]:
        """Numbers, text and lists only: what the store writes as JSON."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> "Camera":
        """The camera `to_plain` wrote. Raises ValueError if keys are missing or unknown."""
        known = {field.name for field in fields(cls)}
        if set(plain) != known:
            raise ValueError(
                f"camera parameters have the keys {sorted(plain)}, expected {sorted(known)}. "
                "The data source of this store gives no camera: choose another one, or leave out what needs a camera."
            )
        values: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in plain.items()
        }
        return cls(**values)


def quaternion_rotate(quaternion: np.ndarray, vector: np.ndarray) -> np.ndarray:
    """Rotate vectors (..., 3) by unit quaternions (..., 4); shapes broadcast."""
    quaternion, vector = np.asarray(quaternion, dtype=np.float64), np.asarray(vector, dtype=np.float64)
    scalar, axis = quaternion[..., :1], quaternion[..., 1:]
    across = np.cross(axis, vector)
    return vector + 2 * (scalar * across + np.cross(axis, across))


def quaternion_inverse(quaternion: np.ndarray) -> np.ndarray:
    """Inverse of unit quaternions (..., 4): the conjugate."""
    return np.asarray(quaternion, dtype=np.float64) * np.array([1.0, -1.0, -1.0, -1.0])


def world_to_camera(points: np.ndarray, camera: Camera) -> np.ndarray:
    """World points (..., 3) in the camera's frame, float64."""
    away = np.asarray(points, dtype=np.float64) - np.asarray(camera.translation)
    return quaternion_rotate(quaternion_inverse(np.asarray(camera.orientation)), away)


def camera_to_world(points: np.ndarray, camera: Camera) -> np.ndarray:
    """Camera points (..., 3) in the world frame, float64; the inverse of `world_to_camera`."""
    return quaternion_rotate(np.asarray(camera.orientation), points) + np.asarray(camera.translation)


def project(points: np.ndarray, camera: Camera) -> np.ndarray:
    """Camera points (..., 3) to screen coordinates (..., 2), with distortion.

    X/Z and Y/Z are clipped to [-1, 1] first, as the reference code of Human3.6M lifting does: the polynomial of the
    lens means nothing outside the field of view. The model is the one of Human3.6M's calibration, not OpenCV's.
    """
    ray = _rays(points)
    squared = np.sum(ray**2, axis=-1, keepdims=True)
    k1, k2, k3 = camera.radial
    tangential = np.asarray(camera.tangential)
    radial = 1 + squared * (k1 + squared * (k2 + squared * k3))
    along = np.sum(tangential * ray, axis=-1, keepdims=True)
    return _on_screen(ray * (radial + along) + tangential * squared, camera)


def project_linear(points: np.ndarray, camera: Camera) -> np.ndarray:
    """Camera points (..., 3) to screen coordinates (..., 2), without distortion; clipped like `project`."""
    return _on_screen(_rays(points), camera)


def unproject(screen: np.ndarray, camera: Camera, rounds: int = 10) -> np.ndarray:
    """Screen coordinates (..., 2) to rays (..., 2), X/Z and Y/Z: the inverse of `project` inside the field of view.

    The polynomial of the lens has no inverse in closed form: each round moves the ray by what its projection is off,
    which for lenses such as Human3.6M's leaves errors below 1e-9 at any place of the image.
    """
    screen = np.asarray(screen, dtype=np.float64)
    focal, centre = camera.intrinsics[:2], camera.intrinsics[2:4]
    ray = (screen - centre) / focal
    ones = np.ones((*screen.shape[:-1], 1))
    for _ in range(rounds):
        ray = ray - (project(np.concatenate([ray, ones], axis=-1), camera) - screen) / focal
    return ray


def normalise_screen(pixels: np.ndarray, width: int, height: int) -> np.ndarray:
    """Pixels (..., 2) to screen coordinates: the width becomes [-1, 1], the aspect ratio is kept."""
    return np.asarray(pixels, dtype=np.float64) * 2 / width - np.array([1.0, height / width])


def screen_to_pixels(screen: np.ndarray, width: int, height: int) -> np.ndarray:
    """Screen coordinates (..., 2) to pixels; the inverse of `normalise_screen`."""
    return (np.asarray(screen, dtype=np.float64) + np.array([1.0, height / width])) * width / 2


def inside_image(screen: np.ndarray, width: int, height: int) -> np.ndarray:
    """(...) bool: which screen points (..., 2) lie in the image."""
    return np.all(np.abs(screen) <= np.array([1.0, height / width]), axis=-1)


@cache
def h36m_cameras() -> dict[str, list[Camera]]:
    """Human3.6M's calibration: subject -> its four cameras in the order of `H36M_CAMERA_IDS`."""
    subjects = json.loads(_CALIBRATION.read_text(encoding="utf-8"))["subjects"]
    return {subject: [_from_table(row) for row in rows] for subject, rows in subjects.items()}


def meeting_point(cameras: Sequence[Camera]) -> np.ndarray:
    """(3,) world point nearest to the optical axes of all cameras: the middle of what they see together.

    Around it a cylinder of 1.5 m radius and 1.9 m height lies inside all images of each subject of Human3.6M.
    """
    axes = quaternion_rotate(np.array([camera.orientation for camera in cameras]), np.array([0.0, 0.0, 1.0]))
    across = np.eye(3) - axes[:, :, None] * axes[:, None, :]
    centres = np.array([camera.translation for camera in cameras])
    return np.linalg.solve(across.sum(axis=0), np.einsum("cij,cj->i", across, centres))


def _from_table(row: dict[str, Any]) -> Camera:
    values: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in row.items()}
    translation = tuple(millimetres / 1000 for millimetres in values.pop("translation_mm"))
    return Camera(**values, translation=translation)


def _rays(points: np.ndarray) -> np.ndarray:
    points = np.asarray(points, dtype=np.float64)
    return np.clip(points[..., :2] / points[..., 2:], -1, 1)


def _on_screen(ray: np.ndarray, camera: Camera) -> np.ndarray:
    intrinsics = camera.intrinsics
    return ray * intrinsics[:2] + intrinsics[2:4]
