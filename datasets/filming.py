"""A moving body in the world -> what each camera sees of it. Used by sources that have motion but no footage."""

from collections.abc import Sequence

import numpy as np

from posegrid.datasets import detector
from posegrid.datasets.cameras import Camera, project, world_to_camera
from posegrid.datasets.schema import CameraSequence, Recording
from posegrid.datasets.skeletons import Skeleton


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
