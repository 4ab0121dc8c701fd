"""Skeleton pictures of scored windows: the 2D input with hidden joints marked, the pose from two sides."""

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
    figure = Figure(figsize=(9.5, 3.1 * len(keypoints)), layout="constrained")
    rows = figure.subplots(len(keypoints), 3, squeeze=False)
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
    figure.suptitle(title, fontsize=11)
    return figure


def _input(axis: Axes, keypoints: np.ndarray, visible: np.ndarray, skeleton: Skeleton) -> None:
    for child, parent in skeleton.bones:
        if visible[child] and visible[parent]:
            axis.plot(*keypoints[[child, parent]].T, color=TRUTH, linewidth=1.5)
    axis.plot(*keypoints[visible].T, "o", color=PREDICTED, markersize=3, label="seen")
    if (~visible).any():
        # hidden keypoints enter the network as (0, 0), the image centre
        axis.plot(0, 0, "x", color=HIDDEN, markersize=7, label="hidden: set to 0")
    axis.invert_yaxis()
    axis.set_aspect("equal", adjustable="datalim")
    axis.set_xlabel("x (screen)", fontsize=8)
    axis.set_ylabel("y (screen)", fontsize=8)


def _bones(axis: Axes, points: np.ndarray, skeleton: Skeleton, colour: str, label: str) -> None:
    for index, (child, parent) in enumerate(skeleton.bones):
        axis.plot(*points[[child, parent]].T, color=colour, linewidth=1.8, label=label if index == 0 else None)
    if not axis.yaxis_inverted():
        axis.invert_yaxis()
    axis.set_aspect("equal", adjustable="datalim")
