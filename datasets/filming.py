"""A moving body in the world -> what each camera sees of it. Used by sources that have motion but no footage."""

from collections.abc import Sequence

import numpy as np

from posegrid.datasets import detector
from posegrid.datasets.cameras import Camera, inside_image, meeting_point, project, world_to_camera
from posegrid.datasets.schema import CameraSequence, Recording
from posegrid.datasets.skeletons import Skeleton

_WANTED_INSIDE = 0.997
"""Share of keypoints that should lie inside the images."""
_ANGLES, _SCALES = 24, np.arange(1.0, 0.19, -0.05)


def place(world: np.ndarray, cameras: Sequence[Camera], root: int, generator: np.random.Generator) -> np.ndarray:
    """Put a motion (F, J, 3), metres, z up, where the cameras see it; heights stay.

    The middle of the root's path comes to lie where the cameras look. The motion is turned about the vertical by one of
    24 angles, drawn among those at which 99.7 % of all keypoints lie inside the images. If there is none, the root
    travels less far: horizontal distances from the middle shrink in steps of 5 % until there is one (limbs keep their
    size, so feet then slide a little).
    """
    path = world[:, root, :2]
    middle = (path.min(axis=0) + path.max(axis=0)) / 2
    target = meeting_point(cameras)[:2]
    angles = np.arange(_ANGLES) * 2 * np.pi / _ANGLES
    thin = slice(None, None, max(1, len(world) // 200))
    for scale in _SCALES:
        nearer = world.copy()
        nearer[..., :2] += (scale - 1) * (path - middle)[:, None] - middle
        inside = np.array([_share_inside(_turned(nearer[thin], angle, target), cameras) for angle in angles])
        good = np.flatnonzero(inside >= _WANTED_INSIDE)
        if len(good):
            return _turned(nearer, angles[generator.choice(good)], target)
    return _turned(nearer, angles[inside.argmax()], target)


def _turned(world: np.ndarray, angle: float, target: np.ndarray) -> np.ndarray:
    turned = world.copy()
    c, s = np.cos(angle), np.sin(angle)
    turned[..., :2] = world[..., :2] @ np.array([[c, s], [-s, c]]) + target
    return turned


def _share_inside(world: np.ndarray, cameras: Sequence[Camera]) -> float:
    seen = [inside_image(project(world_to_camera(world, view), view), view.width, view.height) for view in cameras]
    return float(np.mean(seen))


def film(
    world: np.ndarray,
    cameras: Sequence[Camera],
    recording: Recording,
    *,
    skeleton: Skeleton,
    frame_rate: float,
    noise: detector.Config,
    seed: int,
) -> list[CameraSequence]:
    """One sequence per camera from world positions (F, J, 3) in metres, z up.

    2D is the projection with lens distortion plus the detector model; its random numbers depend on `seed` and the
    sequence's name alone.
    """
    sequences = []
    for camera in cameras:
        poses = world_to_camera(world, camera)
        keypoints, confidence = detector.detect(
            noise,
            detector.noise_generator(seed, f"{recording.subject}/{recording.name}/{camera.id}"),
            project(poses, camera),
            skeleton=skeleton,
            width=camera.width,
            height=camera.height,
            frame_rate=frame_rate,
        )
        sequences.append(
            CameraSequence(
                subject=recording.subject,
                action=recording.action,
                recording=recording.name,
                camera=camera.id,
                frame_rate=frame_rate,
                width=camera.width,
                height=camera.height,
                keypoints=keypoints,
                confidence=confidence,
                poses=poses.astype(np.float32),
                camera_parameters=camera.to_plain(),
            )
        )
    return sequences
