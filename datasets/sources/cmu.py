"""Real motion capture: the CMU Graphics Lab Motion Capture Database, filmed by simulated cameras.

Recordings in Acclaim format (one ASF file per subject, one AMC file per take) and BVH files of the cgspeed conversion
are both read; `posegrid.datasets.readers.cmu_bodies` says how their skeletons become the 17 joints of Human3.6M.
What then happens: the T-pose at the beginning of BVH files is dropped; positions are interpolated linearly in time to
50 Hz, turned to z up, and raised so that the lower ankle stands 8 cm above the floor in the fifth percentile of frames;
`filming.place` puts them where the four cameras of a Human3.6M subject see them; 2D is the projection with the stated
detector model. A few takes of the conversion jump for single frames (60_03, 60_04, 60_06); they are left as they are.

There are neither cameras nor detections in the database: results on this data are comparable with one another only.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from posegrid.datasets.cameras import Camera, h36m_cameras
from posegrid.datasets.detector import Config as DetectorConfig
from posegrid.datasets.detector import noise_generator
from posegrid.datasets.filming import film, place
from posegrid.datasets.readers.acclaim import read_amc, read_asf
from posegrid.datasets.readers.bvh import read_bvh
from posegrid.datasets.readers.cmu_bodies import ACCLAIM_POINTS, BVH_POINTS, h36m_points, lengths_of, with_lengths
from posegrid.datasets.resample import resample
from posegrid.datasets.schema import CameraSequence, Protocol, Recording
from posegrid.datasets.skeletons import H36M_17

DESCRIPTION = "Real motion capture (CMU, mocap.cs.cmu.edu: ASF/AMC or cgspeed BVH) seen by the Human3.6M cameras."
SKELETON = H36M_17

_WHERE = (
    "Download .asf and .amc files from mocap.cs.cmu.edu, or the BVH conversion of cgspeed.com, and pass their folder."
)
_TRAIN_CAMERAS = {"01": "S1", "60": "S5", "61": "S6", "135": "S7"}
"""Training subject -> subject of Human3.6M whose cameras film it; others by their number, see `_cameras_of`."""
_ALL_TRAIN_CAMERAS, _TEST_CAMERAS = ("S1", "S5", "S6", "S7", "S8"), ("S9", "S11")
_ANKLE_HEIGHT = 0.08
_BVH_METRES = 0.01
_BVH_LEAD = 10
"""Frames dropped at the beginning of BVH files: a T-pose, and those into which the conversion smeared it."""

_ACTIONS = {
    "01": "playground", "02_01": "walk", "02_02": "walk", "02_03": "run", "02_04": "jump", "02_05": "punch",
    "02_06": "bend", "02_07": "swordplay", "02_08": "swordplay", "02_09": "swordplay", "02_10": "wash",
    "60": "salsa", "61": "salsa", "135": "martial arts",
}  # fmt: skip
"""Subject or take -> action, after the descriptions of the database; "motion" for all others."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """Split, frame rates and detector noise."""

    test_subjects: tuple[str, ...] = ("02",)
    """CMU subjects that test; all others found in the folder train."""
    held_out: tuple[str, ...] = ("60/60_03", "61/61_03", "135/135_07")
    """Recordings of training subjects kept for selection. 60_03 and 61_03 are one dance seen from its two bodies."""
    excluded: tuple[str, ...] = ()
    """Recordings that are left out, such as damaged files."""
    amc_frame_rate: float = 120.0
    """Frames per second of AMC files, which do not say it themselves."""
    frame_rate: float = 50.0
    """Frames per second of the prepared sequences, as Human3.6M has them."""
    seed: int = 0
    """Seed of placement and detector noise."""
    detector: DetectorConfig = field(default_factory=DetectorConfig)
    """How the simulated keypoint detector errs."""

    def __post_init__(self) -> None:
        if not self.test_subjects:
            raise ValueError(
                "test_subjects is empty in the options of data source cmu: expected at least one. Name a subject."
            )
        for name in ("amc_frame_rate", "frame_rate"):
            if not 1 <= getattr(self, name) <= 1000:
                raise ValueError(
                    f"{name} = {getattr(self, name)} in the options of data source cmu: expected 1 to 1000 Hz. "
                    "Correct it."
                )


PROTOCOL = Protocol(
    train=("01", "60", "61", "135"),
    test=("02",),
    held_out=("60/60_03", "61/61_03", "135/135_07"),
    note=(
        "Simulated cameras and detections: not comparable with Human3.6M. Subjects 60 and 61 danced together, so takes "
        "of the same number are one dance seen from its two bodies; they stay on one side of the split."
    ),
)
"""Protocol of the default settings on the files it was made for."""


def list_recordings(config: Config, raw: Path | None) -> list[Recording]:
    """All takes below `raw`, sorted by subject and take. The subject is what stands before "_" in the file name, or
    else the name of the folder.

    Raises ValueError if there are none, if an ASF file is missing, a take is there twice, or a test subject absent.
    """
    if raw is None or not raw.is_dir():
        raise ValueError(f"data source cmu: raw folder {raw} does not exist, it reads motion files. {_WHERE}")
    recordings: dict[tuple[str, str], Recording] = {}
    for file in sorted(raw.rglob("*")):
        if file.suffix.lower() not in (".amc", ".bvh"):
            continue
        subject = file.stem.split("_")[0] if "_" in file.stem else file.parent.name
        files = (file,) if file.suffix.lower() == ".bvh" else (_skeleton_of(file, subject), file)
        if (subject, file.stem) in recordings:
            raise ValueError(
                f"data source cmu: recording {file.stem} is there twice, as {file} and as "
                f"{recordings[subject, file.stem].files[-1]}; each take may occur once. Remove one of the files."
            )
        recordings[subject, file.stem] = Recording(
            subject=subject,
            action=_ACTIONS.get(file.stem, _ACTIONS.get(subject, "motion")),
            name=file.stem,
            files=tuple(str(path.resolve()) for path in files),
        )
    if not recordings:
        raise ValueError(f"data source cmu: no .amc or .bvh files below {raw}. {_WHERE}")
    subjects = {subject for subject, _ in recordings}
    absent = sorted(set(config.test_subjects) - subjects)
    if absent:
        raise ValueError(
            f"data source cmu: no recordings of the test subjects {', '.join(absent)} below {raw} (found: "
            f"{', '.join(sorted(subjects, key=_order))}). Set the option test_subjects to others, or: {_WHERE}"
        )
    return [recordings[key] for key in sorted(recordings, key=lambda key: (_order(key[0]), _order(key[1])))]


def protocol(config: Config, recordings: list[Recording]) -> Protocol:
    """All subjects but `test_subjects` train. Default held-out recordings that are not there are left away.

    Raises ValueError if no subject is left for training, or for other held-out recordings that do not exist or belong
    to a test subject.
    """
    known = {f"{recording.subject}/{recording.name}" for recording in recordings}
    subjects = sorted({recording.subject for recording in recordings}, key=_order)
    train = tuple(subject for subject in subjects if subject not in config.test_subjects)
    if not train:
        raise ValueError(
            f"test_subjects = {list(config.test_subjects)} in the options of data source cmu leaves no subject for "
            f"training; found: {', '.join(subjects)}. Add recordings of others or test on fewer."
        )
    own = set(config.held_out) - set(PROTOCOL.held_out)
    for key, wrong in (
        ("held_out", sorted(own - {name for name in known if name.split("/")[0] in train})),
        ("excluded", sorted(set(config.excluded) - known)),
    ):
        if wrong:
            raise ValueError(
                f'{key} = {wrong} in the options of data source cmu: expected "subject/take" of what is there, for '
                f"held_out of training subjects ({', '.join(train)}). Known: {', '.join(sorted(known))}."
            )
    held_out = tuple(name for name in config.held_out if name in known and name.split("/")[0] in train)
    return Protocol(
        train=train, test=config.test_subjects, held_out=held_out, excluded=config.excluded, note=PROTOCOL.note
    )


def read_recording(config: Config, recording: Recording) -> list[CameraSequence]:
    """Read one take and film it with four cameras. Raises ValueError naming file and line of a damaged file."""
    cameras = _cameras_of(config, recording.subject)
    generator = noise_generator(config.seed, f"{recording.subject}/{recording.name}")
    world = place(read_body(config, recording), cameras, SKELETON.root, generator)
    return film(
        world,
        cameras,
        recording,
        skeleton=SKELETON,
        frame_rate=config.frame_rate,
        noise=config.detector,
        seed=config.seed,
    )


def read_body(config: Config, recording: Recording) -> np.ndarray:
    """(F, 17, 3) world positions of one take at the prepared frame rate: metres, z up, standing on the floor."""
    file = Path(recording.files[-1])
    if file.suffix.lower() == ".bvh":
        motion, rate = read_bvh(file)
        points = h36m_points(motion, BVH_POINTS, _BVH_METRES, file)[_BVH_LEAD:]
    else:
        rate = config.amc_frame_rate
        points = h36m_points(read_amc(file, read_asf(Path(recording.files[0]))), ACCLAIM_POINTS, 1.0, file)
    if len(points) < 2:
        raise ValueError(
            f"{file} has fewer than two frames of motion, which is no recording. Take it out of the folder."
        )
    lengths = lengths_of(points)
    body = with_lengths(resample(points, rate, config.frame_rate), lengths)
    upright = np.stack([body[..., 0], -body[..., 2], body[..., 1]], axis=-1)
    ankles = upright[:, SKELETON.indices(("LFoot", "RFoot")), 2].min(axis=1)
    upright[..., 2] += _ANKLE_HEIGHT - np.percentile(ankles, 5)
    return upright


def _skeleton_of(file: Path, subject: str) -> Path:
    """The ASF file of an AMC file: the subject's, else the only one of the folder."""
    there = sorted(path for path in file.parent.iterdir() if path.suffix.lower() == ".asf")
    named = [path for path in there if path.stem == subject]
    if len(named or there) != 1:
        raise ValueError(
            f"data source cmu: {file} needs the skeleton {subject}.asf beside it (found: "
            f"{', '.join(path.name for path in there) or 'none'}). {_WHERE}"
        )
    return (named or there)[0]


def _cameras_of(config: Config, subject: str) -> list[Camera]:
    """Test subjects are filmed by the cameras of S9 and S11 in turn, the others by those of the training subjects."""
    if subject in config.test_subjects:
        return h36m_cameras()[_TEST_CAMERAS[config.test_subjects.index(subject) % len(_TEST_CAMERAS)]]
    number = int("".join(re.findall(r"\d", subject)) or 0)
    return h36m_cameras()[_TRAIN_CAMERAS.get(subject, _ALL_TRAIN_CAMERAS[number % len(_ALL_TRAIN_CAMERAS)])]


def _order(name: str) -> tuple[tuple[int, str], ...]:
    """Sorts numbers within names by value: 02 before 60 before 135."""
    return tuple((int(part), "") if part.isdigit() else (-1, part) for part in re.findall(r"\d+|\D+", name))
