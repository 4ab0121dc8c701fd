"""Keypoint files that are damaged or do not say enough, and options that are wrong."""

import json
import re

import numpy as np
import pytest
from keypoint_files import (
    COCO_NAMES,
    H36M_NAMES,
    HALPE_NAMES,
    check,
    coco_results,
    custom_npz,
    made_up,
    read,
    triplets,
    write,
)

from posegrid.datasets.prepare import source_module
from posegrid.datasets.readers.joint_names import joint_named, skeleton_of_names
from posegrid.datasets.skeletons import SKELETONS, skeleton_named


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
