"""Colours of Okabe and Ito's palette, which colour-blind readers tell apart, and what each stands for everywhere."""

import numpy as np

from posegrid.datasets.skeletons import Skeleton

LEFT, RIGHT, MIDDLE = "#0072B2", "#D55E00", "#333333"
"""Sides of the body, as the person has them. What is hidden differs by shape too: hollow joints, dotted bones."""
SIDES = {"left": LEFT, "right": RIGHT, "middle": MIDDLE}
TRUTH, PREDICTED, HIDDEN = "#555555", "#0072B2", "#D55E00"
"""Where a whole pose has one colour."""
FAINT = "#BBBBBB"
"""Borders and grids."""


def sides_of(skeleton: Skeleton) -> dict[str, np.ndarray]:
    """Side -> (J,) bool, which joints lie there; a bone goes with its outer joint."""
    left, right = np.zeros(len(skeleton), dtype=bool), np.zeros(len(skeleton), dtype=bool)
    left[list(skeleton.left)], right[list(skeleton.right)] = True, True
    return {"left": left, "right": right, "middle": ~left & ~right}


def hidden_words(hidden: np.ndarray, skeleton: Skeleton, most: int = 6) -> str:
    """Which joints (J,) bool are hidden, in a line."""
    names = [skeleton.joints[joint] for joint in np.flatnonzero(hidden)]
    if not names:
        return "nothing hidden"
    if len(names) == len(skeleton):
        return "all joints hidden"
    return f"hidden: {', '.join(names[:most])}" + (f" and {len(names) - most} more" if len(names) > most else "")
