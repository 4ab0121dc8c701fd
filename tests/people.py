"""People who turn in front of the cameras of Human3.6M: sequences and stores that pass every check."""

from dataclasses import replace

import numpy as np

from posegrid.datasets.cameras import h36m_cameras
from posegrid.datasets.schema import CameraSequence, Protocol
from posegrid.datasets.skeletons import H36M_17
from posegrid.datasets.store import Store
from posegrid.datasets.store_writer import write_store

PROTOCOL = Protocol(train=("A", "B"), test=("C",), held_out=("B/turn 2",), keypoints="detector")
J = {name: index for index, name in enumerate(H36M_17.joints)}

# a standing person in metres, camera axes (x right, y down), in the order of H36M_17
PERSON = np.array([
    [0, 0, 0], [-0.13, 0, 0], [-0.13, 0.45, 0], [-0.13, 0.9, 0], [0.13, 0, 0], [0.13, 0.45, 0], [0.13, 0.9, 0],
    [0, -0.23, 0], [0, -0.48, 0], [0, -0.6, 0.05], [0, -0.71, 0],
    [0.15, -0.46, 0], [0.15, -0.18, 0], [0.15, 0.07, 0], [-0.15, -0.46, 0], [-0.15, -0.18, 0], [-0.15, 0.07, 0],
])  # fmt: skip


def person(subject: str, recording: str, frames: int, seed: int, spread_px: float = 3.0) -> CameraSequence:
    """Somebody who turns on the spot and drifts, detected with noise of `spread_px` on each axis."""
    camera = replace(h36m_cameras()["S1"][0], radial=(0.0, 0.0, 0.0), tangential=(0.0, 0.0))
    generator = np.random.default_rng(seed)
    angle = np.linspace(0, 1 + seed, frames)
    c, s, zero, one = np.cos(angle), np.sin(angle), np.zeros(frames), np.ones(frames)
    turn = np.stack([c, zero, s, zero, one, zero, -s, zero, c], axis=-1).reshape(-1, 3, 3)
    poses = np.einsum("jc,fcd->fjd", PERSON, turn) + np.array([0, 0, 4 + 0.1 * seed])
    poses[..., 0] += np.linspace(0, 0.3, frames)[:, None]
    # the pinhole formula, written out: this is the expectation, not `project`
    pixels = poses[..., :2] / poses[..., 2:] * camera.focal_px + camera.centre_px
    pixels = pixels + generator.normal(0, spread_px, pixels.shape)
    keypoints = pixels * 2 / camera.width - [1.0, camera.height / camera.width]
    return CameraSequence(
        subject=subject,
        action="turn",
        recording=recording,
        camera=camera.id,
        frame_rate=50.0,
        width=camera.width,
        height=camera.height,
        keypoints=keypoints.astype(np.float32),
        confidence=np.full((frames, 17), 0.9, np.float32),
        poses=poses.astype(np.float32),
        camera_parameters=camera.to_plain(),
    )


def people(spread_px: float = 3.0) -> list[CameraSequence]:
    wanted = [("A", "turn 1"), ("A", "turn 2"), ("B", "turn 1"), ("B", "turn 2"), ("C", "turn 1")]
    return [person(*which, 120 + 10 * index, index, spread_px) for index, which in enumerate(wanted)]


def stored(folder, sequences: list[CameraSequence], protocol: Protocol = PROTOCOL, source: str = "people") -> Store:
    return write_store(
        folder / "store", sequences, source=source, source_config={}, skeleton=H36M_17, protocol=protocol
    )
