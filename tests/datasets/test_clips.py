"""Keypoint files and stores as clips to lift: what is hidden stays hidden, and who is who."""

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from posegrid.datasets.cameras import normalise_screen
from posegrid.datasets.keypoints.clips import Clip, Reading, clips_of_file, clips_of_store, short_gaps
from posegrid.datasets.keypoints.export_table import Hidden, export_table
from posegrid.datasets.readers.keypoint_files import keypoint_files
from posegrid.datasets.skeletons import H36M_17
from posegrid.datasets.store import Store

SIZE = {"width": 640, "height": 480, "frame_rate": 25.0}


def clips(path: Path, skeleton: str = "coco_17", **options: object) -> list[Clip]:
    reading = Reading(**(SIZE | options))  # type: ignore[arg-type]
    return [clip for file in keypoint_files(path) for clip in clips_of_file(file, skeleton, reading)]


def coco(file: Path, points: np.ndarray, scores: np.ndarray, frames: np.ndarray, person: int = 1) -> list[dict]:
    """COCO results of one person: points (F, 17, 2), scores (F, 17)."""
    triplets = np.concatenate([points, scores[..., None]], axis=-1).reshape(len(points), -1)
    found = [
        {"image_id": int(frame), "category_id": 1, "keypoints": row.tolist(), "score": 1.0, "track_id": person}
        for frame, row in zip(frames, triplets, strict=True)
    ]
    file.write_text(json.dumps(found))
    return found


def moving(frames: int, seed: int = 0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    return generator.uniform(150, 350, (17, 2)) + generator.normal(size=(frames, 17, 2)).cumsum(axis=0)


def brute_force_gaps(seen: np.ndarray, longest: int) -> np.ndarray:
    """The rule of `short_gaps`, gap by gap."""
    found = np.zeros_like(seen)
    for joint in range(seen.shape[1]):
        shown = np.flatnonzero(seen[:, joint])
        for before, after in pairwise(shown):
            if after - before - 1 <= longest:
                found[before + 1 : after, joint] = True
    return found


@pytest.mark.parametrize("longest", [0, 1, 3, 50])
def test_gaps_are_short_between_two_seen_frames_only(longest: int) -> None:
    seen = np.random.default_rng(3).random((60, 5)) < 0.4
    seen[:, 4] = False
    np.testing.assert_array_equal(short_gaps(seen, longest), brute_force_gaps(seen, longest))


def test_missing_joints_and_frames_stay_hidden_unless_gaps_are_short(tmp_path: Path) -> None:
    points, scores = moving(20), np.full((20, 17), 0.9)
    scores[5:8, 10] = 0
    scores[9:15, 9] = 0
    frames = np.delete(np.arange(20), [17]) + 4
    coco(tmp_path / "walk.json", np.delete(points, 17, 0), np.delete(scores, 17, 0), frames)
    (clip,) = clips(tmp_path / "walk.json")
    assert (clip.video, clip.person, clip.first, len(clip), clip.frame_rate) == ("walk", "1", 4, 20, 25.0)
    seen = scores > 0
    seen[17] = False
    np.testing.assert_array_equal(clip.visible, seen)
    np.testing.assert_allclose(clip.keypoints[seen], normalise_screen(points, 640, 480)[seen], atol=1e-6)
    (filled,) = clips(tmp_path / "walk.json", longest_gap=3)
    seen[5:8, 10], seen[17] = True, True
    np.testing.assert_array_equal(filled.visible, seen)
    middle = normalise_screen(points[4, 10] + (points[8, 10] - points[4, 10]) * [[0.25], [0.5], [0.75]], 640, 480)
    np.testing.assert_allclose(filled.keypoints[5:8, 10], middle, atol=1e-6)


def test_unsure_joints_are_hidden_on_request_and_hide_what_is_derived_from_them(tmp_path: Path) -> None:
    points, scores = moving(6), np.full((6, 17), 0.9)
    scores[2, 11] = 0.2  # left hip
    coco(tmp_path / "walk.json", points, scores, np.arange(6))
    (clip,) = clips(tmp_path / "walk.json", "h36m_17", least_confidence=0.3)
    hidden = np.argwhere(~clip.visible)
    assert {tuple(row) for row in hidden.tolist()} == {(2, H36M_17.index(joint)) for joint in ("LHip", "Hip", "Spine")}
    assert clips(tmp_path / "walk.json", "h36m_17")[0].visible.all()
    assert clips(tmp_path / "walk.json", least_confidence=0.95) == []


def test_several_people_are_clips_of_their_own(tmp_path: Path) -> None:
    rows = coco(tmp_path / "a.json", moving(8), np.ones((8, 17)), np.arange(8))
    rows += coco(tmp_path / "a.json", moving(5, 1) + 200, np.ones((5, 17)), np.arange(3, 8), person=2)
    (tmp_path / "a.json").write_text(json.dumps(rows))
    found = clips(tmp_path / "a.json")
    assert [(clip.person, clip.first, len(clip)) for clip in found] == [("1", 0, 8), ("2", 3, 5)]


def test_image_size_and_rate_must_be_known(tmp_path: Path) -> None:
    coco(tmp_path / "walk.json", moving(4), np.ones((4, 17)), np.arange(4))
    with pytest.raises(ValueError, match=r"does not say the width, frame_rate.*give --width \.\.\. --frame-rate"):
        clips(tmp_path / "walk.json", width=None, frame_rate=None)
    with pytest.raises(ValueError, match="allowed are a confidence from 0"):
        Reading(least_confidence=1.0)
    with pytest.raises(ValueError, match=r'joints "coco_18".*did you mean "coco_17"'):
        Reading(joints="coco_18")


def test_another_rate_keeps_straight_motion_straight_and_hides_next_to_hidden(toy_store: Store) -> None:
    time = np.arange(11)[:, None, None] / 25
    line = (np.float32([0.5, -0.3]) * time + np.zeros((1, 17, 1))).astype(np.float32)
    visible = np.ones((11, 17), dtype=bool)
    visible[4, 3] = False
    clip = Clip(
        source="x", video="x", person="1", first=0, skeleton=H36M_17, keypoints=line, visible=visible, **SIZE,  # type: ignore[arg-type]
    )  # fmt: skip
    faster = clip.at_rate(60.0)
    assert len(faster) == 25  # 0.4 s
    np.testing.assert_allclose(faster.keypoints[:, 0, 0], 0.5 * np.arange(25) / 60, atol=1e-6)
    between = np.abs(np.arange(25) * 25 / 60 - 4) < 1 - 1e-9
    np.testing.assert_array_equal(faster.visible[:, 3], ~between)
    assert clip.at_rate(25.0) is clip


def test_sequences_of_stores_are_read_in_place(toy_store: Store) -> None:
    found = list(clips_of_store(toy_store, Reading()))
    assert len(found) == 8
    assert found[6].person == "C"
    assert found[6].video == "walk 1/0"
    assert np.shares_memory(found[6].keypoints, toy_store.keypoints)
    assert found[6].poses is not None


def test_an_exported_piece_is_read_back(toy_store: Store, tmp_path: Path) -> None:
    hidden = (Hidden.of("RKnee:0.2:0.4"),)
    for ending in (".csv", ".parquet"):
        file = tmp_path / f"piece{ending}"
        sequence, frames = export_table(toy_store, file, start=0.1, seconds=1.0, every=2, hide=hidden)
        assert (sequence.name, frames) == ("C/walk 1/0", 25)
        (clip,) = [clip for each in keypoint_files(file) for clip in clips_of_file(each, "h36m_17", Reading())]
        rows = sequence.offset + 5 + 2 * np.arange(25)
        knee = np.zeros((25, 17), dtype=bool)
        knee[5:10, 2] = True
        np.testing.assert_array_equal(clip.visible, ~knee)
        np.testing.assert_allclose(clip.keypoints[~knee], toy_store.keypoints[rows][~knee], atol=2e-5)
        assert clip.poses is not None
        np.testing.assert_allclose(clip.poses, toy_store.poses[rows], atol=1e-4)
        assert (clip.frame_rate, clip.width) == (25.0, 1000)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"name": "C/walk"}, r'did you mean "C/walk 1/0"'),
        ({"start": 9.0}, "give no frame"),
        ({"hide": (Hidden.of("RNee:0:1"),)}, "did you mean 'RKnee'"),
    ],
)
def test_pieces_that_do_not_exist_are_refused(toy_store: Store, tmp_path: Path, wrong: dict, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        export_table(toy_store, tmp_path / "piece.csv", **wrong)
    with pytest.raises(ValueError, match=r"RWrist:1\.0:1\.8"):
        Hidden.of("RKnee 1 2")
    with pytest.raises(ValueError, match=r"Allowed: \.csv, \.parquet"):
        export_table(toy_store, tmp_path / "piece.json")
