"""A tiny made-up store whose motion stands where Human3.6M's people stood, filmed by its cameras."""

from pathlib import Path

import numpy as np
import toy

from posegrid.datasets.cameras import Camera, h36m_cameras
from posegrid.datasets.detector import Config as Detector
from posegrid.datasets.filming import film
from posegrid.datasets.schema import CameraSequence, Recording
from posegrid.datasets.skeletons import H36M_17
from posegrid.datasets.store import Store
from posegrid.datasets.store_writer import write_store


def body(frames: int, seed: int) -> np.ndarray:
    """(F, 17, 3) world positions, metres, z up: limbs that sway about a drifting root."""
    generator = np.random.default_rng(seed)
    time = np.arange(frames)[:, None, None] / 50
    rest = np.random.default_rng(0).normal(0, 0.25, (17, 3))
    sway = 0.15 * np.sin(2 * np.pi * (time * generator.uniform(0.3, 1.0, (17, 3)) + generator.uniform(0, 1, (17, 3))))
    path = np.cumsum(generator.normal(0, 0.02, (frames, 1, 3)), axis=0) * [1, 1, 0]
    return rest + sway + path + [0.1, 0.3, 0.9]


def sequences(subject: str, name: str, cameras: list[Camera], seed: int, jitter_px: float = 40) -> list[CameraSequence]:
    """60 + seed frames as cameras see them, through a detector that errs a lot."""
    recording = Recording(subject=subject, action="walk", name=name)
    noise = Detector(jitter_px=jitter_px)
    return film(body(60 + seed, seed), cameras, recording, skeleton=H36M_17, frame_rate=50.0, noise=noise, seed=0)


def write(target: Path, content: list[CameraSequence]) -> Store:
    """A store of the toy's protocol: A and B train, B/walk 2 selects, C tests."""
    return write_store(target, content, source="x", source_config={}, skeleton=H36M_17, protocol=toy.PROTOCOL)


def write_filmed(target: Path) -> Store:
    """Four recordings with one or two cameras each, of different subjects of Human3.6M."""
    cameras = h36m_cameras()
    return write(
        target,
        sequences("A", "walk 1", cameras["S1"][:2], 0)
        + sequences("A", "walk 2", cameras["S5"][:1], 3)
        + sequences("B", "walk 2", cameras["S8"][2:], 1)
        + sequences("C", "walk 1", cameras["S9"][:1], 2),
    )
