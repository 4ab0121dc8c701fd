"""Keypoint files of one's own: JSON, OpenPose's folders, tables, VideoPose3D's npz.

None but the npz has checksums. The judges take every joint that was seen (confidence above 0) out of the damaged file,
with its video and frame, and compare it with what was read; joints that were not seen are interpolated and must be
finite. The judges split files by the standard library alone.
"""

import csv
import json
import re
import tomllib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from fuzzing.columns import columns
from fuzzing.damage import json_node, retyped, words
from fuzzing.formats import Format, Values, of_sequences
from fuzzing.pickles import hostile_pickles, in_npz, npz_bombs

from posegrid.datasets.skeletons import COCO_17
from posegrid.datasets.sources import keypoints

_SIZE = {"width": 640, "height": 480, "frame_rate": 25.0}
Seen = tuple[str, int, int, float, float, float]
"""Video, frame, joint, x, y in pixels, confidence."""


def _made_up(joints: int, frames: int = 5, seed: int = 0) -> np.ndarray:
    """(F, J, 3): pixels and scores."""
    generator = np.random.default_rng(seed)
    points = generator.uniform([200, 100], [440, 380], (joints, 2))
    points = points + generator.normal(size=(frames, joints, 2)).cumsum(axis=0) * 3
    return np.concatenate([points, generator.uniform(0.3, 1, (frames, joints, 1))], axis=-1).round(3)


def _read(options: dict[str, Any], folder: Path) -> Values:
    config = keypoints.Config(**options)
    recordings = keypoints.list_recordings(config, folder)
    return of_sequences(sequence for found in recordings for sequence in keypoints.read_recording(config, found))


def _judge(seen: Any, folder: Path, values: Values) -> str:
    """`seen` gives (frames that were looked at by video, all that was seen) of a folder."""
    try:
        looked_at, expected = seen(folder)
    except Exception as error:
        return f"read, but an independent parse says {type(error).__name__}: {error}"
    found = []
    for name in values:
        if not name.endswith(" keypoints"):
            continue
        title = name.removesuffix(" keypoints")
        points, confidence = values[name], values[f"{title} confidence"]
        width, height = (values[f"{title} {side}"] for side in ("width", "height"))
        if not (np.isfinite(points).all() and np.isfinite(confidence).all() and (confidence <= 1).all()):
            return f"{title} is not finite"
        recording = title.split("/")[1]
        video, _, later = recording.partition(" from frame ")
        first = int(later) if later else min(looked_at[video])
        for frame, joint in np.argwhere(confidence > 0):
            x, y = points[frame, joint]
            pixels = (x + 1) * width / 2, y * width / 2 + height / 2
            found.append((video, int(frame) + first, int(joint), *pixels, confidence[frame, joint]))
    if len(found) != len(expected):
        return f"{len(found)} joints seen, an independent parse finds {len(expected)}"
    for one, other in zip(sorted(found), sorted(expected), strict=True):
        if one[:3] != other[:3] or not np.allclose(one[3:], other[3:], rtol=1e-4, atol=1e-2):
            return f"joint {one}, an independent parse finds {other}"
    return ""


def _of_triplets(video: str, frame: int, triplets: list[Any], joints: int) -> Iterator[Seen]:
    for joint in range(joints):
        x, y, score = triplets[3 * joint : 3 * joint + 3]
        if score is not None and score > 0:
            yield video, frame, joint, x, y, min(score, 1.0)


def _last_number(value: Any) -> int:
    """A number, or the last one in a file's name without its ending."""
    if not isinstance(value, str):
        return int(value)
    name = value.split("/")[-1]
    return int(re.findall(r"\d+", name.rpartition(".")[0] or name)[-1])


def _put_json(name: str, folder: Path, content: Any) -> None:
    (folder / name).write_text(json.dumps(content))


def _deep_json(name: str, folder: Path, mark: Path) -> None:
    (folder / name).write_text("[" * 200_000 + "]" * 200_000)


def _long_numbers(name: str, folder: Path, mark: Path) -> None:
    (folder / name).write_text(f'[{{"image_id": {"9" * 4000}, "keypoints": [{"9" * 4000}]}}]')


# -- JSON -------------------------------------------------------------------------------------------------------------


def _coco() -> Any:
    return [
        {"image_id": number + 3, "category_id": 1, "track_id": 1, "keypoints": frame.ravel().tolist(), "score": 0.9}
        for number, frame in enumerate(_made_up(17))
    ]


def _alphapose() -> Any:
    return [
        {"image_id": f"{number:06d}.jpg", "category_id": 1, "idx": 4, "keypoints": frame.ravel().tolist(), "score": 2.1}
        for number, frame in enumerate(_made_up(26))
    ]


def _seen_in_list(folder: Path, joints: int) -> tuple[dict[str, list[int]], list[Seen]]:
    entries = json.loads((folder / "clip.json").read_text())
    frames = [_last_number(entry["image_id"]) for entry in entries]
    seen = [
        found
        for entry, frame in zip(entries, frames, strict=True)
        for found in _of_triplets("clip", frame, entry["keypoints"], joints)
    ]
    return {"clip": frames}, seen


def _annotated() -> Any:
    images = [
        {"id": number + 10, "file_name": f"clip/{number:04d}.jpg", "width": 640, "height": 480} for number in range(5)
    ]
    marked = np.concatenate([_made_up(17)[..., :2], np.full((5, 17, 1), 2)], axis=-1)
    marked[0, 3, 2], marked[1, 4] = 1, 0
    annotations = [
        {"id": number, "image_id": number + 10, "category_id": 1, "track_id": 7, "keypoints": frame.ravel().tolist()}
        for number, frame in enumerate(marked)
    ]
    return {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "person"}]}


def _seen_annotated(folder: Path) -> tuple[dict[str, list[int]], list[Seen]]:
    content = json.loads((folder / "marked.json").read_text())
    images = {image["id"]: image for image in content["images"]}
    frames: dict[str, list[int]] = {}
    seen = []
    for entry in content["annotations"]:
        if not any(entry.get("keypoints") or []):
            continue
        image = images[entry["image_id"]]
        above = str(image.get("file_name", "")).rpartition("/")[0] or "marked"
        video = str(image.get("video_id", above)).replace("/", "_")
        frame = _last_number(image.get("frame_id", image.get("file_name")))
        frames.setdefault(video, []).append(frame)
        seen += _of_triplets(video, frame, entry["keypoints"], 17)
    return frames, seen


def _mmpose() -> Any:
    frames = []
    for number, frame in enumerate(_made_up(17)):
        instance = {"keypoints": frame[:, :2].tolist(), "keypoint_scores": frame[:, 2].tolist(), "bbox_score": 0.9}
        frames.append({"frame_id": number + 1, "instances": [instance]})
    return {"meta_info": {"dataset_name": "coco"}, "instance_info": frames}


def _seen_mmpose(folder: Path) -> tuple[dict[str, list[int]], list[Seen]]:
    content = json.loads((folder / "clip.json").read_text())
    frames = content["instance_info"] if isinstance(content, dict) else content
    numbers = [_last_number(frame["frame_id"]) for frame in frames]
    seen: list[Seen] = []
    for frame, number in zip(frames, numbers, strict=True):
        for instance in frame["instances"]:
            pairs = zip(instance["keypoints"], instance["keypoint_scores"], strict=True)
            seen += _of_triplets("clip", number, [value for point, score in pairs for value in (*point, score)], 17)
    return {"clip": numbers}, seen


def _openpose() -> Any:
    return [
        {"version": 1.3, "people": [{"person_id": [-1], "pose_keypoints_2d": frame.ravel().tolist()}]}
        for frame in _made_up(25)
    ]


_FRAMES = tuple(f"clip_{number:012d}_keypoints.json" for number in range(5))


def _write_openpose(folder: Path, content: Any) -> None:
    for name, frame in zip(_FRAMES, content, strict=True):
        _put_json(name, folder, frame)


def _seen_openpose(folder: Path) -> tuple[dict[str, list[int]], list[Seen]]:
    seen: list[Seen] = []
    for number, name in enumerate(_FRAMES):
        for person in json.loads((folder / name).read_text())["people"]:
            seen += _of_triplets("clip", number, person["pose_keypoints_2d"], 25)
    return {"clip": [0, 4]}, seen


# -- tables -----------------------------------------------------------------------------------------------------------

_COLUMNS = ("sequence", "frame", "person", "joint", "x", "y", "confidence")
_BESIDE = 'skeleton = "coco_17"\nwidth = 640\nheight = 480\nframe_rate = 25.0\n\n[sequences.run]\nframe_rate = 50.0\n'


def _rows() -> list[list[Any]]:
    return [
        [video, frame, person, COCO_17.joints[joint], *map(float, values[frame, joint])]
        for seed, (video, person) in enumerate([("walk", "ann"), ("walk", "bob"), ("run", "ann")])
        for values in [_made_up(17, 3, seed)]
        for frame in range(3)
        for joint in range(17)
    ]


def _write_csv(folder: Path, rows: list[list[Any]]) -> None:
    (folder / "own.toml").write_text(_BESIDE)
    with (folder / "own.csv").open("w", newline="") as stream:
        csv.writer(stream, lineterminator="\n").writerows([_COLUMNS, *rows])


def _write_parquet(folder: Path, rows: list[list[Any]]) -> None:
    (folder / "own.toml").write_text(_BESIDE)
    pq.write_table(
        pa.table([list(column) for column in zip(*rows, strict=True)], list(_COLUMNS)), folder / "own.parquet"
    )


def _seen_table(folder: Path) -> tuple[dict[str, list[int]], list[Seen]]:
    if (folder / "own.csv").exists():
        with (folder / "own.csv").open(newline="", encoding="utf-8") as stream:
            rows = list(csv.DictReader(stream))
    else:
        rows = pq.ParquetFile(folder / "own.parquet").read().to_pylist()
    plain = {_spelled(name): number for number, name in enumerate(COCO_17.joints)}
    frames: dict[str, list[int]] = {}
    seen = []
    for row in rows:
        video = row["sequence"].replace("/", "_")
        frames.setdefault(video, []).append(int(row["frame"]))
        score = float(row["confidence"]) if row["confidence"] not in ("", None) else 0.0
        if score > 0:
            seen.append(
                (video, int(row["frame"]), plain[_spelled(row["joint"])], float(row["x"]), float(row["y"]), score)
            )
    return frames, seen


def _spelled(joint: str) -> str:
    plain = re.sub(r"[ _-]", "", joint.lower())
    return re.sub(r"^(l|r)(eft|ight)", r"\1", plain)


def _judge_beside(folder: Path, values: Values) -> str:
    """Sizes and rates are those of the TOML file, and the keypoints those of the table."""
    beside = tomllib.loads((folder / "own.toml").read_text(encoding="utf-8"))
    for name, value in values.items():
        title, _, key = name.rpartition(" ")
        if key in _SIZE:
            own = beside.get("sequences", {}).get(title.split("/")[1], {})
            if value != own.get(key, beside.get(key)):
                return f"{name} is {value}, the file says {own.get(key, beside.get(key))}"
    return _judge(_seen_table, folder, values)


# -- npz --------------------------------------------------------------------------------------------------------------


def _custom() -> Any:
    metadata = {
        "layout_name": "coco", "num_joints": 17, "video_metadata": {"clip": {"w": 640, "h": 480}},
        "keypoints_symmetry": [list(COCO_17.left), list(COCO_17.right)],
    }  # fmt: skip
    views = {"clip": {"custom": [_made_up(17)[..., :2].astype(np.float32)]}}
    return {"positions_2d": views, "metadata": metadata}


def _write_custom(folder: Path, content: Any) -> None:
    np.savez_compressed(folder / "own.npz", **{name: np.array(value, dtype=object) for name, value in content.items()})


def _table(name: str, *damaged: str, **more: Any) -> Format:
    return Format(**{
        "name": name, "content": _rows, "damaged": damaged, "judge": partial(_judge, _seen_table),
        "read": partial(_read, {"skeleton": "coco_17"}), **more,
    })  # fmt: skip


def _json(name: str, content: Any, file: str, seen: Any, skeleton: str, **more: Any) -> Format:
    return Format(**{
        "name": name, "content": content, "write": partial(_put_json, file), "damaged": (file,),
        "read": partial(_read, {**_SIZE, "skeleton": skeleton}), "judge": partial(_judge, seen),
        "mistype": json_node(file),
        "hostile": {"deep": partial(_deep_json, file), "long numbers": partial(_long_numbers, file)},
        **more,
    })  # fmt: skip


FORMATS = (
    _json("COCO results", _coco, "clip.json", partial(_seen_in_list, joints=17), "coco_17"),
    _json("COCO annotations", _annotated, "marked.json", _seen_annotated, "coco_17"),
    _json("AlphaPose", _alphapose, "clip.json", partial(_seen_in_list, joints=26), "halpe_26"),
    _json("MMPose", _mmpose, "clip.json", _seen_mmpose, "coco_17"),
    _json(
        "OpenPose", _openpose, _FRAMES[0], _seen_openpose, "body_25",
        write=_write_openpose, damaged=_FRAMES, mistype=json_node(*_FRAMES),
    ),
    _table("keypoint table CSV", "own.csv", write=_write_csv, mistype=words("own.csv")),
    _table("keypoint table Parquet", "own.parquet", write=_write_parquet, mistype=columns("own.parquet")),
    _table("keypoint table's TOML", "own.toml", write=_write_csv, judge=_judge_beside, mistype=words("own.toml")),
    Format(
        name="VideoPose3D custom npz",
        content=_custom,
        write=_write_custom,
        damaged=("own.npz",),
        read=partial(_read, {"frame_rate": 25.0, "skeleton": "coco_17"}),
        mistype=retyped(_write_custom),
        hostile=hostile_pickles("own.npz", in_npz("positions_2d", {"metadata": np.zeros(1)}), "clip", (4,))
        | npz_bombs("own.npz", "positions_2d"),
    ),
)  # fmt: skip
