"""Keypoint files written exactly as each tool writes them, prepared, and compared with the numbers that went in."""

import numpy as np
import pytest
from keypoint_files import (
    COCO_NAMES,
    H36M_NAMES,
    HALPE_NAMES,
    SIZE,
    check,
    coco_results,
    custom_npz,
    made_up,
    on_screen,
    read,
    triplets,
    write,
)

from posegrid.datasets.prepare import prepare


def test_coco_results(tmp_path):
    points, scores = made_up(17)
    content = coco_results(points, scores, first=3)
    raw = write(tmp_path / "clip.json", content[::-1])
    for given in (raw, tmp_path):
        (found,) = read(given, skeleton="coco_17").values()
        check(found, points, scores)
        assert (found.name, found.frame_rate, found.width, found.height) == ("person_1/clip/own", 25.0, 640, 480)


def test_coco_becomes_the_joints_of_human36m(tmp_path):
    points, scores = made_up(17)
    (found,) = read(write(tmp_path / "clip.json", coco_results(points, scores))).values()
    hip, thorax = points[:, [11, 12]].mean(axis=1), points[:, [5, 6]].mean(axis=1)
    eyes = points[:, [1, 2]].mean(axis=1)
    order = [0, 12, 14, 16, 11, 13, 15, 0, 0, 0, 0, 5, 7, 9, 6, 8, 10]
    wanted, wanted_scores = points[:, order].copy(), scores[:, order].copy()
    wanted[:, 0], wanted[:, 7], wanted[:, 8], wanted[:, 10] = hip, (hip + thorax) / 2, thorax, 1.5 * eyes - thorax / 2
    wanted_scores[:, 0] = scores[:, [11, 12]].min(axis=1)
    wanted_scores[:, 7] = scores[:, [5, 6, 11, 12]].min(axis=1)
    wanted_scores[:, 8] = scores[:, [5, 6]].min(axis=1)
    wanted_scores[:, 10] = scores[:, [1, 2, 5, 6]].min(axis=1)
    check(found, wanted, wanted_scores)


def test_coco_annotations_with_sizes_folders_and_unmarked_joints(tmp_path):
    points, _ = made_up(17, frames=4)
    images, annotations = [], []
    for number, (video, width) in enumerate([("a", 640)] * 4 + [("b", 1000)] * 4):
        frame = number % 4
        images.append({"id": 70 + number, "file_name": f"{video}/frame_{frame:05d}.jpg", "width": width, "height": 500})
        marks = np.full(17, 2)
        marks[4], marks[5] = (0, 1) if frame == 2 else (2, 2)
        keypoints = triplets(np.where(marks[:, None] > 0, points[frame], 0), marks)
        annotations.append({"id": number, "image_id": 70 + number, "category_id": 1, "keypoints": keypoints})
    annotations.append({"id": 99, "image_id": 70, "category_id": 1, "keypoints": [0] * 51, "num_keypoints": 0})
    content = {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": 1, "name": "person", "keypoints": list(COCO_NAMES)}],
    }
    raw = write(tmp_path / "person_keypoints_train.json", content)
    found = read(raw, skeleton="coco_17", width=None, height=None)
    assert sorted(found) == ["person_1/a/own", "person_1/b/own"]
    wanted, scores = points.copy(), np.ones((4, 17))
    wanted[2, 4], scores[2, 4] = (points[1, 4] + points[3, 4]) / 2, 0
    check(found["person_1/a/own"], wanted, scores, width=640, height=500)
    check(found["person_1/b/own"], wanted, scores, width=1000, height=500)


@pytest.mark.parametrize("joints", [17, 26, 136])
def test_alphapose_with_tracks(tmp_path, joints):
    points, scores = made_up(joints, frames=5)
    other, other_scores = made_up(joints, frames=3, seed=8)
    body = {17: 17, 26: 26, 136: 26}[joints]
    content = []
    for frame in range(5):
        for who, number, (places, values) in ((7, frame, (points, scores)), (11, frame - 2, (other, other_scores))):
            if 0 <= number < len(places):
                content.append(
                    {
                        "image_id": f"{frame}.jpg",
                        "category_id": 1,
                        "keypoints": triplets(places[number], values[number]),
                        "score": 2.7,
                        "box": [1.0, 2.0, 30.0, 40.0],
                        "idx": who if joints == 17 else [float(who)],
                    }
                )
    raw = write(tmp_path / "alphapose-results.json", content)
    found = read(raw, skeleton="coco_17" if body == 17 else "halpe_26")
    assert list(found) == ["person_7/alphapose-results/own", "person_11/alphapose-results from frame 2/own"]
    check(next(iter(found.values())), points[:, :body], scores[:, :body])
    check(list(found.values())[1], other[:, :body], other_scores[:, :body])


@pytest.mark.parametrize("joints", [25, 18])
def test_openpose_folder_with_empty_frames_and_unseen_joints(tmp_path, joints):
    points, scores = made_up(joints, frames=8)
    scores[3, 4] = 0
    folder = tmp_path / "json"
    folder.mkdir()
    for frame in range(8):
        people = []
        if frame not in (0, 5):
            keypoints = triplets(np.where(scores[frame, :, None] > 0, points[frame], 0), scores[frame])
            people.append(
                {
                    "person_id": [-1],
                    "pose_keypoints_2d": keypoints,
                    "face_keypoints_2d": [],
                    "hand_left_keypoints_2d": [],
                    "hand_right_keypoints_2d": [],
                    "pose_keypoints_3d": [],
                    "face_keypoints_3d": [],
                    "hand_left_keypoints_3d": [],
                    "hand_right_keypoints_3d": [],
                }
            )
        write(folder / f"dance_2_{frame:012d}_keypoints.json", {"version": 1.3, "people": people})
    name = "body_25" if joints == 25 else "openpose_18"
    (found,) = read(tmp_path, skeleton=name).values()
    assert found.name == "person_1/dance_2/own"
    wanted, wanted_scores = points.copy(), scores.copy()
    wanted[0], wanted_scores[0] = points[1], 0
    wanted[5], wanted_scores[5] = (points[4] + points[6]) / 2, 0
    wanted[3, 4] = (points[2, 4] + points[4, 4]) / 2
    check(found, wanted, wanted_scores)
    with pytest.raises(ValueError, match=r"joint .* was not seen in frame 0 .* gaps = refuse"):
        read(tmp_path, skeleton=name, gaps="refuse")


@pytest.mark.parametrize(
    ("names", "skeleton"), [(COCO_NAMES, "coco_17"), (HALPE_NAMES, "halpe_26"), (H36M_NAMES, "h36m_17")]
)
@pytest.mark.parametrize("inferencer", [False, True])
def test_mmpose(tmp_path, names, skeleton, inferencer):
    points, scores = made_up(len(names))
    frames = [
        {
            "frame_id": number + 1,
            "instances": [
                {
                    "keypoints": points[number].tolist(),
                    "keypoint_scores": scores[number].tolist(),
                    "bbox": [[1.0, 2.0, 30.0, 40.0]],
                    "bbox_score": 0.98,
                }
            ],
        }
        for number in range(6)
    ]
    meta = {"dataset_name": "made up", "keypoint_id2name": {str(number): name for number, name in enumerate(names)}}
    raw = write(tmp_path / "results_clip.json", frames if inferencer else {"meta_info": meta, "instance_info": frames})
    (found,) = read(raw, skeleton=skeleton, **({"joints": skeleton} if inferencer else {})).values()
    check(found, points, scores)


def test_mmpose_with_two_people_in_changing_order(tmp_path):
    one, scores = made_up(17)
    other = one * 0.3 + 5
    frames = []
    for number in range(6):
        instances = [
            {"keypoints": points[number].tolist(), "keypoint_scores": scores[number].tolist()}
            for points in (one, other)
        ]
        frames.append({"frame_id": number + 1, "instances": instances[:: 1 - 2 * (number % 2)]})
    raw = write(tmp_path / "clip.json", {"meta_info": {}, "instance_info": frames})
    found = read(raw, skeleton="coco_17")
    check(found["person_1/clip/own"], one, scores)
    check(found["person_2/clip/own"], other, scores)
    assert list(read(raw, skeleton="coco_17", people="main")) == ["person_1/clip/own"]


def test_videopose3d_custom_npz(tmp_path):
    one, other = made_up(17)[0].astype(np.float32), made_up(17, seed=4, frames=9)[0].astype(np.float32)
    positions = {"run.mp4": {"custom": [one]}, "jump.mp4": {"custom": [other]}}
    sizes = {"run.mp4": {"w": 640, "h": 480}, "jump.mp4": {"w": 1000, "h": 500}}
    raw = custom_npz(tmp_path / "data_2d_custom_mine.npz", positions, sizes=sizes)
    found = read(raw, skeleton="coco_17", width=None, height=None)
    check(found["person_1/run.mp4/own"], one.astype(float), np.ones((6, 17)))
    check(found["person_1/jump.mp4/own"], other.astype(float), np.ones((9, 17)), width=1000, height=500)
    cameras = read(custom_npz(raw, {"run": {"custom": [one, other]}}), skeleton="coco_17")
    assert sorted(cameras) == ["person_1/run/own_1", "person_1/run/own_2"]


def test_store_of_keypoints_only_with_every_format_in_one_folder(tmp_path):
    points, scores = made_up(17)
    raw = tmp_path / "raw"
    raw.mkdir()
    write(raw / "a.json", coco_results(points, scores))
    custom_npz(raw / "b.npz", {"b": {"custom": [points.astype(np.float32)]}})
    halves = made_up(25, 2)
    for frame in range(2):
        person = {"person_id": [-1], "pose_keypoints_2d": triplets(halves[0][frame], halves[1][frame])}
        write(raw / f"c_{frame:012d}_keypoints.json", {"version": 1.3, "people": [person]})
    one = prepare("keypoints", raw, tmp_path / "one", options=SIZE)
    two = prepare("keypoints", raw, tmp_path / "two", options=SIZE, processes=2)
    assert one.content_hash == two.content_hash
    assert {(found.recording, found.split, found.frames) for found in one.sequences} == {
        ("a", "test", 6), ("b", "test", 6), ("c", "test", 2),
    }  # fmt: skip
    assert one.skeleton.name == "h36m_17"
    with pytest.raises(ValueError, match="keypoints but no 3D poses"):
        _ = one.poses


def test_store_keeps_the_joints_of_the_files_on_request(tmp_path):
    points, scores = made_up(17)
    raw = write(tmp_path / "clip.json", coco_results(points, scores))
    store = prepare("keypoints", raw, tmp_path / "store", options=SIZE | {"skeleton": "coco_17"})
    assert store.skeleton.name == "coco_17"
    np.testing.assert_allclose(store.keypoints, on_screen(points), atol=1e-6)
