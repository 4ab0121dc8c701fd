"""Generated motion: the data set that needs no files.

Articulated bodies of different proportions and habits walk, run, squat, reach, wave, turn and sit
(`posegrid.datasets.synthesis`); the four Human3.6M cameras film them and a stated detector model (`detector.Config`)
disturbs what they see. The motion is plausible, not measured: it is there to try everything out and to test it.
"""

from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np

from posegrid.datasets.cameras import h36m_cameras, meeting_point
from posegrid.datasets.detector import Config as DetectorConfig
from posegrid.datasets.filming import film
from posegrid.datasets.occlusions.draws import sequence_key
from posegrid.datasets.schema import CameraSequence, Protocol, Recording
from posegrid.datasets.skeletons import H36M_17
from posegrid.datasets.synthesis.actions import ACTIONS, perform
from posegrid.datasets.synthesis.movement import Person, draw_person

DESCRIPTION = "Generated motion of articulated bodies seen by the Human3.6M cameras; needs no raw files."
SKELETON = H36M_17

_TRAIN_CAMERAS, _TEST_CAMERAS = ("S1", "S5", "S6", "S7", "S8"), ("S9", "S11")
"""Subjects of Human3.6M whose camera sets film the training and the test subjects, in turn."""
_HEIGHTS = (1.52, 1.93)
"""Shortest and tallest body, metres."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """Size and randomness of the data set."""

    seconds: float = 10.0
    """Length of each recording."""
    recordings_per_action: int = 1
    """Takes of each action by each subject."""
    train_subjects: int = 5
    """Subjects P1, P2, ... that train."""
    test_subjects: int = 2
    """Subjects after them that test."""
    actions: tuple[str, ...] = tuple(ACTIONS)
    """Which movements are made."""
    frame_rate: float = 50.0
    """Frames per second, as Human3.6M has them."""
    seed: int = 0
    """Seed of bodies, motion and detector noise."""
    detector: DetectorConfig = field(default_factory=DetectorConfig)
    """How the simulated keypoint detector errs."""

    def __post_init__(self) -> None:
        unknown = [action for action in self.actions if action not in ACTIONS]
        if unknown or not self.actions or len(set(self.actions)) < len(self.actions):
            raise ValueError(
                f"actions = {list(self.actions)} in the options of data source synthetic: expected distinct ones of "
                f"{', '.join(ACTIONS)}. Correct or remove the option."
            )
        for name, lowest in (("recordings_per_action", 1), ("train_subjects", 1), ("test_subjects", 1), ("seed", 0)):
            if getattr(self, name) < lowest:
                raise ValueError(
                    f"{name} = {getattr(self, name)} in the options of data source synthetic: expected at least "
                    f"{lowest}. Raise it."
                )
        if not 10 <= self.frame_rate <= 1000 or round(self.seconds * self.frame_rate) < 2:
            raise ValueError(
                f"seconds = {self.seconds}, frame_rate = {self.frame_rate} in the options of data source synthetic: "
                "expected 10 to 1000 frames per second and at least two frames. Correct them."
            )


PROTOCOL = Protocol(
    train=("P1", "P2", "P3", "P4", "P5"),
    test=("P6", "P7"),
    held_out=("P1/reach 1", "P2/run 1", "P3/sit 1", "P4/squat 1", "P5/turn 1"),
    note="Generated motion; results on it say nothing about real people.",
)
"""Protocol of the default settings."""


def protocol(config: Config, recordings: list[Recording]) -> Protocol:
    """Training subjects first, then test subjects; the last take of another action is held out of each in turn."""
    subjects = _subjects(config)
    train = subjects[: config.train_subjects]
    take = config.recordings_per_action
    held_out = tuple(
        f"{subject}/{config.actions[index % len(config.actions)]} {take}" for index, subject in enumerate(train)
    )
    # with a single recording a subject has nothing to spare, unless others train
    if take * len(config.actions) == 1:
        held_out = held_out[-1:] if len(train) > 1 else ()
    return Protocol(train=train, test=subjects[config.train_subjects :], held_out=held_out, note=PROTOCOL.note)


def list_recordings(config: Config, raw: Path | None) -> list[Recording]:
    """All recordings, subject by subject. Raises ValueError if a raw folder is given: none is read."""
    if raw is not None:
        raise ValueError(
            f"raw folder {raw} was given for data source synthetic, which generates its motion and reads no files. "
            "Leave the folder out, or choose a source that reads one."
        )
    return [
        Recording(subject=subject, action=action, name=f"{action} {take}")
        for subject in _subjects(config)
        for action in config.actions
        for take in range(1, config.recordings_per_action + 1)
    ]


def read_recording(config: Config, recording: Recording) -> list[CameraSequence]:
    """Generate one recording and film it with four cameras. Depends on the settings and its name alone."""
    number = _subjects(config).index(recording.subject)
    if number < config.train_subjects:
        cameras = h36m_cameras()[_TRAIN_CAMERAS[number % len(_TRAIN_CAMERAS)]]
    else:
        cameras = h36m_cameras()[_TEST_CAMERAS[(number - config.train_subjects) % len(_TEST_CAMERAS)]]
    generator = np.random.default_rng([config.seed, sequence_key(f"{recording.subject}/{recording.name}"), 1])
    frames = round(config.seconds * config.frame_rate)
    world = perform(recording.action, _person(config, recording.subject), generator, frames, config.frame_rate)
    world[..., :2] += meeting_point(cameras)[:2]
    return film(
        world,
        cameras,
        recording,
        skeleton=SKELETON,
        frame_rate=config.frame_rate,
        noise=config.detector,
        seed=config.seed,
    )


def _subjects(config: Config) -> tuple[str, ...]:
    return tuple(f"P{number + 1}" for number in range(config.train_subjects + config.test_subjects))


@lru_cache
def _person(config: Config, subject: str) -> Person:
    """The person of that name. Heights are spread evenly, so that no two subjects are alike."""
    subjects = _subjects(config)
    order = np.random.default_rng([config.seed, len(subjects)]).permutation(len(subjects))
    share = (order[subjects.index(subject)] + 0.5) / len(subjects)
    height = _HEIGHTS[0] + share * (_HEIGHTS[1] - _HEIGHTS[0])
    return draw_person(np.random.default_rng([config.seed, sequence_key(subject)]), float(height))
