"""Skeleton pictures of scored windows: the 2D input with hidden joints marked, the pose from two sides."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from posegrid.datasets.skeletons import Skeleton
from posegrid.experiments.drawing.palette import HIDDEN, PREDICTED, TRUTH, hidden_words


def examples_figure(file: Path, skeleton: Skeleton, title: str) -> Figure:
    """The best, the median and the worst of the first scored batch of test windows, at one frame each.

    Columns: input in the image, the pose from the front (camera) and from the right.
    """
    with np.load(file, allow_pickle=False) as arrays:
        keypoints, visible, predicted, target = (
            arrays[name] for name in ("keypoints", "visible", "predicted", "target")
        )
    # the frame with most hidden joints says most; the middle one where nothing is hidden
    hidden = (~visible).sum(axis=2)
    frames = np.where(hidden.max(axis=1) > 0, hidden.argmax(axis=1), keypoints.shape[1] // 2)
    errors = 1000 * np.linalg.norm(predicted - target, axis=-1).mean(axis=(1, 2))
    height = 3.1 * len(keypoints)  # inches; margins are given, since to find them takes matplotlib twice the drawing
    figure = Figure(figsize=(9.5, height))
    rows = figure.subplots(len(keypoints), 3, squeeze=False)
    figure.subplots_adjust(0.075, 0.5 / height, 0.985, 1 - 0.8 / height, wspace=0.26, hspace=0.42)
    for row, name, which, frame in zip(rows, ("best", "median", "worst"), range(len(keypoints)), frames, strict=True):
        _input(row[0], keypoints[which, frame], visible[which, frame], skeleton)
        row[0].set_title(
            f"{name} window, {errors[which]:.0f} mm: input\n{hidden_words(~visible[which, frame], skeleton)}",
            fontsize=8,
        )
        for axis, across, view in ((row[1], 0, "front"), (row[2], 2, "side")):
            for pose, colour, label in ((target, TRUTH, "truth"), (predicted, PREDICTED, "predicted")):
                _bones(axis, pose[which, frame][:, [across, 1]], skeleton, colour, label)
            axis.set_title(view, fontsize=9)
            axis.set_xlabel(f"{'x' if across == 0 else 'z'} (m)", fontsize=8)
            axis.set_ylabel("y, down (m)", fontsize=8)
    rows[0, 0].legend(*rows[0, 0].get_legend_handles_labels(), fontsize=7, loc="lower right")
    rows[0, 1].legend(fontsize=7, loc="lower right")
    figure.suptitle(title, fontsize=11, y=1 - 0.18 / height)
    return figure


def _input(axis: Axes, keypoints: np.ndarray, visible: np.ndarray, skeleton: Skeleton) -> None:
    whole = [bone for bone in skeleton.bones if visible[list(bone)].all()]
    axis.plot(*_apart(keypoints, whole), color=TRUTH, linewidth=1.5)
    axis.plot(*keypoints[visible].T, "o", color=PREDICTED, markersize=3, label="seen")
    if (~visible).any():
        # hidden keypoints enter the network as (0, 0), the image centre
        axis.plot(0, 0, "x", color=HIDDEN, markersize=7, label="hidden: set to 0")
    axis.invert_yaxis()
    axis.set_aspect("equal", adjustable="datalim")
    axis.set_xlabel("x (screen)", fontsize=8)
    axis.set_ylabel("y (screen)", fontsize=8)


def _bones(axis: Axes, points: np.ndarray, skeleton: Skeleton, colour: str, label: str) -> None:
    axis.plot(*_apart(points, skeleton.bones), color=colour, linewidth=1.8, label=label)
    if not axis.yaxis_inverted():
        axis.invert_yaxis()
    axis.set_aspect("equal", adjustable="datalim")


def _apart(points: np.ndarray, bones: Sequence[tuple[int, int]]) -> np.ndarray:
    """(2, 3B) ends of B bones with a gap after each: one line draws in a tenth of the time of many."""
    ends = points[np.array(bones, int).reshape(-1, 2)]
    return np.concatenate([ends, np.full_like(ends[:, :1], np.nan)], axis=1).reshape(-1, 2).T
