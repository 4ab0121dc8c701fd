"""Scored windows as SVG skeletons: the 2D input, the pose from the front and from the side, with the truth.

Colours are those of every drawing of posegrid: sides of the body; hidden joints are hollow, their bones dotted.
"""

import io

import numpy as np
from markupsafe import Markup

from posegrid.datasets.cameras import screen_to_pixels
from posegrid.datasets.keypoints.pose_files import PoseClip, PoseRows
from posegrid.datasets.skeletons import Skeleton
from posegrid.experiments.drawing.palette import SIDES, TRUTH, hidden_words, sides_of
from posegrid.experiments.drawing.viewer import page

_WIDE, _TALL, _GAP = 140.0, 190.0, 14.0
"""A panel, which people fill better upright than a square one, and the space between panels."""
_TOP = 20.0
"""Above the panels, for their titles."""
_VIEWS = (("front", 0), ("side", 2))
"""View and the axis of the camera that runs across."""
NAMES = ("best", "median", "worst")


def turning_view(content: bytes, skeleton: Skeleton, model: str, which: int = 2) -> Markup | None:
    """A window of an examples.npz, by default the worst, as a page within the page that can be played and turned by
    hand; None where older runs do not say how fast it moves."""
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        if "frame_rate" not in arrays or len(arrays["frame_rate"]) <= which:
            return None
        one = {name: arrays[name][which] for name in arrays.files}
    subject, _, place = str(one["recording"]).partition("/")
    width, height = (int(side) or 1000 for side in one["size"])
    count, rate, root = len(one["visible"]), float(one["frame_rate"]), skeleton.root
    pixels = np.where(one["visible"][..., None], screen_to_pixels(one["keypoints"], width, height), np.nan)
    rows = PoseRows(
        frame=one["start"] + one["stride"] * np.arange(count),
        time_s=np.arange(count) / rate,
        keypoints_px=pixels.astype(np.float32),
        poses_mm=1000 * (one["predicted"] - one["predicted"][:, [root]]),
        truth_mm=1000 * (one["target"] - one["target"][:, [root]]),
    )
    clip = PoseClip(
        video=place,
        person=subject,
        skeleton=skeleton,
        frame_rate=rate,
        width=width,
        height=height,
        rows=rows,
        about={"model": {"recipe": model}},
    )
    inner = page(clip, np.arange(count), rate)
    frame = '<iframe class="turn" loading="lazy" sandbox="allow-scripts" title="{}" srcdoc="{}"></iframe>'
    return Markup(frame).format(f"{NAMES[which]} window of {model}", inner)


def draw_examples(content: bytes, skeleton: Skeleton) -> list[tuple[str, Markup]]:
    """(what it shows, drawing) of the best, median and worst window of an examples.npz, at one frame each.

    The frame with most hidden joints says most; the middle one where nothing is hidden.
    """
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        keypoints, visible, predicted, target = (
            arrays[name] for name in ("keypoints", "visible", "predicted", "target")
        )
        recordings = arrays["recording"] if "recording" in arrays else [""] * len(keypoints)
    hidden = (~visible).sum(axis=2)
    frames = np.where(hidden.max(axis=1) > 0, hidden.argmax(axis=1), keypoints.shape[1] // 2)
    errors = 1000 * np.linalg.norm(predicted - target, axis=-1).mean(axis=(1, 2))
    found = []
    for which, (name, frame) in enumerate(zip(NAMES, frames, strict=False)):
        seen = visible[which, frame]
        now = 1000 * np.linalg.norm(predicted[which, frame] - target[which, frame], axis=-1).mean()
        words = (
            f"{name} window, {errors[which]:.0f} mm; frame {frame + 1} of {keypoints.shape[1]}: {now:.0f} mm, "
            f"{hidden_words(~seen, skeleton)}" + (f"; {recordings[which]}" if recordings[which] else "")
        )
        drawing = _panels(keypoints[which, frame], seen, predicted[which, frame], target[which, frame], skeleton)
        found.append((words, drawing))
    return found


def key() -> Markup:
    """What the signs mean."""
    parts = [_key_line(colour, "", name) for name, colour in (("left", SIDES["left"]), ("right", SIDES["right"]))]
    parts += [_key_line(SIDES["middle"], "", "middle"), _key_line(TRUTH, "5 3", "truth")]
    circle = f'<circle cx="13" cy="6" r="4" fill="#FFFFFF" stroke="{SIDES["middle"]}" stroke-width="2"/>'
    dotted = f'<line x1="0" y1="6" x2="26" y2="6" stroke="{SIDES["middle"]}" stroke-width="2" stroke-dasharray="2 3"/>'
    parts.append(_key_entry(dotted + circle, "hidden from the model"))
    return Markup("").join(parts)


def _key_line(colour: str, dash: str, name: str) -> Markup:
    dashed = f' stroke-dasharray="{dash}"' if dash else ""
    return _key_entry(f'<line x1="0" y1="6" x2="26" y2="6" stroke="{colour}" stroke-width="3"{dashed}/>', name)


def _key_entry(drawing: str, name: str) -> Markup:
    box = '<span class="entry"><svg width="26" height="12" viewBox="0 0 26 12" aria-hidden="true">{}</svg> {}</span> '
    return Markup(box).format(Markup(drawing), name)


def _panels(
    keypoints: np.ndarray, visible: np.ndarray, predicted: np.ndarray, target: np.ndarray, skeleton: Skeleton
) -> Markup:
    seen = keypoints[visible]
    scale = _scale(np.ptp(seen, axis=0)) if len(seen) else 1.0
    parts = [_title(0, "input"), *_pose(_placed(seen, keypoints, 0, scale), visible, skeleton, guessed=False)]
    truth, pose = target - target[skeleton.root], predicted - predicted[skeleton.root]
    # one scale for both views, so that a person is as tall in the one as in the other
    everything = np.concatenate([truth, pose])
    reach = np.ptp(everything, axis=0)
    scale = _scale(np.array([max(reach[0], reach[2]), reach[1]]))
    for number, (view, across) in enumerate(_VIEWS, start=1):
        axes = [across, 1]
        frame = everything[:, axes]
        parts.append(_title(number, view))
        parts += _bones(_placed(frame, truth[:, axes], number, scale), skeleton, TRUTH, "5 3", 1.5)
        parts += _pose(_placed(frame, pose[:, axes], number, scale), visible, skeleton, guessed=True)
        if number == 1:
            parts.append(_ruler(number, scale))
    width = 3 * _WIDE + 2 * _GAP
    return Markup(
        f'<svg class="pose" viewBox="0 0 {width:g} {_TOP + _TALL:g}" role="img" aria-label="2D input and 3D pose">'
        + "".join(parts)
        + "</svg>"
    )


def _scale(reach: np.ndarray) -> float:
    """Drawn units for one of the pose, so that what reaches so far (across, down) fills a panel."""
    return float(((np.array([_WIDE, _TALL]) - 24) / np.maximum(reach, 1e-6)).min())


def _placed(frame: np.ndarray, points: np.ndarray, number: int, scale: float) -> np.ndarray:
    """Points (n, 2) on panel `number`, with the middle of `frame` in its middle."""
    if not len(frame):
        return np.full((len(points), 2), np.nan)
    middle = (frame.min(axis=0) + frame.max(axis=0)) / 2
    return (points - middle) * scale + [number * (_WIDE + _GAP) + _WIDE / 2, _TOP + _TALL / 2]


def _pose(points: np.ndarray, visible: np.ndarray, skeleton: Skeleton, *, guessed: bool) -> list[str]:
    """A pose by sides; joints that were not seen only if they are `guessed`."""
    side = {int(joint): name for name, joints in sides_of(skeleton).items() for joint in np.flatnonzero(joints)}
    parts = []
    for child, parent in skeleton.bones:
        seen = bool(visible[child] and visible[parent])
        if seen or guessed:
            parts.append(_stroke(points[child], points[parent], SIDES[side[child]], "" if seen else "2 3", 2.6))
    for joint in range(len(skeleton)):
        if visible[joint] or guessed:
            paint = SIDES[side[joint]]
            fill, r = (paint, 2.6) if visible[joint] else ("#FFFFFF", 4.0)
            parts.append(
                f'<circle cx="{points[joint, 0]:.1f}" cy="{points[joint, 1]:.1f}" r="{r:g}" fill="{fill}" '
                f'stroke="{paint}" stroke-width="1.6"/>'
            )
    return parts


def _bones(points: np.ndarray, skeleton: Skeleton, colour: str, dash: str, width: float) -> list[str]:
    return [_stroke(points[child], points[parent], colour, dash, width) for child, parent in skeleton.bones]


def _stroke(first: np.ndarray, last: np.ndarray, colour: str, dash: str, width: float) -> str:
    dashed = f' stroke-dasharray="{dash}"' if dash else ""
    return (
        f'<line x1="{first[0]:.1f}" y1="{first[1]:.1f}" x2="{last[0]:.1f}" y2="{last[1]:.1f}" stroke="{colour}" '
        f'stroke-width="{width:g}" stroke-linecap="round"{dashed}/>'
    )


def _title(number: int, words: str) -> str:
    return f'<text x="{number * (_WIDE + _GAP) + _WIDE / 2:.1f}" y="14" text-anchor="middle">{words}</text>'


def _ruler(number: int, scale: float) -> str:
    """A line of half a metre."""
    length = 0.5 * scale
    left, at = number * (_WIDE + _GAP) + _WIDE + _GAP / 2 - length / 2, _TOP + _TALL - 4
    return (
        f'<line x1="{left:.1f}" y1="{at:g}" x2="{left + length:.1f}" y2="{at:g}" stroke="#333333" stroke-width="1.5"/>'
        f'<text x="{left + length / 2:.1f}" y="{at - 4:g}" text-anchor="middle">0.5 m</text>'
    )
