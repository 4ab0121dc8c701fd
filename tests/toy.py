"""A tiny made-up data set for tests: smooth random limbs, a pinhole camera, three subjects, two actions."""

from pathlib import Path

import numpy as np

from posegrid.datasets.schema import CameraSequence, Protocol
from posegrid.datasets.skeletons import H36M_17
from posegrid.datasets.store import Store
from posegrid.datasets.store_writer import write_store

PROTOCOL = Protocol(train=("A", "B"), test=("C",), held_out=("B/walk 2",))


LIFTER_RECIPE = """
[model]
name = "mixste"
width = 16
depth = 1
heads = 2
drop_path = 0.0
[data]
frames = 9
[training]
batch = 8
lr = 1e-3
"""
"""A lifter that trains in a second; the table [training] is last, so that a test adds its epochs."""


def sequence(subject: str, action: str, recording: str, frames: int, seed: int) -> CameraSequence:
    """One sequence whose 2D is the exact projection of its 3D."""
    generator = np.random.default_rng(seed)
    time = np.arange(frames)[:, None, None] / 25
    rest = np.random.default_rng(0).normal(0, 0.25, (17, 3))
    sway = 0.15 * np.sin(2 * np.pi * (time * generator.uniform(0.3, 1.0, (17, 3)) + generator.uniform(0, 1, (17, 3))))
    poses = rest + sway + [0.0, 0.0, 4.0]
    poses[:, 0] = [0.0, 0.0, 4.0]
    keypoints = 2.2 * poses[..., :2] / poses[..., 2:]
    return CameraSequence(
        subject=subject,
        action=action,
        recording=recording,
        camera="0",
        frame_rate=50.0,
        width=1000,
        height=1000,
        keypoints=keypoints.astype(np.float32),
        confidence=np.ones((frames, 17), np.float32),
        poses=poses.astype(np.float32),
    )


def sequences(frames: int = 75) -> list[CameraSequence]:
    """Eight sequences: two actions, two takes, subjects A, B (training) and C (test)."""
    wanted = [("A", "walk", "walk 1"), ("A", "sit", "sit 1"), ("A", "walk", "walk 2"), ("B", "walk", "walk 1")]
    wanted += [("B", "sit", "sit 1"), ("B", "walk", "walk 2"), ("C", "walk", "walk 1"), ("C", "sit", "sit 1")]
    return [sequence(*which, frames + 7 * index, index) for index, which in enumerate(wanted)]


def write_toy(target: Path, frames: int = 75) -> Store:
    """Write the toy store."""
    return write_store(target, sequences(frames), source="toy", source_config={}, skeleton=H36M_17, protocol=PROTOCOL)
