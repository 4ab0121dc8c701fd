"""Made-up files of MPI-INF-3DHP in exactly the published layouts."""

from pathlib import Path

import h5py
import numpy as np
from scipy.io import savemat

SEQUENCES = [f"S{subject} Seq{sequence}" for subject in range(1, 9) for sequence in (1, 2)]
AT_50_HZ = {"S1 Seq2", "S3 Seq1", "S3 Seq2", "S5 Seq1", "S5 Seq2"}
TESTS = [f"TS{number}" for number in range(1, 7)]
CAMERAS = ["0", "1", "2", "4", "5", "6", "7", "8"]
PLACES_OF_17_IN_28 = [7, 5, 14, 15, 16, 9, 10, 11, 23, 24, 25, 18, 19, 20, 4, 3, 6]
STANDING_CM = [
    [0, -75, 0], [0, -48, 0], [-18, -46, 0], [-22, -18, 2], [-23, 7, -4], [18, -46, 0], [22, -18, 2], [23, 7, -4],
    [-12, 0, 0], [-13, 42, 0], [-14, 84, 3], [12, 0, 0], [13, 42, 0], [14, 84, 3], [0, 0, 0], [0, -24, 2], [0, -60, -6],
]  # fmt: skip
"""A person who stands before the camera (y down, z away), in the order of the data set: head top, neck, right arm, left
arm, right leg, left leg, pelvis, spine, head. The person looks at the camera, so its right is the image's left."""
UNIVERSAL = 0.9554
CALIBRATION = """Skeletool Camera Calibration File V1.0
name          0
  sensor      10 10
  size        2048 2048
  animated    0
  intrinsic   1497.693 0 1024.704 0 0 1497.103 1051.394 0 0 0 1 0 0 0 0 1
  extrinsic   0.965 0.005 0.262 -562.8 0.004 -0.999 0.004 1398.1 0.262 -0.003 -0.965 3852.6 0 0 0 1
  radial      0
name          1
  sensor      10 10
  size        2048 2048
  animated    0
  intrinsic   1495.217 0 1030.519 0 0 1495.52 1052.626 0 0 0 1 0 0 0 0 1
  extrinsic   0.607 -0.008 0.794 -1429.8 -0.04 -0.999 0.01 738.1 0.793 -0.038 -0.607 4897.9 0 0 0 1
  radial      0
"""


def moving(name: str, camera: str, frames: int) -> np.ndarray:
    """(F, 17, 3) millimetres in the camera's frame: the person turns and walks, starting somewhere by name."""
    generator = np.random.default_rng(list(f"{name} {camera}".encode()))
    angle = generator.uniform(0, 6) + np.arange(frames) * 0.1
    cos, sin, zero, one = np.cos(angle), np.sin(angle), 0 * angle, 1 + 0 * angle
    turn = np.moveaxis(np.array([[cos, zero, sin], [zero, one, zero], [-sin, zero, cos]]), -1, 0)
    path = generator.uniform([-500, -200, 3000], [500, 200, 4500]) + np.arange(frames)[:, None] * [20, 0, 5]
    return np.einsum("fab,jb->fja", turn, np.array(STANDING_CM) * 10.0) + path[:, None]


def seen(millimetres: np.ndarray, focal: float, centre: tuple[float, float]) -> np.ndarray:
    """(F, 17, 2) pixels, no distortion."""
    return millimetres[..., :2] / millimetres[..., 2:] * focal + centre


def made_up_training(name: str, camera: str) -> tuple[np.ndarray, np.ndarray]:
    """Pixels and metric millimetres of 4 to 7 frames."""
    body = moving(name, camera, 4 + SEQUENCES.index(name) % 4)
    return seen(body, 1500, (1024, 1050)), body


def made_up_test(name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pixels, metric millimetres, valid frames of 10 or 11 frames; camera of the fact sheet."""
    body = moving(name, "", 10 + TESTS.index(name) % 2)
    if name in ("TS5", "TS6"):
        pixels = seen(body, 8.770747185 * 192, (960 - 0.104908645 * 192, 540 + 0.104899704 * 192))
    else:
        pixels = seen(body, 7.32506 * 204.8, (1024 - 0.0322884 * 204.8, 1024 + 0.0929296 * 204.8))
    return pixels, body, (np.arange(len(body)) % 3 == 1).astype(float)


def npz_content(factor: float) -> tuple[dict, dict]:
    train = {}
    for name in SEQUENCES:
        views = {}
        for camera in CAMERAS:
            pixels, body = made_up_training(name, camera)
            views[camera] = {"data_2d": pixels.astype(np.float32), "data_3d": (body * factor).astype(np.float32)}
        train[name] = [views, 50 if name in AT_50_HZ else 25]
    test = {}
    for name in TESTS:
        pixels, body, valid = made_up_test(name)
        test[name] = {"data_2d": pixels, "data_3d": body * factor, "valid": valid}
    return train, test


def write_npz(folder: Path, ending: str = "", factor: float = UNIVERSAL, train=None, test=None) -> Path:
    made = npz_content(factor)
    np.savez_compressed(folder / f"data_train_3dhp{ending}.npz", data=train or made[0])
    np.savez_compressed(folder / f"data_test_3dhp{ending}.npz", data=test or made[1])
    return folder


def write_annot(file: Path, name: str, **changes) -> None:
    """annot.mat of MATLAB 5: cells of fourteen cameras, 28 joints of which 17 are kept, the others far away."""
    cells = {key: np.empty((14, 1), dtype=object) for key in ("annot2", "annot3", "univ_annot3")}
    for camera in range(14):
        pixels, body = made_up_training(name, str(camera))
        for key, values in (("annot2", pixels), ("annot3", body), ("univ_annot3", body * UNIVERSAL)):
            wide = np.full((len(values), 28, values.shape[-1]), 1e4)
            wide[:, PLACES_OF_17_IN_28] = values
            cells[key][camera, 0] = wide.reshape(len(values), -1)
    frames = np.arange(len(cells["annot2"][0, 0]))[:, None]
    savemat(file, {"cameras": np.arange(14), "frames": frames, **cells, **changes}, do_compression=True)


def write_annot_data(file: Path, name: str, **changes) -> None:
    """annot_data.mat of MATLAB 7.3, which is HDF5."""
    pixels, body, valid = made_up_test(name)
    content = {
        "annot2": pixels[:, None],
        "annot3": body[:, None],
        "univ_annot3": body[:, None] * UNIVERSAL,
        "valid_frame": valid[:, None],
        "activity_annotation": np.arange(len(body))[:, None] % 7 + 1.0,
        **changes,
    }
    with h5py.File(file, "w", userblock_size=512) as stream:
        crop = stream.create_group("#refs#").create_dataset("b", data=np.zeros(34))
        stream.create_dataset("bb_crop", data=np.array([[crop.ref]] * len(body), dtype=h5py.ref_dtype))
        for key, value in content.items():
            if value is not None:
                stream[key] = value
    with file.open("r+b") as stream:
        stream.write(b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM")
