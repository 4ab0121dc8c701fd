"""From joint rotations to joint positions, for every frame at once.

Legend: F frames, N nodes of the file's own skeleton.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True)
class MocapMotion:
    """What a motion-capture file says, in its own skeleton and axes."""

    nodes: tuple[str, ...]
    """Names of the points."""
    positions: np.ndarray
    """(F, N, 3) float64 in the unit the reader states."""
    rotations: np.ndarray
    """(F, N, 3, 3) float64: what turns the file's axes in its zero pose into those of the node."""

    def node(self, name: str) -> int:
        """Index of a point by name. Raises KeyError."""
        try:
            return self.nodes.index(name)
        except ValueError:
            raise KeyError(name) from None


def euler_rotation(degrees: np.ndarray, axes: str) -> np.ndarray:
    """(..., K) angles about the axes named by the K letters of `axes` -> (..., 3, 3), multiplied in the order written.

    The axes turn along with the rotations before them; reverse both for axes that stay.
    """
    rotation = np.broadcast_to(np.eye(3), (*degrees.shape[:-1], 3, 3))
    for index, letter in enumerate(axes):
        angle = np.radians(degrees[..., index])
        rotation = rotation @ _about("XYZ".index(letter), angle)
    return rotation


def forward_kinematics(
    parents: Sequence[int], offsets: np.ndarray, local: np.ndarray, root: np.ndarray, *, offset_turns_with: str
) -> tuple[np.ndarray, np.ndarray]:
    """Positions (F, N, 3) and rotations (F, N, 3, 3) of a tree whose parents come before their children.

    offsets: (N, 3) from parent to child. local: (F, N, 3, 3) rotation of each node against its parent.
    root: (F, 3) position of the nodes without parent (parent -1), their offset added. offset_turns_with: "parent"
    (BVH: a joint turns what hangs on it) or "node" (Acclaim: a bone turns itself).
    """
    assert offset_turns_with in ("parent", "node")
    positions, rotations = np.empty((len(root), len(parents), 3)), np.empty_like(local)
    for node, parent in enumerate(parents):
        assert parent < node
        before = np.broadcast_to(np.eye(3), local[:, node].shape) if parent < 0 else rotations[:, parent]
        rotations[:, node] = before @ local[:, node]
        frame = before if offset_turns_with == "parent" else rotations[:, node]
        positions[:, node] = (root if parent < 0 else positions[:, parent]) + frame @ offsets[node]
    return positions, rotations


def _about(axis: int, angle: np.ndarray) -> np.ndarray:
    first, second = (axis + 1) % 3, (axis + 2) % 3
    rotation = np.zeros((*angle.shape, 3, 3))
    rotation[..., axis, axis] = 1.0
    rotation[..., first, first] = rotation[..., second, second] = np.cos(angle)
    rotation[..., second, first] = np.sin(angle)
    rotation[..., first, second] = -np.sin(angle)
    return rotation
