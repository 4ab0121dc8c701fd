"""The npz that VideoPose3D's prepare_data_2d_custom.py makes of Detectron's output.

`positions_2d`: video -> "custom" -> list of (F, 17, 2) float32 pixels; `metadata`: `layout_name` "coco", `num_joints`,
`keypoints_symmetry` and `video_metadata`: video -> `w`, `h`. The script keeps the best person of a frame, interpolates
frames without one and drops the scores: all confidences are 1. Several arrays in a list are several cameras.
"""

from pathlib import Path
from typing import Any

import numpy as np

from posegrid.datasets.keypoints.tracks import Detections
from posegrid.datasets.readers.keypoint_json import skeleton_of_file
from posegrid.datasets.skeletons import skeleton_named
from posegrid.datasets.unpickling.restricted_pickle import read_npz

_LAYOUTS = {"coco": "coco_17", "h36m": "h36m_17"}


def read_custom_npz(file: Path, joints: str = "auto") -> list[Detections]:
    """The videos of a file. Raises ValueError if it is damaged, laid out differently, or holds anything that would run
    code when unpickled."""
    content = read_npz(file, ["positions_2d", "metadata"])
    positions, metadata = content["positions_2d"], content["metadata"]
    if not isinstance(positions, dict) or not positions or not isinstance(metadata, dict):
        raise _unlike(file, f"positions_2d is {_kind(positions)}, metadata is {_kind(metadata)}")
    layout = metadata.get("layout_name")
    if joints == "auto":
        if not isinstance(layout, str) or layout not in _LAYOUTS:
            raise ValueError(
                f"{file}: metadata gives the layout_name {layout!r}; known are {', '.join(_LAYOUTS)}. Name the "
                "skeleton with --option joints=NAME."
            )
        joints = _LAYOUTS[layout]
    sizes = metadata.get("video_metadata")
    found = []
    for video, actions in positions.items():
        if not isinstance(actions, dict):
            raise _unlike(file, f"positions_2d[{video!r}] is {_kind(actions)}")
        size = sizes.get(video) if isinstance(sizes, dict) else None
        width, height = (size.get("w"), size.get("h")) if isinstance(size, dict) else (None, None)
        for action, views in actions.items():
            if not isinstance(views, list | tuple | np.ndarray) or not len(views):
                raise _unlike(file, f"positions_2d[{video!r}][{action!r}] is {_kind(views)}")
            for number, view in enumerate(views):
                skeleton = skeleton_named(joints)
                where = f"positions_2d[{video!r}][{action!r}][{number}]"
                if not isinstance(view, np.ndarray) or view.ndim != 3 or view.shape[2] != 2 or view.dtype.kind != "f":
                    raise _unlike(file, f"{where} is {_kind(view)}")
                if not len(view):
                    raise _unlike(file, f"{where} has no frames")
                skeleton_of_file(file, joints, view.shape[1])
                found.append(
                    Detections(
                        video=str(video) if action == "custom" else f"{video} {action}",
                        file=str(file),
                        skeleton=skeleton,
                        frames=np.arange(len(view)),
                        people=None,
                        points=view[:, : len(skeleton)].astype(np.float64),
                        confidence=np.ones((len(view), len(skeleton))),
                        camera="own" if len(views) == 1 else f"own_{number + 1}",
                        width=_pixels(file, video, width),
                        height=_pixels(file, video, height),
                    )
                )
    return found


def _pixels(file: Path, video: Any, value: Any) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value <= 0:
        raise ValueError(
            f"{file}: video_metadata of {video} gives the size {value!r}; expected positive whole pixels. Correct it, "
            "or give --option width=W --option height=H."
        )
    return int(value)


def _unlike(file: Path, what: str) -> ValueError:
    return ValueError(
        f"{file}: {what}; expected a dictionary of videos that hold a dictionary with a list of float arrays "
        "(frames, joints, 2). Make it with prepare_data_2d_custom.py of VideoPose3D."
    )


def _kind(value: Any) -> str:
    return f"{value.dtype} {value.shape}" if isinstance(value, np.ndarray) else type(value).__name__
