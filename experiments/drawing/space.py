"""Poses in space on a flat axis: a parallel projection from right in front and a little above, with floor and ruler.

Matplotlib's own axes in space take three times as long a frame, and clip their labels. The page of `viewer.html` turns
the same picture. Camera axes: x right, y down, z away from the camera; millimetres.
"""

from typing import Any

import numpy as np

from posegrid.experiments.drawing.palette import FAINT

YAW, PITCH = 28.0, 14.0
"""Degrees by which the reader stands right of the camera, and above it."""


def turned(points: np.ndarray) -> np.ndarray:
    """(..., 3) -> (..., 2): where points appear, across and down, in mm of the plane of the picture."""
    yaw, pitch = np.deg2rad([YAW, PITCH])
    across = np.cos(yaw) * points[..., 0] + np.sin(yaw) * points[..., 2]
    deep = np.cos(yaw) * points[..., 2] - np.sin(yaw) * points[..., 0]
    return np.stack([across, np.cos(pitch) * points[..., 1] - np.sin(pitch) * deep], axis=-1)


def frame_space(axis: Any, low: np.ndarray, high: np.ndarray) -> None:
    """Draw floor and ruler of the box from `low` (3,) to `high` (3,), and fix the limits of a flat axis to it."""
    step = 250 if (high - low).max() <= 1800 else 500
    ticks = [np.arange(np.ceil(low[c] / step), np.floor(high[c] / step) + 1) * step for c in range(3)]
    floor = high[1]

    def line(start: list[float], end: list[float]) -> None:
        axis.plot(*turned(np.array([start, end])).T, color=FAINT, linewidth=0.6, zorder=0)

    def text(place: list[float], words: str, shift: tuple[float, float], align: str, size: float = 7.0) -> None:
        axis.annotate(
            words,
            turned(np.array(place)),
            xytext=shift,
            textcoords="offset points",
            ha=align,
            va="center",
            fontsize=size,
            color="#444444",
        )

    for x in ticks[0]:
        line([x, floor, low[2]], [x, floor, high[2]])
        text([x, floor, low[2]], f"{x:g}", (0, -8), "center")
    for z in ticks[2]:
        line([low[0], floor, z], [high[0], floor, z])
        text([high[0], floor, z], f"{z:g}", (5, -4), "left")
    line([low[0], floor, high[2]], [low[0], low[1], high[2]])
    for y in ticks[1]:
        line([low[0], y, high[2]], [low[0] - 0.015 * (high[1] - low[1]), y, high[2]])
        text([low[0], y, high[2]], f"{0 - y:g}", (-6, 0), "right")
    text([low[0], low[1], high[2]], "up (mm)", (0, 8), "center", 8)
    text([(low[0] + high[0]) / 2, floor, low[2]], "x, right (mm)", (0, -22), "center", 8)
    text([high[0], floor, (low[2] + high[2]) / 2], "z, away from\nthe camera (mm)", (30, -12), "left", 8)
    corners = np.array([[x, y, z] for x in (low[0], high[0]) for y in (low[1], high[1]) for z in (low[2], high[2])])
    ends = np.stack([turned(corners).min(axis=0), turned(corners).max(axis=0)])
    axis.set_xlim(*ends[:, 0])
    axis.set_ylim(ends[1, 1], ends[0, 1])
    axis.set_aspect("equal")
    axis.set_axis_off()
