"""What all forms of Human3.6M (Ionescu et al., 2014) have in common: split, actions, frame rate, the four cameras.

Legend: F frames, J joints. The sources `h36m`, `h36m_archive` and `h36m_official` differ in where positions and
keypoints are; what they mean is here, so that the three give the same store of the same motion.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from posegrid.datasets.cameras import h36m_cameras, project, world_to_camera
from posegrid.datasets.images.places import fill_template
from posegrid.datasets.schema import CameraSequence, Protocol, Recording

FRAME_RATE = 50.0
ACTIONS = (
    "Directions", "Discussion", "Eating", "Greeting", "Phoning", "Photo", "Posing", "Purchases", "Sitting",
    "SittingDown", "Smoking", "Waiting", "WalkDog", "Walking", "WalkTogether",
)  # fmt: skip
TAKES = 30
"""Recordings of each subject: two of each action."""

PROTOCOL = Protocol(
    train=("S1", "S5", "S6", "S7", "S8"),
    test=("S9", "S11"),
    excluded=("S11/Directions",),
    note=(
        "The usual subjects; S11's first Directions is left out (damaged video). Held out for selection are second "
        "takes of training subjects; recipes that select on the test subjects, as publications do, train on them too."
    ),
)
"""Subjects and exclusions; `with_held_out` adds the held-out recordings."""

SUBJECTS = (*PROTOCOL.train, *PROTOCOL.test)


def with_held_out(protocol: Protocol, recordings: list[Recording]) -> Protocol:
    """The protocol with held-out recordings: of the k-th action in alphabetical order the last take (by name) of
    training subject k modulo 5, so that every action is held out once and every subject three times."""
    actions = sorted({recording.action for recording in recordings if recording.subject in protocol.train})
    held_out = []
    for number, action in enumerate(actions):
        subject = protocol.train[number % len(protocol.train)]
        takes = sorted(found.name for found in recordings if (found.subject, found.action) == (subject, action))
        # a subject without a second take of the action keeps its only one for training
        held_out += [f"{subject}/{name}" for name in takes[1:][-1:]]
    return replace(protocol, held_out=tuple(held_out))


def action_of(name: str) -> str:
    """The action of a recording: "Walking" of "Walking 1"."""
    return name.split(" ")[0]


def check_complete(where: Any, subject: str, names: Sequence[str], advice: str) -> None:
    """Refuse a subject whose recordings are not two of each action: numbers of a part of the data set look like those
    of the whole. Raises ValueError naming what is missing or unknown."""
    actions = [action_of(name) for name in names]
    unknown = sorted({name for name, action in zip(names, actions, strict=True) if action not in ACTIONS})
    odd = [
        f"{action} ({actions.count(action)})" for action in ACTIONS if actions.count(action) != TAKES // len(ACTIONS)
    ]
    if unknown or odd:
        told = [f"unknown ones ({', '.join(unknown[:5])})"] if unknown else []
        told += [f"other than two of {', '.join(odd[:5])}"] if odd else []
        raise ValueError(
            f"{where}: subject {subject} has {len(names)} recordings, {' and '.join(told)}; expected {TAKES}, two of "
            f"each of the actions {', '.join(ACTIONS)}. {advice}"
        )


def camera_sequences(
    recording: Recording, world: np.ndarray, keypoints: Sequence[np.ndarray] | None, images: str = ""
) -> list[CameraSequence]:
    """One recording in all four cameras, in the order of `cameras.H36M_CAMERA_IDS`.

    world: (F, J, 3) metres, z up. keypoints: (F, J, 2) normalised screen coordinates of each camera; None: the
    projected positions, with lens distortion. images: template of the option `images`, empty without. Confidence is
    1 throughout: no form of the data set has one.
    """
    sequences = []
    for number, camera in enumerate(h36m_cameras()[recording.subject]):
        poses = world_to_camera(world, camera)
        seen = project(poses, camera) if keypoints is None else keypoints[number]
        sequences.append(
            CameraSequence(
                subject=recording.subject,
                action=recording.action,
                recording=recording.name,
                camera=camera.id,
                frame_rate=FRAME_RATE,
                width=camera.width,
                height=camera.height,
                keypoints=seen.astype(np.float32),
                confidence=np.ones(seen.shape[:2], dtype=np.float32),
                poses=poses.astype(np.float32),
                camera_parameters=camera.to_plain(),
                images=_images(images, recording, camera.id),
            )
        )
    return sequences


def check_images(template: str) -> None:
    """Raises ValueError if the option `images` is no template of image files; empty is allowed."""
    if template:
        fill_template(template, subject="S1", recording="Walking 1", camera="54138969")


def _images(template: str, recording: Recording, camera: str) -> dict[str, Any]:
    """Where the frames of one view are, {} without the option."""
    if not template:
        return {}
    names = {"subject": recording.subject, "recording": recording.name, "camera": camera}
    return fill_template(template, first=1, **names).to_plain()
