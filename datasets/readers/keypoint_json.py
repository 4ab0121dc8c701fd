"""Keypoints in JSON as COCO tools, AlphaPose and MMPose write them.

| format | content | who | which frame | missing joints |
|---|---|---|---|---|
| COCO results | list of `image_id`, `keypoints` [x, y, score, ...] | `track_id` if given | `image_id` | score 0 |
| COCO annotations | `images`, `annotations` with `keypoints` [x, y, v, ...] | `track_id` if given | image | v = 0 |
| AlphaPose | list of `image_id` "12.jpg", `keypoints` [x, y, score, ...] | `idx` | `image_id` | score 0 |
| MMPose | `meta_info`, `instance_info` of `frame_id`, `instances` | `track_id` if given | `frame_id` | score 0 |

A text `image_id` or file name counts with its last number. Annotated images belong to the video of their folder, or of
their `video_id`; their frame is `frame_id` or the number in the file name; v = 1 (hidden, but marked) and 2 count as
confidence 1. Also read: the plain list of frames that MMPose's inferencer writes. Nothing in such a file is run.
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from posegrid.datasets.keypoints.tracks import Detections
from posegrid.datasets.readers.joint_names import BY_COUNT, skeleton_of_names
from posegrid.datasets.skeletons import Skeleton, skeleton_named

FORMATS = ("coco", "alphapose", "mmpose")
_NUMBERS = {int, float, type(None)}
"""Types of the entries of a list of numbers; not bool, not text."""


def load_json(file: Path) -> Any:
    """What a JSON file holds. Raises ValueError if it cannot be read."""
    try:
        return json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(
            f"{file} cannot be read as JSON ({type(error).__name__}: {error}). Fetch or make it again."
        ) from None


def json_format(content: Any) -> str | None:
    """ "coco", "alphapose" or "mmpose" by the look of what a file holds, None for anything else."""
    if isinstance(content, dict):
        if "instance_info" in content:
            return "mmpose"
        return "coco" if "annotations" in content and "images" in content else None
    if isinstance(content, list) and content and isinstance(content[0], dict):
        if "instances" in content[0]:
            return "mmpose"
        if {"image_id", "keypoints"} <= set(content[0]):
            return "alphapose" if isinstance(content[0]["image_id"], str) else "coco"
    return None


def read_keypoint_json(file: Path, format_name: str = "auto", joints: str = "auto") -> list[Detections]:
    """The videos of a file, sorted by name.

    format_name: one of `FORMATS`, or "auto": by content. joints: name of the skeleton of the keypoints, or "auto": by
    the file's joint names, otherwise by their number. Raises ValueError for anything that is not as documented above.
    """
    content = load_json(file)
    found = json_format(content) if format_name == "auto" else format_name
    try:
        if found == "mmpose":
            return _mmpose(file, content, joints)
        if found in ("coco", "alphapose"):
            return _annotations(file, content, joints) if isinstance(content, dict) else [_list(file, content, joints)]
    except (KeyError, TypeError, AttributeError, IndexError, OverflowError) as error:
        raise ValueError(
            f"{file} is not laid out like a keypoint file of the format {found} ({type(error).__name__}: {error}). "
            "Expected is what the tool itself writes: make it again, or name its format with --option format=NAME."
        ) from None
    raise ValueError(
        f"{file} holds no keypoints in a known layout (top level: {type(content).__name__}"
        f"{' of ' + ', '.join(sorted(map(str, content))[:8]) if isinstance(content, dict) else ''}). "
        f"Known are COCO results and annotations, AlphaPose and MMPose. Make it with one of these, or as a table."
    )


def skeleton_of_file(file: Path, joints: str, count: int, names: Sequence[str] | None = None) -> Skeleton:
    """The skeleton of keypoints of which a person has `count`. Raises ValueError if it is not known."""
    if joints != "auto":
        skeleton = skeleton_named(joints)
        if len(skeleton) > count or (len(skeleton) < count and BY_COUNT.get(count) != joints):
            raise ValueError(
                f"{file} has {count} keypoints a person, but {joints} (option joints) has {len(skeleton)} joints. "
                "Name the skeleton of the file, or leave joints at auto."
            )
        return skeleton
    by_name = skeleton_of_names(names) if names else None
    if by_name is not None:
        return by_name
    if names and count == 17:
        raise ValueError(
            f"{file}: the joints {', '.join(map(str, names))} are not those of a known skeleton. Known: "
            "COCO-17, Human3.6M-17, Halpe-26. Name the skeleton with --option joints=NAME if only the names differ."
        )
    if count not in BY_COUNT:
        raise ValueError(
            f"{file} has {count} keypoints a person; known are {', '.join(map(str, BY_COUNT))}. Name the skeleton with "
            "--option joints=NAME, or write the keypoints as a table."
        )
    return skeleton_named(BY_COUNT[count])


def numbers(file: Path, rows: Sequence[Any], what: str, columns: int | None = None) -> np.ndarray:
    """(N, columns) float64 from N lists of equal length. Raises ValueError naming the first entry that differs."""
    wanted = columns if columns is not None else len(rows[0]) if isinstance(rows[0], list) else "several"
    plain = all(isinstance(row, list) and len(row) == wanted and set(map(type, row)) <= _NUMBERS for row in rows)
    try:
        if plain:
            return np.array(rows, dtype=np.float64)
    except OverflowError:  # whole numbers in JSON have any size
        pass
    unlike = (
        (place, row)
        for place, row in enumerate(rows)
        if not isinstance(row, list)
        or len(row) != wanted
        or not set(map(type, row)) <= _NUMBERS
        or any(isinstance(value, int) and abs(value) > 1e300 for value in row)
    )
    place, row = next(unlike, (0, rows[0]))
    raise ValueError(
        f"{file}: entry {place} has {what} {str(row)[:80]}; expected a list of {wanted} numbers, as many in every "
        "entry. Correct or remove it."
    )


def _list(file: Path, content: list[dict[str, Any]], joints: str) -> Detections:
    """COCO results and AlphaPose: the whole file is one video, named like the file."""
    return _triplets(
        file,
        file.stem,
        [entry["keypoints"] for entry in content],
        [_number(file, entry["image_id"], f"entry {place}, image_id") for place, entry in enumerate(content)],
        _people(file, content),
        joints,
    )


def _triplets(
    file: Path, video: str, rows: list[Any], frames: list[int], people: np.ndarray | None, joints: str, **more: Any
) -> Detections:
    values = numbers(file, rows, "keypoints")
    if values.shape[1] % 3:
        raise ValueError(
            f"{file}: keypoints are lists of {values.shape[1]} numbers; expected x, y and score of each joint, a "
            "multiple of three. Write the scores too."
        )
    skeleton = skeleton_of_file(file, joints, values.shape[1] // 3)
    values = values.reshape(len(values), -1, 3)[:, : len(skeleton)]
    return Detections(
        video=video,
        file=str(file),
        skeleton=skeleton,
        frames=np.array(frames, dtype=np.int64),
        people=people,
        points=values[..., :2],
        confidence=values[..., 2],
        **more,
    )


def _annotations(file: Path, content: dict[str, Any], joints: str) -> list[Detections]:
    images = {image["id"]: image for image in content["images"]}
    videos: dict[str, list[dict[str, Any]]] = {}
    for entry in content["annotations"]:
        # entries without keypoints, or without a marked one, are boxes only
        if entry.get("keypoints") is None or entry["keypoints"] == [0] * len(entry["keypoints"]):
            continue
        if entry["image_id"] not in images:
            raise ValueError(
                f"{file}: annotation {entry.get('id')} is of image {entry['image_id']}, which is not in images. "
                "Add the image or remove the annotation."
            )
        image = images[entry["image_id"]]
        folder = PurePosixPath(str(image.get("file_name", ""))).parent.as_posix()
        video = str(image["video_id"]) if "video_id" in image else folder
        videos.setdefault(file.stem if video == "." else video, []).append(entry)
    if not videos:
        raise ValueError(f"{file} has no annotation with a marked keypoint. Choose a file with keypoints.")
    found = []
    for video, entries in sorted(videos.items()):
        shown = [images[entry["image_id"]] for entry in entries]
        sizes = {(image["width"], image["height"]) for image in shown if "width" in image and "height" in image}
        if len(sizes) > 1:
            raise ValueError(
                f"{file}: images of the video {video} have the sizes {sorted(sizes)[:4]} (width, height); frames of a "
                "video have one size. Put each video into its own folder or file."
            )
        width, height = sizes.pop() if sizes else (None, None)
        frames = [
            _number(file, image.get("frame_id", image.get("file_name")), f"image {image['id']}, frame")
            for image in shown
        ]
        part = _triplets(
            file,
            video,
            [entry["keypoints"] for entry in entries],
            frames,
            _people(file, entries),
            joints,
            width=width,
            height=height,
        )
        found.append(part)
    return [_marked(part) for part in found]


def _marked(part: Detections) -> Detections:
    """v = 1 and v = 2 are cut to 1 by `Detections` already; anything else between is no annotation."""
    if not np.isin(part.confidence, (0.0, 1.0)).all():
        raise ValueError(
            f"{part.file}: visibilities of annotated keypoints must be 0, 1 or 2, found others in video {part.video}. "
            "If these are scores of a detector, write its results as a list."
        )
    return part


def _mmpose(file: Path, content: Any, joints: str) -> list[Detections]:
    frames = content["instance_info"] if isinstance(content, dict) else content
    meta = content.get("meta_info") if isinstance(content, dict) else None
    names = list((meta or {}).get("keypoint_id2name", {}).values()) or None
    rows, scores, numbers_of, instances = [], [], [], []
    for place, frame in enumerate(frames):
        number = _number(file, frame["frame_id"], f"frame entry {place}, frame_id")
        for instance in frame["instances"]:
            rows.append([value for point in instance["keypoints"] for value in point])
            scores.append(instance["keypoint_scores"])
            numbers_of.append(number)
            instances.append(instance)
    if not rows:
        raise ValueError(f"{file} has no instance in any of {len(frames)} frames: nothing was detected. Leave it out.")
    confidence = numbers(file, scores, "keypoint_scores")
    points = numbers(file, rows, "keypoints", 2 * confidence.shape[1]).reshape(*confidence.shape, 2)
    skeleton = skeleton_of_file(file, joints, confidence.shape[1], names)
    looked_at = [int(frame["frame_id"]) for frame in frames]
    return [
        Detections(
            video=file.stem,
            file=str(file),
            skeleton=skeleton,
            frames=np.array(numbers_of, dtype=np.int64),
            people=_people(file, instances),
            points=points[:, : len(skeleton)],
            confidence=confidence[:, : len(skeleton)],
            span=(min(looked_at), max(looked_at)),
        )
    ]


def track_label(value: Any) -> str | None:
    """Text for a track number (or name), also where it stands in lists; None for anything else."""
    while isinstance(value, list) and value:
        value = value[0]
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value) if isinstance(value, int | str) and not isinstance(value, bool) else None


def _people(file: Path, entries: list[dict[str, Any]]) -> np.ndarray | None:
    """Track numbers (AlphaPose: idx, at times in a list; others: track_id), None if no entry has one."""
    labels = [entry.get("idx", entry.get("track_id")) for entry in entries]
    if all(label is None for label in labels):
        return None
    for place, label in enumerate(labels):
        name = track_label(label)
        if name is None:
            raise ValueError(
                f"{file}: entry {place} has the track {str(label)[:80]} while others have numbers. Every detection "
                "needs a track number, or none: complete the tracking or remove it from the file."
            )
        labels[place] = name
    return np.array(labels)


def _number(file: Path, value: Any, where: str) -> int:
    """A frame number, or the last number in a text such as "video_000012.jpg"."""
    if isinstance(value, str):
        digits = re.findall(r"\d+", PurePosixPath(value).stem)
        value = int(digits[-1][-18:]) if digits else None
    elif isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or abs(value) > 10**15:
        raise ValueError(
            f"{file}: {where} gives no frame number; expected a number or a name that ends in one, such as "
            '"000012.jpg". Number the frames.'
        )
    return value
