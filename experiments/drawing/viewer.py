"""A page with a skeleton that can be turned by hand: one file, without network, drawn on a canvas by our own script.

A plotting library that draws in space would add three megabytes to each file, and does neither play nor mark hidden
joints; the script in `viewer.html` has eleven kilobytes.
"""

import html
import json
from pathlib import Path
from typing import Any

import numpy as np

from posegrid.datasets.keypoints.pose_files import PoseClip
from posegrid.experiments.drawing.palette import SIDES, TRUTH
from posegrid.experiments.drawing.panels import input_crop, limits

_TEMPLATE = Path(__file__).parent / "viewer.html"


def page(clip: PoseClip, frames: np.ndarray, per_second: float) -> str:
    """HTML text that shows rows `frames` of a clip, `per_second` of them in a second."""
    rows, skeleton = clip.rows, clip.skeleton
    low, high = limits(clip)
    corner, side = input_crop(clip)
    several, known = rows.hypotheses_mm is not None, rows.truth_mm is not None
    content: dict[str, Any] = {
        "joints": skeleton.joints,
        "parents": skeleton.parents,
        "left": skeleton.left,
        "right": skeleton.right,
        "colours": {**SIDES, "truth": TRUTH},
        "per_second": per_second,
        "frames": rows.frame[frames].tolist(),
        "seconds": rows.time_s[frames].round(4).tolist(),
        "visible": ["".join("01"[int(seen)] for seen in row) for row in rows.visible[frames]],
        "keypoints": _whole(rows.keypoints_px[frames], 1),
        "poses": _whole(rows.poses_mm[frames]),
        "truth": _whole(rows.truth_mm[frames]) if rows.truth_mm is not None else None,
        "hypotheses": _whole(rows.hypotheses_mm[frames]) if rows.hypotheses_mm is not None else None,
        "several": rows.hypotheses_mm.shape[1] if rows.hypotheses_mm is not None else 1,
        "spread": None if rows.deviation_mm is None else _numbers(rows.deviation_mm[frames].mean(axis=1)),
        "error": None,
        "low": low.round().tolist(),
        "high": high.round().tolist(),
        "crop": [*corner.round(1).tolist(), round(side, 1)],
        "size": [clip.width, clip.height],
    }
    if rows.truth_mm is not None:
        errors = np.linalg.norm(rows.poses_mm[frames] - rows.truth_mm[frames], axis=-1).mean(axis=1)
        content["error"] = _numbers(errors)
    about = clip.about.get("model", {})
    shown = ["poses relative to the root joint", *(["hypotheses as dots"] if several else [])]
    note = f"Lifted by {about.get('recipe', 'a model')}; {', '.join(shown)}{', truth dashed' if known else ''}."
    text = _TEMPLATE.read_text(encoding="utf-8")
    # a video may be called </script>
    data = json.dumps(content, separators=(",", ":")).replace("<", "\\u003c")
    title = html.escape(f"{clip.video}, person {clip.person}")
    return text.replace("__TITLE__", title).replace("__NOTE__", html.escape(note)).replace("__DATA__", data)


def _whole(values: np.ndarray, digits: int = 0) -> list[list[float | None]]:
    """A row of numbers for each frame, NaN as null."""
    return [_numbers(row, digits) for row in values.reshape(len(values), -1)]


def _numbers(row: np.ndarray, digits: int = 0) -> list[float | None]:
    rounded = np.round(row.astype(np.float64), digits).tolist()
    return [None if value != value else int(value) if digits == 0 else value for value in rounded]
