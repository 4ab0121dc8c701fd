"""One skeleton on one axis, as lines that move from frame to frame instead of being drawn anew.

Legend: H hypotheses, J joints.
"""

from typing import Any

import numpy as np

from posegrid.datasets.skeletons import Skeleton
from posegrid.experiments.drawing.palette import SIDES, TRUTH, sides_of


class SkeletonArtist:
    """Bones and joints by side; hidden joints hollow, bones that end in one dotted; cloud and truth behind."""

    def __init__(self, axis: Any, skeleton: Skeleton, *, width: float = 2.2, cloud: bool = False, truth: bool = False):
        self._child, self._parent = (np.array(side) for side in zip(*skeleton.bones, strict=True))
        self._sides = sides_of(skeleton)

        def line(style: str, order: int, **more: Any) -> Any:
            return axis.plot([], [], style, zorder=order, **more)[0]

        self._truth = line("--", 2, color=TRUTH, linewidth=0.7 * width) if truth else None
        self._cloud, self._shown, self._dotted, self._seen, self._hollow = ({} for _ in range(5))
        for side, colour in SIDES.items():
            if cloud:
                self._cloud[side] = line(".", 1, color=colour, alpha=0.4, markersize=2.4 * width, markeredgewidth=0)
            self._shown[side] = line("-", 3, color=colour, linewidth=width, solid_capstyle="round")
            self._dotted[side] = line(":", 3, color=colour, linewidth=width)
            self._seen[side] = line("o", 4, color=colour, markersize=1.5 * width)
            self._hollow[side] = line(
                "o", 5, color=colour, markerfacecolor="white", markersize=2.2 * width, markeredgewidth=0.6 * width
            )

    def show(
        self,
        points: np.ndarray,
        visible: np.ndarray,
        hypotheses: np.ndarray | None = None,
        truth: np.ndarray | None = None,
    ) -> None:
        """Move to points (J, 2), NaN: not drawn; visible (J,) bool; hypotheses (H, J, 2); truth (J, 2)."""
        whole = visible[self._child] & visible[self._parent]
        for side, joints in self._sides.items():
            bones = joints[self._child]
            self._set(self._shown[side], self._bones(points, bones & whole))
            self._set(self._dotted[side], self._bones(points, bones & ~whole))
            self._set(self._seen[side], points[joints & visible])
            self._set(self._hollow[side], points[joints & ~visible])
            if self._cloud and hypotheses is not None:
                self._set(self._cloud[side], hypotheses[:, joints].reshape(-1, 2))
        if self._truth is not None and truth is not None:
            self._set(self._truth, self._bones(truth, np.ones(len(self._child), dtype=bool)))

    def _bones(self, points: np.ndarray, which: np.ndarray) -> np.ndarray:
        """(3 n, 2) ends of bones with NaN between them: one line draws them all."""
        ends = np.full((int(which.sum()), 3, 2), np.nan)
        ends[:, 0], ends[:, 1] = points[self._child[which]], points[self._parent[which]]
        return ends.reshape(-1, 2)

    @staticmethod
    def _set(line: Any, points: np.ndarray) -> None:
        line.set_data(*points.T)
