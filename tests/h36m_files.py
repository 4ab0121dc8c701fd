"""Made-up Human3.6M archives of exactly the published layout."""

from pathlib import Path

import numpy as np

from posegrid.datasets import cameras
from posegrid.datasets.skeletons import H36M_32_TO_17

SUBJECTS = ("S1", "S5", "S6", "S7", "S8", "S9", "S11")
ACTIONS = (
    "Directions", "Discussion", "Eating", "Greeting", "Phoning", "Photo", "Posing", "Purchases", "Sitting",
    "SittingDown", "Smoking", "Waiting", "WalkDog", "WalkTogether", "Walking",
)  # fmt: skip
CPN, GT, POSES = "data_2d_h36m_cpn_ft_h36m_dbb.npz", "data_2d_h36m_gt.npz", "data_3d_h36m.npz"
SYMMETRY = [[4, 5, 6, 11, 12, 13], [1, 2, 3, 14, 15, 16]]


def made_up(extra_frames: int = 3) -> tuple[dict, dict, dict]:
    """Poses, detections and projections of 30 takes per subject, a few frames each."""
    generator = np.random.default_rng(7)
    poses, cpn, gt = {}, {"S2": {}}, {}
    for subject in SUBJECTS:
        poses[subject], cpn[subject], gt[subject] = {}, {}, {}
        for number, action in enumerate(ACTIONS):
            for name in (action, f"{action} {1 + number % 3}"):
                frames = int(generator.integers(3, 7))
                world = generator.uniform([-0.5, -0.5, 0], [0.5, 0.5, 1.8], (frames, 32, 3)).astype(np.float32)
                poses[subject][name] = world
                gt[subject][name] = [
                    cameras.screen_to_pixels(
                        cameras.project(cameras.world_to_camera(world[:, H36M_32_TO_17], camera), camera),
                        camera.width,
                        camera.height,
                    ).astype(np.float32)
                    for camera in cameras.h36m_cameras()[subject]
                ]
                cpn[subject][name] = [
                    generator.uniform(200, 800, (frames + extra_frames, 17, 2)).astype(np.float32) for _ in range(4)
                ]
    return poses, cpn, gt


POSE_DATA, CPN_DATA, GT_DATA = made_up()


def write(folder: Path, poses=POSE_DATA, cpn=CPN_DATA, gt=GT_DATA, symmetry=SYMMETRY, save=np.savez) -> Path:
    save(folder / POSES, positions_3d=poses)
    metadata = {"num_joints": 17, "keypoints_symmetry": symmetry}
    save(folder / GT, positions_2d=gt, metadata=metadata)
    save(folder / CPN, positions_2d=cpn, metadata={"layout_name": "h36m", **metadata})
    return folder
