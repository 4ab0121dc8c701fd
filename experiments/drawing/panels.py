"""Figures of a lifted clip: three panels that move (input, pose in space, pose from the side), or a strip over time.

Axes are equal and their limits the same in all frames. Legend: n frames, J joints.
"""

from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from posegrid.datasets.keypoints.pose_files import PoseClip
from posegrid.experiments.drawing.palette import FAINT, SIDES, TRUTH, hidden_words
from posegrid.experiments.drawing.skeleton_artist import SkeletonArtist
from posegrid.experiments.drawing.space import frame_space, turned

VIEWS = {"camera": (0, 1), "side": (2, 1)}
"""Flat views and the axes of the camera that they show: x and y, z and y."""
_AXES = ("x, right (mm)", "y, down (mm)", "z, away from the camera (mm)")


class Panels:
    """A figure that shows one frame at a time."""

    def __init__(self, clip: PoseClip) -> None:
        self._clip = clip
        rows, skeleton = clip.rows, clip.skeleton
        self.figure = Figure(figsize=(12.4, 4.9), dpi=100)
        self._title = self.figure.text(0.012, 0.95, "", fontsize=12, fontweight="bold")
        self._input = self.figure.add_axes((0.055, 0.17, 0.25, 0.66))
        self._space = self.figure.add_axes((0.36, 0.19, 0.3, 0.62))
        self._side = self.figure.add_axes((0.735, 0.17, 0.25, 0.66))
        _frame_input(self._input, clip)
        self._low, self._high = limits(clip)
        frame_space(self._space, self._low, self._high)
        _frame_flat(self._side, "side", self._low, self._high)
        several, known = rows.hypotheses_mm is not None, rows.truth_mm is not None
        self._artists = [
            SkeletonArtist(self._input, skeleton),
            SkeletonArtist(self._space, skeleton, cloud=several, truth=known),
            SkeletonArtist(self._side, skeleton, cloud=several, truth=known),
        ]
        self._hidden = self._input.set_title("", fontsize=9, loc="left")
        self._errors = self._side.set_title("", fontsize=9, loc="left")
        self.figure.text(0.36, 0.877, "pose in space", fontsize=9)
        handles = legend_handles(several=several, truth=known)
        self.figure.legend(handles=handles, loc="lower center", ncols=len(handles), fontsize=9, frameon=False)

    def show(self, index: int) -> None:
        """Move to row `index` of the clip."""
        clip, rows = self._clip, self._clip.rows
        visible, pose = rows.visible[index], rows.poses_mm[index]
        cloud = None if rows.hypotheses_mm is None else rows.hypotheses_mm[index]
        truth = None if rows.truth_mm is None else rows.truth_mm[index]
        self._artists[0].show(rows.keypoints_px[index], visible)
        for artist, seen in ((self._artists[1], turned), (self._artists[2], side)):
            artist.show(
                seen(pose),
                visible,
                None if cloud is None else seen(cloud),
                None if truth is None else seen(truth),
            )
        person = f", person {clip.person}"
        self._title.set_text(f"{clip.video}{person}, frame {rows.frame[index]}, {rows.time_s[index]:.2f} s")
        self._hidden.set_text(f"input in the image\n{hidden_words(~visible, clip.skeleton)}")
        said = ["pose from the side"]
        if truth is not None and np.isfinite(truth).all():
            said.append(f"error {np.linalg.norm(pose - truth, axis=-1).mean():.0f} mm")
        if rows.deviation_mm is not None:
            said.append(f"spread {rows.deviation_mm[index].mean():.0f} mm")
        self._errors.set_text(f"{said[0]}\n{', '.join(said[1:])}")


def strip(clip: PoseClip, columns: int = 6) -> Figure:
    """Frames of a clip side by side: input, pose as the camera sees it, pose from the side."""
    rows, skeleton = clip.rows, clip.skeleton
    chosen = np.unique(np.linspace(0, len(rows) - 1, columns).round().astype(int))
    low, high = limits(clip)
    figure = Figure(figsize=(2.15 * len(chosen) + 0.7, 8.6), dpi=100, layout="constrained")
    axes = figure.subplots(3, len(chosen), squeeze=False, sharey="row", sharex="row")
    several, known = rows.hypotheses_mm is not None, rows.truth_mm is not None
    for column, index in enumerate(chosen):
        visible = rows.visible[index]
        _frame_input(axes[0, column], clip)
        SkeletonArtist(axes[0, column], skeleton, width=1.6).show(rows.keypoints_px[index], visible)
        words = hidden_words(~visible, skeleton, 2)
        axes[0, column].set_title(f"frame {rows.frame[index]}, {rows.time_s[index]:.2f} s\n{words}", fontsize=8)
        for row, (view, shown) in enumerate(VIEWS.items(), start=1):
            _frame_flat(axes[row, column], view, low, high)
            pick = list(shown)
            SkeletonArtist(axes[row, column], skeleton, width=1.6, cloud=several, truth=known).show(
                rows.poses_mm[index][:, pick],
                visible,
                None if rows.hypotheses_mm is None else rows.hypotheses_mm[index][..., pick],
                None if rows.truth_mm is None else rows.truth_mm[index][:, pick],
            )
        for row in range(3):
            axes[row, column].tick_params(labelsize=7)
            axes[row, column].locator_params(axis="x", nbins=3)
            if column:
                axes[row, column].set_ylabel("")
    figure.suptitle(f"{clip.video}, person {clip.person}: input, camera's view, view from the side", fontsize=11)
    handles = legend_handles(several=several, truth=known)
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), fontsize=8, frameon=False)
    return figure


def legend_handles(*, several: bool, truth: bool) -> list[Line2D]:
    """What the signs mean."""
    names = {"left": "left side", "right": "right side", "middle": "middle"}
    handles = [Line2D([], [], color=colour, linewidth=3, label=names[side]) for side, colour in SIDES.items()]
    grey = SIDES["middle"]
    handles.append(
        Line2D([], [], color=grey, linestyle=":", marker="o", markerfacecolor="white", label="hidden from the model")
    )
    if several:
        handles.append(Line2D([], [], color=grey, alpha=0.5, linestyle="", marker=".", label="hypotheses"))
    if truth:
        handles.append(Line2D([], [], color=TRUTH, linestyle="--", label="truth"))
    return handles


def side(points: np.ndarray) -> np.ndarray:
    """(..., 2) depth and y."""
    return points[..., [2, 1]]


def limits(clip: PoseClip) -> tuple[np.ndarray, np.ndarray]:
    """(3,) lowest and highest coordinates of all frames in mm, with a margin; single stray hypotheses are cut off."""
    rows = clip.rows
    shown = [rows.poses_mm.reshape(-1, 3)]
    if rows.truth_mm is not None:
        shown.append(rows.truth_mm.reshape(-1, 3))
    points = np.concatenate(shown)
    low, high = np.nanmin(points, axis=0), np.nanmax(points, axis=0)
    if rows.hypotheses_mm is not None:
        cloud = np.percentile(rows.hypotheses_mm.reshape(-1, 3), [0.5, 99.5], axis=0)
        low, high = np.minimum(low, cloud[0]), np.maximum(high, cloud[1])
    # at least a person's width, so that a still pose is not magnified
    centre, half = (low + high) / 2, np.maximum(1.08 * (high - low) / 2, 400)
    return centre - half, centre + half


def input_crop(clip: PoseClip) -> tuple[np.ndarray, float]:
    """Upper left corner (2,) and side in pixels of the square that shows all keypoints of the clip."""
    points = clip.rows.keypoints_px.reshape(-1, 2)
    low, high = np.zeros(2), np.array([clip.width, clip.height], dtype=float)
    if np.isfinite(points).any():
        low, high = np.nanmin(points, axis=0), np.nanmax(points, axis=0)
    half = 1.12 * max(float((high - low).max()) / 2, 20)
    return (low + high) / 2 - half, 2 * half


def _frame_input(axis: Any, clip: PoseClip) -> None:
    corner, length = input_crop(clip)
    axis.add_patch(Rectangle((0, 0), clip.width, clip.height, fill=False, edgecolor=FAINT, zorder=0))
    axis.set_xlim(corner[0], corner[0] + length)
    axis.set_ylim(corner[1] + length, corner[1])
    axis.set_aspect("equal")
    _axis_labels(axis, "x (px)", "y (px)")


def _frame_flat(axis: Any, view: str, low: np.ndarray, high: np.ndarray) -> None:
    across, down = VIEWS[view]
    axis.set_xlim(low[across], high[across])
    axis.set_ylim(high[down], low[down])
    axis.set_aspect("equal")
    axis.grid(color=FAINT, linewidth=0.4)
    axis.set_axisbelow(True)
    _axis_labels(axis, _AXES[across], _AXES[down])


def _axis_labels(axis: Any, x: str, y: str) -> None:
    axis.set_xlabel(x, fontsize=8)
    axis.set_ylabel(y, fontsize=8)
    axis.tick_params(labelsize=8)
    axis.locator_params(nbins=5)
