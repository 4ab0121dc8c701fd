"""Arrays of raw files: are they what the layout of the data set says? Errors name the file and the recording."""

from typing import Any

import numpy as np


def checked_floats(file: Any, where: str, value: Any, shape: tuple[int, ...], advice: str) -> np.ndarray:
    """The value if it is an array (frames, *shape) of finite floats with at least one frame.

    file and where name it in messages, advice says what to do about another layout. Raises ValueError otherwise.
    """
    if not isinstance(value, np.ndarray) or value.shape[1:] != shape or not len(value) or value.dtype.kind != "f":
        wanted = ", ".join(str(size) for size in ("frames", *shape))
        raise ValueError(f"{file}: {where} is {kind(value)}, expected floats of shape ({wanted}). {advice}")
    bad = np.argwhere(~np.isfinite(value))
    if len(bad):
        frame, joint = bad[0][:2]
        raise ValueError(
            f"{file}: {where} holds {len(bad)} NaN or infinite values, the first at frame {frame}, joint {joint}; "
            "every value must be finite. Make the file again."
        )
    return value


def kind(value: Any) -> str:
    """Type and shape of an array, or the type of anything else, for messages."""
    return f"{value.dtype} {value.shape}" if isinstance(value, np.ndarray) else type(value).__name__
