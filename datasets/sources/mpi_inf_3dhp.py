"""MPI-INF-3DHP (Mehta et al., 2017): eight people train, seen by eight of fourteen cameras; six sequences test.

files = "npz" reads what P-STMO (Shan et al., 2022) and D3DP (Shan et al., 2023) made of the data set,
`data_train_3dhp.npz` and `data_test_3dhp.npz`, or both with `_ori` before the ending. files = "raw" reads
`S*/Seq*/annot.mat` and `TS*/annot_data.mat` of the authors, the latter also one or two folders deeper. 2D are the
annotations, as in both.

annotation says which 3D, and results of one cannot be compared with those of the other. "universal" (`univ_annot3`, the
npz files without `_ori`; P-STMO, STCFormer): bodies scaled to one height. Positions are stored as the files have them:
they need not project onto the keypoints, so their sequences carry no camera parameters and nothing can be reprojected
by mistake. "metric" (`annot3`, the files with `_ori`; D3DP): true size. Cameras are then known for the test sequences,
and for training ones where `camera.calibration` lies beside `annot.mat`.

A sequence has one action: its own name ("S1 Seq1", "TS3"), although people do several things in it. So the action-wise
mean is the mean of the six test sequences, as D3DP's instructions say, and the frame-wise one is P-STMO's. In test
sequences most frames are context that is never scored (`CameraSequence.valid`).
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from posegrid.datasets.cameras import Camera, normalise_screen
from posegrid.datasets.options import unknown
from posegrid.datasets.readers import mpi_inf_3dhp_files as files_of
from posegrid.datasets.readers.arrays import metres, refuse_other_order
from posegrid.datasets.readers.mpi_inf_3dhp_files import View
from posegrid.datasets.schema import CameraSequence, Protocol, Recording
from posegrid.datasets.skeletons import MPI_INF_3DHP_17

DESCRIPTION = "MPI-INF-3DHP (vcai.mpi-inf.mpg.de/3dhp-dataset, own licence): npz files of P-STMO or D3DP, or raw."
SKELETON = MPI_INF_3DHP_17

FRAME_RATES = {
    "S1 Seq1": 25, "S1 Seq2": 50, "S2 Seq1": 25, "S2 Seq2": 25, "S3 Seq1": 50, "S3 Seq2": 50, "S4 Seq1": 25,
    "S4 Seq2": 25, "S5 Seq1": 50, "S5 Seq2": 50, "S6 Seq1": 25, "S6 Seq2": 25, "S7 Seq1": 25, "S7 Seq2": 25,
    "S8 Seq1": 25, "S8 Seq2": 25,
}  # fmt: skip
"""Frames per second of the training sequences; raw files do not say it."""
TEST_SEQUENCES = ("TS1", "TS2", "TS3", "TS4", "TS5", "TS6")
CAMERAS = ("0", "1", "2", "4", "5", "6", "7", "8")
"""Cameras that P-STMO and its followers train on, of 0 to 13."""

_Files = dict[str, tuple[str, ...]]
"""Sequence -> its raw files."""
_TEST_CAMERA = "test"
_STUDIO_SIZE, _OUTDOOR_SIZE = (2048, 2048), (1920, 1080)
_OUTDOORS = ("TS5", "TS6")
_SENSORS_MM = {False: (7.32506, (-0.0322884, 0.0929296)), True: (8.770747185, (-0.104908645, 0.104899704))}
"""Focal length and offset of the principal point in millimetres, by whether the camera stood outdoors."""
_SENSOR_WIDTH_MM = 10.0
_NPZ = {"universal": "", "metric": "_ori"}
_WHERE = (
    "Get the data set at vcai.mpi-inf.mpg.de/3dhp-dataset; how the npz files are made, or where they are, say the "
    "repositories of P-STMO (universal) and D3DP (metric)."
)


@dataclass(frozen=True, kw_only=True)
class Config:
    """Which files, which 3D, which cameras, and whether a subject is held out of training."""

    files: str = "npz"
    """ "npz": the files of P-STMO or D3DP. "raw": those of the data set's authors."""
    annotation: str = "universal"
    """ "universal": bodies scaled to one height. "metric": true size."""
    cameras: tuple[str, ...] = CAMERAS
    """Training cameras."""
    test_frame_rate: float = 25.0
    """Frames per second of the test sequences. No file says it; it matters for windows of another frame rate only."""
    hold_out: bool = True
    """Keep S8 for selection. False trains on all eight, as the papers do, which then select on the test sequences."""

    def __post_init__(self) -> None:
        where = "options of data source mpi_inf_3dhp"
        for key, known in (("files", ["npz", "raw"]), ("annotation", list(_NPZ))):
            if getattr(self, key) not in known:
                raise unknown(key, getattr(self, key), f"{where}, key {key}", known)
        known = [str(number) for number in range(14)]
        for camera in self.cameras:
            if camera not in known:
                raise unknown("camera", camera, f"{where}, key cameras", known)
        if not self.cameras or len(set(self.cameras)) != len(self.cameras):
            raise ValueError(f"cameras = {self.cameras} in the {where}: give at least one, each once.")
        if not 0 < self.test_frame_rate < float("inf"):
            raise ValueError(f"test_frame_rate = {self.test_frame_rate} in the {where} must be positive. Correct it.")


PROTOCOL = Protocol(
    train=tuple(f"S{number}" for number in range(1, 9)),
    test=TEST_SEQUENCES,
    keypoints="annotated",
    note=(
        "The usual split; an action is a sequence. Held out for selection is subject S8; recipes that select on the "
        "test sequences, as publications do, train on it too. Universal and metric annotations are not comparable."
    ),
)
"""Subjects; `protocol` adds the held-out one. Each test sequence is a subject of its own name."""


def protocol(config: Config, recordings: list[Recording]) -> Protocol:
    """`PROTOCOL`, with S8 held out unless the option says no."""
    held_out = ("S8",) if config.hold_out else ()
    return Protocol(
        train=PROTOCOL.train, test=PROTOCOL.test, held_out=held_out, keypoints=PROTOCOL.keypoints, note=PROTOCOL.note
    )


def list_recordings(config: Config, raw: Path | None) -> list[Recording]:
    """Sixteen training sequences, then six test sequences. Raises ValueError if one is missing."""
    training, test = _npz_files(config, raw) if config.files == "npz" else _raw_files(raw)
    recordings = []
    for name in FRAME_RATES:
        subject, sequence = name.split(" ")
        recordings.append(Recording(subject=subject, action=name, name=sequence, files=training[name]))
    return recordings + [Recording(subject=name, action=name, name=name, files=test[name]) for name in TEST_SEQUENCES]


def read_recording(config: Config, recording: Recording) -> list[CameraSequence]:
    """One sequence in the chosen cameras, or a test sequence in its own.

    Raises ValueError for damaged files, other layouts, units or orders of joints than documented, or NaN.
    """
    file = Path(recording.files[0])
    if recording.subject in TEST_SEQUENCES:
        views = [
            files_of.npz_test(file, recording.name, _TEST_CAMERA)
            if config.files == "npz"
            else files_of.raw_test(file, _TEST_CAMERA, config.annotation)
        ]
        size = _OUTDOOR_SIZE if recording.name in _OUTDOORS else _STUDIO_SIZE
        known = {_TEST_CAMERA: _test_camera(recording.name)}
        return [_sequence(config, recording, view, config.test_frame_rate, size, known) for view in views]
    rate = float(FRAME_RATES[recording.action])
    if config.files == "npz":
        views, stated = files_of.npz_training(file, recording.action, config.cameras)
        if stated != rate:
            raise ValueError(
                f"{file}: {recording.action} has {stated:g} frames per second, but was filmed with {rate:g}. Its "
                "sequences are mixed up, or it was resampled: use the file as it was published."
            )
    else:
        views = files_of.raw_training(file, config.cameras, config.annotation)
    known = {}
    if config.annotation == "metric" and len(recording.files) > 1:
        known = files_of.read_calibration(Path(recording.files[1]))
    return [_sequence(config, recording, view, rate, _STUDIO_SIZE, known) for view in views]


def _sequence(
    config: Config,
    recording: Recording,
    view: View,
    rate: float,
    size: tuple[int, int],
    known: dict[str, Camera],
) -> CameraSequence:
    file, where = recording.files[0], f"{recording.action}, camera {view.camera}"
    counts = slice(None) if view.valid is None else view.valid
    refuse_other_order(file, where, metres(file, where, view.millimetres[counts], SKELETON), SKELETON)
    width, height = size
    middle = float(np.median(view.pixels[counts]))
    if not 0.02 * width < middle < width:
        raise ValueError(
            f"{file}: the median coordinate of the keypoints of {where} is {middle:.4g}, which is not in pixels of an "
            f"image of {width} x {height}. Use the file as it was published: keypoints must not be normalised."
        )
    camera = known.get(view.camera) if config.annotation == "metric" else None
    keypoints = normalise_screen(view.pixels, width, height).astype(np.float32)
    return CameraSequence(
        subject=recording.subject,
        action=recording.action,
        recording=recording.name,
        camera=view.camera,
        frame_rate=rate,
        width=width,
        height=height,
        keypoints=keypoints,
        confidence=np.ones(keypoints.shape[:2], dtype=np.float32),
        poses=(view.millimetres.astype(np.float64) / 1000).astype(np.float32),
        valid=view.valid,
        camera_parameters=camera.to_plain() if camera else {},
    )


def _test_camera(name: str) -> Camera:
    """The camera of a test sequence, from its focal length in millimetres and the size of its sensor; no distortion."""
    outdoors = name in _OUTDOORS
    focal, offset = _SENSORS_MM[outdoors]
    width, height = _OUTDOOR_SIZE if outdoors else _STUDIO_SIZE
    px_per_mm = width / _SENSOR_WIDTH_MM
    return Camera(
        id=_TEST_CAMERA,
        width=width,
        height=height,
        focal_px=(focal * px_per_mm, focal * px_per_mm),
        centre_px=(width / 2 + offset[0] * px_per_mm, height / 2 + offset[1] * px_per_mm),
    )


def _npz_files(config: Config, raw: Path | None) -> tuple[_Files, _Files]:
    """Training and test sequence -> its file."""
    found: list[_Files] = []
    for part, names in (("train", tuple(FRAME_RATES)), ("test", TEST_SEQUENCES)):
        name = f"data_{part}_3dhp{_NPZ[config.annotation]}.npz"
        file = raw / name if raw else None
        if file is None or not file.is_file():
            other = next(kind for kind in _NPZ if kind != config.annotation)
            there = raw is not None and (raw / f"data_{part}_3dhp{_NPZ[other]}.npz").is_file()
            hint = (
                f" The file with the {other} annotation is there: choose it with annotation={other}." if there else ""
            )
            raise ValueError(
                f"data source mpi_inf_3dhp: {name} ({config.annotation} annotation) is missing in the raw folder {raw}."
                f"{hint} {_WHERE}"
            )
        missing = [sequence for sequence in names if sequence not in files_of.npz_sequences(file.resolve())]
        if missing:
            raise ValueError(f"{file} lacks the sequences {', '.join(missing)}; expected {', '.join(names)}. {_WHERE}")
        found.append({sequence: (str(file.resolve()),) for sequence in names})
    return found[0], found[1]


def _raw_files(raw: Path | None) -> tuple[_Files, _Files]:
    """Training sequence -> annotation, and calibration where there is one; test sequence -> annotation."""
    training: _Files = {}
    test: _Files = {}
    for name in FRAME_RATES:
        subject, sequence = name.split(" ")
        folder = raw / subject / sequence if raw else Path()
        if raw is None or not (folder / "annot.mat").is_file():
            raise ValueError(
                f"data source mpi_inf_3dhp: {subject}/{sequence}/annot.mat is missing in the raw folder {raw}. {_WHERE}"
            )
        files = [folder / "annot.mat", folder / "camera.calibration"]
        training[name] = tuple(str(file.resolve()) for file in files if file.is_file())
    assert raw is not None
    for name in TEST_SEQUENCES:
        found = [file for above in ("", "*/", "*/*/") for file in sorted(raw.glob(f"{above}{name}/annot_data.mat"))]
        if len(found) != 1:
            raise ValueError(
                f"data source mpi_inf_3dhp: {name}/annot_data.mat is {len(found)} times in the raw folder {raw} and up "
                f"to two folders deeper; expected one. {_WHERE}"
            )
        test[name] = (str(found[0].resolve()),)
    return training, test
