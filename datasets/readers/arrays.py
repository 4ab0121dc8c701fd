"""Arrays of raw files: are they what the layout of the data set says? Errors name the file and the recording."""

from typing import Any

import numpy as np

from posegrid.datasets.checks.anatomy import body_scale, bone_lengths, bone_ranges
from posegrid.datasets.skeletons import Skeleton

_MM_PER_M = 1000
_MOST_UNEQUAL, _MOST_ODD = 1.8, 0.5
"""Ratio of mirrored bones, and share of bones with an implausible length, beyond which joints are in another order."""
_GROSS = 8.0
"""Bones this many times longer or shorter than a person's mean another unit, which is off by 10 at least."""


def checked_floats(file: Any, where: str, value: Any, shape: tuple[int, ...], advice: str) -> np.ndarray:
    """The value if it is an array (frames, *shape) of finite floats with at least one frame.

    file and where name it in messages, advice says what to do about another layout. Raises ValueError otherwise.
    """
    fits = isinstance(value, np.ndarray) and value.ndim == 1 + len(shape) and value.shape[1:] == shape
    if not fits or not len(value) or value.dtype.kind != "f":
        wanted = ", ".join(str(size) for size in ("frames", *shape))
        raise ValueError(f"{file}: {where} is {kind(value)}, expected floats of shape ({wanted}). {advice}")
    bad = np.argwhere(~np.isfinite(value))
    if len(bad):
        place = f"frame {bad[0][0]}, joint {bad[0][1]}" if value.ndim > 1 else f"index {bad[0][0]}"
        raise ValueError(
            f"{file}: {where} holds {len(bad)} NaN or infinite values, the first at {place}; every value must be "
            "finite. Make the file again."
        )
    return value


def kind(value: Any) -> str:
    """Type and shape of an array, or the type of anything else, for messages."""
    return f"{value.dtype} {value.shape}" if isinstance(value, np.ndarray) else type(value).__name__


def metres(file: Any, where: str, millimetres: np.ndarray, skeleton: Skeleton) -> np.ndarray:
    """Positions (F, J, 3) of `skeleton` in millimetres -> metres, same dtype. Raises ValueError if the bones of a body
    would be more than 8 times too long or too short: then the file has another unit, or another order of joints."""
    result = millimetres / millimetres.dtype.type(_MM_PER_M)
    scale = body_scale(bone_lengths(result.astype(np.float64), skeleton).mean(axis=0), skeleton)
    if not 1 / _GROSS < scale < _GROSS:
        raise ValueError(
            f"{file}: {where} has bones {scale:.3g} times as long as a person's if its unit is the millimetre, as it "
            "must be. Do not convert the data set's files: use them as they were published."
        )
    return result


def refuse_other_order(file: Any, where: str, poses: np.ndarray, skeleton: Skeleton) -> None:
    """Raises ValueError unless poses (F, J, 3) in metres look like a body in the order of `skeleton`.

    The two sides of a body have equal bones, and few are of implausible length. Another order of the joints has a pair
    of unequal ones (twice as long and more) and most lengths implausible; left and right swapped is not noticed.
    """
    lengths = bone_lengths(poses.astype(np.float64), skeleton).mean(axis=0)
    of_joint = dict(zip((child for child, _ in skeleton.bones), lengths, strict=True))
    pairs = np.array(
        [[of_joint[left], of_joint[right]] for left, right in zip(skeleton.left, skeleton.right, strict=True)]
    )
    unequal = (pairs.max(axis=1) > _MOST_UNEQUAL * pairs.min(axis=1)).any()
    shortest, longest = bone_ranges(skeleton).T
    odd = (lengths < shortest) | (lengths > longest)
    if unequal or odd.mean() > _MOST_ODD:
        raise ValueError(
            f"{file}: {where} has no human body in the order of {skeleton.name} ({', '.join(skeleton.joints)}): "
            f"{odd.sum()} of {len(odd)} mean bone lengths are implausible"
            f"{', and left and right bones differ' if unequal else ''}. Its joints are in another order than "
            "documented: use the files as they were published."
        )
