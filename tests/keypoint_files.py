"""Made-up keypoints, and what reads and checks the files that tools write of them."""

import json

import numpy as np

from posegrid.datasets.prepare import source_module

WIDTH, HEIGHT = 640, 480
SIZE = {"width": WIDTH, "height": HEIGHT, "frame_rate": 25.0}
COCO_NAMES = (
    "nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder", "left_elbow",
    "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle",
    "right_ankle",
)  # fmt: skip
HALPE_NAMES = (
    *COCO_NAMES, "head", "neck", "hip", "left_big_toe", "right_big_toe", "left_small_toe", "right_small_toe",
    "left_heel", "right_heel",
)  # fmt: skip
H36M_NAMES = (
    "root", "right_hip", "right_knee", "right_foot", "left_hip", "left_knee", "left_foot", "spine", "thorax",
    "neck_base", "head", "left_shoulder", "left_elbow", "left_wrist", "right_shoulder", "right_elbow", "right_wrist",
)  # fmt: skip


def made_up(joints, frames=6, seed=0):
    """Pixels (F, J, 2) and scores (F, J), rounded as files round them."""
    generator = np.random.default_rng(seed)
    start = generator.uniform([200, 100], [440, 380], (joints, 2))
    points = start + generator.normal(size=(frames, joints, 2)).cumsum(axis=0) * 3
    return points.round(3), generator.uniform(0.3, 1, (frames, joints)).round(3)


def triplets(points, scores):
    return [float(value) for row in zip(points[:, 0], points[:, 1], scores, strict=True) for value in row]


def on_screen(points, width=WIDTH, height=HEIGHT):
    return np.stack([points[..., 0] * 2 / width - 1, (points[..., 1] * 2 - height) / width], axis=-1)


def write(file, content):
    file.write_text(json.dumps(content))
    return file


def read(raw, **options):
    """All sequences by name, read as the source reads them."""
    source = source_module("keypoints")
    config = source.Config(**(SIZE | options))
    recordings = source.list_recordings(config, raw)
    assert {recording.action for recording in recordings} == {"own"}
    read_each = [source.read_recording(config, recording) for recording in recordings]
    return {sequence.name: sequence for sequences in read_each for sequence in sequences}


def check(sequence, points, scores, **size):
    np.testing.assert_allclose(sequence.keypoints, on_screen(points, **size), atol=1e-6)
    np.testing.assert_allclose(sequence.confidence, scores, atol=1e-6)
    assert sequence.poses is None


def coco_results(points, scores, first=0, **more):
    return [
        {"image_id": first + number, "category_id": 1, "keypoints": triplets(*frame), "score": 0.9} | more
        for number, frame in enumerate(zip(points, scores, strict=True))
    ]


def custom_npz(file, positions, layout="coco", sizes=None):
    symmetry = [[1, 3, 5, 7, 9, 11, 13, 15], [2, 4, 6, 8, 10, 12, 14, 16]]
    metadata = {"layout_name": layout, "num_joints": 17, "keypoints_symmetry": symmetry}
    if sizes is not None:
        metadata["video_metadata"] = sizes
    np.savez_compressed(file, positions_2d=positions, metadata=metadata)
    return file
