"""Keypoint files written exactly as each tool writes them, prepared, and compared with the numbers that went in."""

import json
import re

import numpy as np
import pytest

from posegrid.datasets.prepare import prepare, source_module
from posegrid.datasets.readers.joint_names import joint_named, skeleton_of_names
from posegrid.datasets.skeletons import SKELETONS, skeleton_named

WIDTH, HEIGHT = 640, 480
SIZE = {"width": WIDTH, "height": HEIGHT, "frame_rate": 25.0}
COCO_NAMES = (
    "nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder", "left_elbow",
    "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle",
    "right_ankle",
)  # fmt: skip
HALPE_NAMES = (
    *COCO_NAMES, "head", "neck", "hip", "left_big_toe", "right_big_toe", "left_small_toe", "right_small_toe",
    "left_heel", "right_heel",
)  # fmt: skip
H36M_NAMES = (
    "root", "right_hip", "right_knee", "right_foot", "left_hip", "left_knee", "left_foot", "spine", "thorax",
    "neck_base", "head", "left_shoulder", "left_elbow", "left_wrist", "right_shoulder", "right_elbow", "right_wrist",
)  # fmt: skip


def made_up(joints, frames=6, seed=0):
    """Pixels (F, J, 2) and scores (F, J), rounded as files round them."""
    generator = np.random.default_rng(seed)
    start = generator.uniform([200, 100], [440, 380], (joints, 2))
    points = start + generator.normal(size=(frames, joints, 2)).cumsum(axis=0) * 3
    return points.round(3), generator.uniform(0.3, 1, (frames, joints)).round(3)


def triplets(points, scores):
    return [float(value) for row in zip(points[:, 0], points[:, 1], scores, strict=True) for value in row]


def on_screen(points, width=WIDTH, height=HEIGHT):
    return np.stack([points[..., 0] * 2 / width - 1, (points[..., 1] * 2 - height) / width], axis=-1)


def write(file, content):
    file.write_text(json.dumps(content))
    return file


def read(raw, **options):
    """All sequences by name, read as the source reads them."""
    source = source_module("keypoints")
    config = source.Config(**(SIZE | options))
    recordings = source.list_recordings(config, raw)
    assert {recording.action for recording in recordings} == {"own"}
    read_each = [source.read_recording(config, recording) for recording in recordings]
    return {sequence.name: sequence for sequences in read_each for sequence in sequences}


def check(sequence, points, scores, **size):
    np.testing.assert_allclose(sequence.keypoints, on_screen(points, **size), atol=1e-6)
    np.testing.assert_allclose(sequence.confidence, scores, atol=1e-6)
    assert sequence.poses is None


def coco_results(points, scores, first=0, **more):
    return [
        {"image_id": first + number, "category_id": 1, "keypoints": triplets(*frame), "score": 0.9} | more
        for number, frame in enumerate(zip(points, scores, strict=True))
    ]


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


def custom_npz(file, positions, layout="coco", sizes=None):
    symmetry = [[1, 3, 5, 7, 9, 11, 13, 15], [2, 4, 6, 8, 10, 12, 14, 16]]
    metadata = {"layout_name": layout, "num_joints": 17, "keypoints_symmetry": symmetry}
    if sizes is not None:
        metadata["video_metadata"] = sizes
    np.savez_compressed(file, positions_2d=positions, metadata=metadata)
    return file


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


def broken(change):
    content = coco_results(*made_up(17))
    change(content)
    return content


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "cannot be read as JSON.*JSONDecodeError"),
        ("[" * 100_000, "cannot be read as JSON"),
        (b"\xff\xfe\x00x", "cannot be read as JSON"),
        ("[]", "holds no keypoints in a known layout"),
        ('{"a": 1}', r"no keypoints in a known layout \(top level: dict of a\)"),
        (
            broken(lambda content: content[3]["keypoints"].pop()),
            r"entry 3 has keypoints .* expected a list of 51 numbers",
        ),
        (broken(lambda content: content[2].update(keypoints="x")), "entry 2 has keypoints x"),
        (broken(lambda content: content[2].update(keypoints=[[1, 2]] * 51)), "entry 2 has keypoints"),
        (broken(lambda content: content[2]["keypoints"].__setitem__(3, "12")), "entry 2 has keypoints"),
        (broken(lambda content: content[2]["keypoints"].__setitem__(3, True)), "entry 2 has keypoints"),
        (
            broken(lambda content: content[2]["keypoints"].__setitem__(3, 1e9)),
            "frame 2, joint LEye.*below 1e.06 pixels",
        ),
        (
            broken(lambda content: content[2]["keypoints"].__setitem__(5, 87)),
            "frame 2, joint LEye.*confidences from 0 to 10",
        ),
        (broken(lambda content: content[2].pop("keypoints")), "KeyError: 'keypoints'.*format=NAME"),
        (broken(lambda content: content.insert(1, 5)), "not laid out like a keypoint file"),
        (
            broken(lambda content: content[1]["keypoints"].__setitem__(0, float("nan"))),
            "frame 1, joint Nose: x, y = .nan",
        ),
        (broken(lambda content: content[1]["keypoints"].__setitem__(1, 10**400)), "entry 1 has keypoints"),
        (broken(lambda content: content[1].update(image_id="cover.jpg")), "entry 1, image_id gives no frame number"),
        (broken(lambda content: content[1].update(image_id=10**30)), "entry 1, image_id gives no frame number"),
        (broken(lambda content: content[1].update(image_id=None)), "entry 1, image_id gives no frame number"),
        (broken(lambda content: content[1].update(track_id=3)), "entry 0 has the track None while others have numbers"),
        (broken(lambda content: content[5].update(image_id=900_000)), "not the frames of a video"),
        (coco_results(*made_up(21)), r"has 21 keypoints a person; known are 17, 18"),
        ([{"image_id": 1, "keypoints": [1.0] * 34, "score": 1}], "lists of 34 numbers; expected x, y and score"),
        ({"instance_info": [{"frame_id": 1, "instances": []}]}, "no instance in any of 1 frames"),
        ({"instance_info": [{"frame_id": 1, "instances": [{"keypoints": [[1, 2]]}]}]}, "KeyError: 'keypoint_scores'"),
        (
            {"instance_info": [{"frame_id": 1, "instances": [{"keypoints": [[1, 2, 3]], "keypoint_scores": [1]}]}]},
            "entry 0 has keypoints .* expected a list of 2 numbers",
        ),
        (
            {"images": [], "annotations": [{"image_id": 4, "keypoints": [1, 2, 2] * 17}]},
            "image 4, which is not in images",
        ),
        ({"images": [{"id": 4, "file_name": "1.jpg"}], "annotations": []}, "no annotation with a marked keypoint"),
        (
            {
                "images": [{"id": 4, "file_name": "1.jpg"}],
                "annotations": [{"image_id": 4, "keypoints": [3, 2, 0.5] * 17}],
            },
            "visibilities of annotated keypoints must be 0, 1 or 2",
        ),
    ],
)
def test_broken_json_is_refused(tmp_path, content, message):
    file = tmp_path / "clip.json"
    if isinstance(content, list | dict):
        write(file, content)
    else:
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=message) as error:
        read(file)
    assert "clip.json" in str(error.value)


def test_names_of_a_dog_are_no_skeleton(tmp_path):
    meta = {"keypoint_id2name": {str(number): f"paw_{number}" for number in range(17)}}
    instance = {"keypoints": [[1, 2]] * 17, "keypoint_scores": [1] * 17}
    content = {"meta_info": meta, "instance_info": [{"frame_id": 1, "instances": [instance]}]}
    with pytest.raises(ValueError, match=r"paw_0, paw_1.*not those of a known skeleton"):
        read(write(tmp_path / "clip.json", content))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"version": 1.3}, "KeyError: 'people'"),
        ([], "not laid out as OpenPose writes it"),
        ({"people": [{"pose_keypoints_2d": [1, 2, "x"]}]}, "entry 0 has pose_keypoints_2d"),
        ({"people": [{"pose_keypoints_2d": [1, 2, 0.5, 3]}]}, "4 numbers; expected x, y and score"),
        ({"people": [{"pose_keypoints_2d": [1, 2, 0.5]}]}, "1 keypoints a person"),
        (
            {"people": [{"pose_keypoints_2d": [9, 9, 1] * 25, "person_id": [float("nan")]}]},
            "TypeError: person_id is .nan",
        ),
        ({"people": []}, "found nobody in the 1 frames of clip"),
        ({"people": [{"pose_keypoints_2d": [0.1, 0.2, 0.5] * 25}]}, "expected pixels"),
    ],
)
def test_broken_openpose_folder_is_refused(tmp_path, content, message):
    write(tmp_path / "clip_000000000000_keypoints.json", content)
    with pytest.raises(ValueError, match=message) as error:
        read(tmp_path)
    assert str(tmp_path) in str(error.value)


def test_openpose_people_who_were_tracked_keep_their_numbers(tmp_path):
    points, scores = made_up(25)
    for frame in range(6):
        people = [
            {"person_id": [number], "pose_keypoints_2d": triplets(points[frame] + 3 * number, scores[frame])}
            for number in (0, 4)
        ]
        write(tmp_path / f"clip_{frame:012d}_keypoints.json", {"people": people[:: 1 - 2 * (frame % 2)]})
    found = read(tmp_path, skeleton="body_25")
    check(found["person_0/clip/own"], points, scores)
    check(found["person_4/clip/own"], points + 12, scores)


def test_openpose_frames_of_different_models_are_refused(tmp_path):
    for frame, joints in enumerate((25, 18)):
        person = {"pose_keypoints_2d": triplets(*(array[0] for array in made_up(joints, 1)))}
        write(tmp_path / f"clip_{frame:012d}_keypoints.json", {"people": [person]})
    with pytest.raises(ValueError, match=r"entry 1 has pose_keypoints_2d .* expected a list of 75 numbers"):
        read(tmp_path)


def test_damaged_bytes_are_refused_or_read_as_finite_numbers(tmp_path):
    generator = np.random.default_rng(11)
    instances = [{"keypoints": points.tolist(), "keypoint_scores": [0.5] * 17} for points in made_up(17)[0]]
    frames = [{"frame_id": number, "instances": [instance]} for number, instance in enumerate(instances)]
    whole = [
        json.dumps(coco_results(*made_up(17))).encode(),
        json.dumps({"instance_info": frames}).encode(),
        custom_npz(tmp_path / "mine.npz", {"a": {"custom": [made_up(17)[0].astype(np.float32)]}}).read_bytes(),
    ]
    (tmp_path / "mine.npz").unlink()
    outcomes = []
    for number in range(150):
        damaged = bytearray(whole[number % 3])
        if number % 2:
            del damaged[int(generator.integers(len(damaged))) :]
        else:
            place = int(generator.integers(len(damaged)))
            damaged[place] ^= 1 << int(generator.integers(8))
        file = tmp_path / f"clip.{'npz' if number % 3 == 2 else 'json'}"
        file.write_bytes(damaged)
        try:
            found = read(file)
        except ValueError as error:
            outcomes.append(str(error))
        else:
            assert all(np.abs(sequence.keypoints).max() < 1e4 for sequence in found.values())
    assert all(str(tmp_path) in outcome for outcome in outcomes)
    assert 75 < len(outcomes) < 145


class Evil:
    def __reduce__(self):
        return (open, ("evil", "w"))


def test_broken_npz_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    points = made_up(17)[0].astype(np.float32)
    file = tmp_path / "mine.npz"
    for positions, message in (
        ({"a": Evil()}, "Nothing was run"),
        ({}, "positions_2d is dict"),
        ({"a": points}, r"positions_2d\['a'\] is float32"),
        ({"a": {"custom": []}}, r"\['a'\]\['custom'\] is list"),
        ({"a": {"custom": [points[..., :1]]}}, r"\['custom'\]\[0\] is float32 \(6, 17, 1\)"),
        ({"a": {"custom": [points[:, :16]]}}, "16 keypoints a person, but coco_17"),
        ({"a": {"custom": [points[:0]]}}, "has no frames"),
        ({"a": {"custom": [points * np.nan]}}, "frame 0, joint Nose"),
    ):
        with pytest.raises(ValueError, match=message) as error:
            read(custom_npz(file, positions))
        assert "mine.npz" in str(error.value)
    assert not (tmp_path / "evil").exists()
    with pytest.raises(ValueError, match="layout_name 'sheep'; known are coco, h36m"):
        read(custom_npz(file, {"a": {"custom": [points]}}, layout="sheep"))
    with pytest.raises(ValueError, match="size '640'; expected positive whole pixels"):
        read(custom_npz(file, {"a": {"custom": [points]}}, sizes={"a": {"w": "640", "h": 480}}))
    file.write_bytes(file.read_bytes()[:300])
    with pytest.raises(ValueError, match="damaged or cut"):
        read(file)


def test_what_files_do_not_say_must_be_given(tmp_path):
    raw = write(tmp_path / "clip.json", coco_results(*made_up(17)))
    with pytest.raises(ValueError, match=r"clip.json does not say the width, height of the video clip.*--option width"):
        read(raw, width=None, height=None)
    with pytest.raises(ValueError, match="does not say the frame_rate"):
        read(raw, frame_rate=None)
    with pytest.raises(ValueError, match=r"coco_17 cannot be converted to halpe_26.*LBigToe"):
        read(raw, skeleton="halpe_26")
    with pytest.raises(ValueError, match="17 keypoints a person, but halpe_26"):
        read(raw, joints="halpe_26")
    with pytest.raises(ValueError, match="seen in 7 or more frames"):
        read(raw, shortest=7)
    with pytest.raises(ValueError, match="no keypoint files of the format table"):
        read(raw, format="table")
    write(tmp_path / "sub.json", [])
    (tmp_path / "again").mkdir()
    (tmp_path / "sub.json").rename(tmp_path / "again" / "x.json")
    write(tmp_path / "again" / "x.json", json.loads(raw.read_text()))
    (tmp_path / "again" / "x.json").rename(tmp_path / "again" / "clip.json")
    with pytest.raises(ValueError, match=r"both hold person_1 in the video clip"):
        read(tmp_path)


@pytest.mark.parametrize(
    "options",
    [
        {"format": "coko"}, {"joints": "coco"}, {"skeleton": "same"}, {"gaps": "fill"}, {"people": "one"},
        {"width": 0}, {"height": -4}, {"frame_rate": float("nan")}, {"shortest": 0},
    ],
)  # fmt: skip
def test_wrong_options_are_refused(options):
    with pytest.raises(ValueError, match=re.escape(next(iter(options)))):
        source_module("keypoints").Config(**options)


def test_names_of_joints():
    for name, names in (("coco_17", COCO_NAMES), ("halpe_26", HALPE_NAMES), ("h36m_17", H36M_NAMES)):
        found = skeleton_of_names(names)
        assert found is not None
        assert found.name == name
    for skeleton in SKELETONS.values():
        assert [joint_named(skeleton, joint) for joint in skeleton.joints] == list(range(len(skeleton)))
    halpe, human = skeleton_named("halpe_26"), skeleton_named("h36m_17")
    assert joint_named(halpe, "Neck") == 18
    assert joint_named(human, "Neck") == 9
    assert joint_named(human, "LAnkle") == joint_named(human, "l ankle") == joint_named(human, "left-foot") == 6
    assert joint_named(human, "tail") is None
