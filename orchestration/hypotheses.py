"""Hypotheses of scored windows -> one pose, with the cameras and, where a recipe asks for it, the truth of the store.

Legend: N windows, H hypotheses, L frames, J joints.
"""

import json
from functools import partial

import numpy as np
import torch
from torch import Tensor

from posegrid.datasets.cameras import Camera, project, unproject
from posegrid.datasets.root_fit import fitted_root
from posegrid.datasets.store import Sequence, Store
from posegrid.datasets.windows import Windows, gather_column
from posegrid.models import aggregation
from posegrid.orchestration.settings import Settings

_VALUES = 2**22
"""Coordinates treated at once: bounds memory, as every step of an aggregation makes copies of them."""


def aggregated(
    name: str,
    hypotheses: np.ndarray,
    store: Store,
    windows: Windows,
    keypoints: np.ndarray,
    visible: np.ndarray,
    target: np.ndarray,
) -> np.ndarray:
    """(N, L, J, 3) float64 metres from hypotheses (N, H, L, J, 3), as `evaluation.aggregation` names it.

    keypoints (N, L, J, 2), visible (N, L, J) and target (N, L, J, 3) as the model and the metrics see them. One
    hypothesis is returned as it is, whatever the name. Raises ValueError if a camera is needed and not in the store.
    """
    if hypotheses.shape[1] == 1:
        return hypotheses[:, 0].astype(np.float64)
    found = np.empty(target.shape)
    size = max(_VALUES // int(np.prod(hypotheses.shape[1:])), 1)
    for first in range(0, len(hypotheses), size):
        rows = slice(first, first + size)
        several = torch.from_numpy(hypotheses[rows]).double()
        seen, root = visible[rows], None
        if "root" in name:
            root, seen = _root(name, several, store, windows[rows], keypoints[rows], seen)
        found[rows] = aggregation.aggregate(
            name,
            several,
            target_BLJC=torch.from_numpy(target[rows]),
            keypoints_BLJC=torch.from_numpy(keypoints[rows]),
            visible_BLJ=torch.from_numpy(seen),
            root_BLC=None if root is None else torch.from_numpy(root),
            project=partial(_projected, store, windows[rows]),
        ).numpy()
    return found


def check_aggregation(settings: Settings, store: Store, split: str = "test") -> None:
    """Refuse an aggregation that needs cameras which a split of the store lacks. Raises ValueError."""
    chosen = settings.evaluation
    if "root" in chosen.aggregation and chosen.hypotheses > 1:
        for index in store.of_split(split):
            _camera(store.sequences[index], chosen.aggregation)


def _root(
    name: str, hypotheses: Tensor, store: Store, windows: Windows, keypoints: np.ndarray, visible: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(N, L, 3) positions of the root, and which joints are compared: none where the position is not known."""
    if name.endswith("true_root"):
        return gather_column(store, windows, store.poses)[:, :, store.skeleton.root].astype(np.float64), visible
    rays = np.empty(keypoints.shape)
    for camera, rows in _by_camera(store, windows):
        rays[rows] = unproject(keypoints[rows], camera)
    root, known = fitted_root(hypotheses.mean(1).numpy(), rays, visible)
    return root, visible & known[..., None]


def _projected(store: Store, windows: Windows, poses: Tensor) -> Tensor:
    """(N, H, L, J, 2) screen coordinates of absolute poses (N, H, L, J, 3), each with the camera of its window."""
    points = poses.numpy()
    screen = np.empty((*points.shape[:-1], 2))
    for camera, rows in _by_camera(store, windows):
        screen[rows] = project(points[rows], camera)
    return torch.from_numpy(screen)


def _by_camera(store: Store, windows: Windows) -> list[tuple[Camera, np.ndarray]]:
    """Each camera, and the rows of the windows that it filmed."""
    texts = [store.sequences[index].camera_parameters for index in windows.sequence]
    firsts = {text: store.sequences[index] for text, index in zip(texts, windows.sequence, strict=True)}
    rows = np.array(texts, dtype=object)
    return [(_camera(sequence, "root"), np.flatnonzero(rows == text)) for text, sequence in firsts.items()]


def _camera(sequence: Sequence, asked: str) -> Camera:
    try:
        return Camera.from_plain(json.loads(sequence.camera_parameters))
    except ValueError as error:
        raise ValueError(
            f"evaluation.aggregation = {asked} projects poses, but the store has no usable camera for sequence "
            f"{sequence.name}: {error}"
        ) from None
