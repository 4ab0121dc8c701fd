"""A folder that OpenPose wrote with --write_json: one file a frame, `NAME_000000000012_keypoints.json`.

Each file has `people`, each with `pose_keypoints_2d` [x, y, score, ...] in pixels; joints that were not found are 0, 0
with score 0. 25 joints are BODY_25, 18 the COCO model. `person_id` is [-1] unless OpenPose tracked people.
"""

import re
from pathlib import Path

import numpy as np

from posegrid.datasets.keypoints.tracks import Detections
from posegrid.datasets.readers.keypoint_json import load_json, numbers, skeleton_of_file, track_label

_NAME = re.compile(r"(?P<video>.*?)_?(?P<frame>\d+)_keypoints\.json$")


def video_of(file: Path) -> str | None:
    """Name of the video that a frame's file belongs to (its folder's, if the file has only a number), None for files
    that OpenPose does not name like this."""
    match = _NAME.match(file.name)
    return (match["video"] or file.parent.name) if match else None


def frame_files(folder: Path) -> dict[str, list[Path]]:
    """Video -> files of its frames, in order; several videos may share a folder."""
    videos: dict[str, list[tuple[int, Path]]] = {}
    for file in sorted(folder.glob("*_keypoints.json")):
        video, match = video_of(file), _NAME.match(file.name)
        if video is not None and match:
            videos.setdefault(video, []).append((int(match["frame"]), file))
    return {video: [file for _, file in sorted(files)] for video, files in sorted(videos.items())}


def read_openpose(video: str, files: list[Path], joints: str = "auto") -> Detections:
    """The people in the frames of one video. Raises ValueError if a file is damaged or nobody was found."""
    rows, frames, people = [], [], []
    looked_at = [int(match["frame"]) for file in files if (match := _NAME.match(file.name))]
    for number, file in zip(looked_at, files, strict=True):
        content = load_json(file)
        try:
            for person in content["people"]:
                keypoints = person["pose_keypoints_2d"]
                rows.append(keypoints)
                frames.append(number)
                # without tracking it is [-1], in old versions absent
                given = person.get("person_id")
                label = track_label(-1 if given in (None, []) else given)
                if label is None:
                    raise TypeError(f"person_id is {str(given)[:80]}")
                people.append(label)
                numbers(file, [keypoints], "pose_keypoints_2d")
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f"{file} is not laid out as OpenPose writes it ({type(error).__name__}: {error}); expected `people` "
                "with `pose_keypoints_2d`. Run OpenPose with --write_json again."
            ) from None
    folder = files[0].parent
    if not rows:
        raise ValueError(
            f"{folder}: OpenPose found nobody in the {len(files)} frames of {video}. Leave this video out."
        )
    values = numbers(folder, rows, "pose_keypoints_2d")
    if values.shape[1] % 3:
        raise ValueError(
            f"{folder}: pose_keypoints_2d has {values.shape[1]} numbers; expected x, y and score of each joint. "
            "Run OpenPose with --write_json again."
        )
    skeleton = skeleton_of_file(folder, joints, values.shape[1] // 3)
    values = values.reshape(len(values), -1, 3)
    return Detections(
        video=video,
        file=str(folder),
        skeleton=skeleton,
        frames=np.array(frames, dtype=np.int64),
        people=np.array(people) if all(label != "-1" for label in people) else None,
        points=values[..., :2],
        confidence=values[..., 2],
        span=(min(looked_at), max(looked_at)),
    )
