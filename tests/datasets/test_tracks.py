"""Filling gaps against numpy.interp, tracks and association against hand-made people."""

import numpy as np
import pytest

from posegrid.datasets.keypoints.gaps import fill_gaps
from posegrid.datasets.keypoints.tracks import Detections, tracks_of
from posegrid.datasets.skeletons import COCO_17


def test_gaps_equal_interpolation_joint_by_joint():
    generator = np.random.default_rng(3)
    points = generator.normal(size=(60, 5, 3)) * 100
    confidence = generator.uniform(0.2, 1, (60, 5)) * (generator.random((60, 5)) < 0.4)
    confidence[0, 0] = confidence[-1, 1] = 0
    frames = np.arange(60)
    wanted = points.copy()
    for joint in range(5):
        seen = confidence[:, joint] > 0
        for axis in range(3):
            filled = np.interp(frames, frames[seen], points[seen, joint, axis])
            wanted[:, joint, axis] = np.where(seen, points[:, joint, axis], filled)
    points[confidence == 0] = np.nan
    found = fill_gaps(points, confidence)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-10)
    assert (found[confidence > 0] == points[confidence > 0]).all()
    assert fill_gaps(points.astype(np.float32), confidence).dtype == np.float32


def test_joint_that_is_never_seen_takes_the_mean_of_the_others():
    points = np.array([[[1.0, 2], [3, 6], [np.nan, 9]], [[2, 2], [4, 8], [0, 0]]])
    found = fill_gaps(points, np.array([[1, 1, 0], [1, 1, 0]]))
    np.testing.assert_array_equal(found[:, 2], [[2, 4], [3, 5]])


@pytest.mark.parametrize(
    ("points", "confidence", "message"),
    [
        (np.zeros((3, 2, 2)), np.zeros((3, 2)), "none of 2 joints is seen in any of 3 frames"),
        (np.full((3, 2, 2), np.nan), np.ones((3, 2)), "frame 0, joint 0 is not finite"),
        (np.zeros((3, 2, 2)), np.zeros((2, 2)), r"\(3, 2, 2\) and confidence \(2, 2\)"),
    ],
)
def test_gaps_that_cannot_be_filled(points, confidence, message):
    with pytest.raises(ValueError, match=message):
        fill_gaps(points, confidence)


def person(x, y, size=100.0):
    """(17, 2) pixels around (x, y)."""
    shape = np.random.default_rng(1).uniform(-0.5, 0.5, (17, 2))
    return shape * size + [x, y]


def detections(entries, people=None, **more):
    """Detections from (frame, points)."""
    points = np.stack([points for _, points in entries])
    given = {
        "video": "clip", "file": "clip.json", "skeleton": COCO_17, "points": points,
        "frames": np.array([frame for frame, _ in entries]), "confidence": np.ones(points.shape[:2]),
        "people": None if people is None else np.array(people),
    }  # fmt: skip
    return Detections(**(given | more))


def test_people_who_cross_the_order_of_a_file_are_told_apart():
    generator = np.random.default_rng(5)
    entries, truth = [], []
    for frame in range(40):
        here = [("a", person(100 + 8 * frame, 200)), ("b", person(900 - 8 * frame, 420)), ("c", person(500, 800))]
        here = [entry for entry in here if not (entry[0] == "b" and 10 <= frame < 14)]
        for who in generator.permutation(len(here)):
            truth.append(here[who][0])
            entries.append((frame, here[who][1]))
    tracks = tracks_of(detections(entries))
    assert sorted(len(track.points) for track in tracks) == [40, 40, 40]
    for name, start in (("a", (100, 200)), ("b", (900, 420)), ("c", (500, 800))):
        (track,) = [track for track in tracks if np.allclose(track.points[0], person(*start))]
        given = [entry for entry, who in zip(entries, truth, strict=True) if who == name]
        for frame, points in given:
            np.testing.assert_array_equal(track.points[frame], points)
        assert (track.confidence.min(axis=1) == 0).sum() == (4 if name == "b" else 0)


def test_newcomer_and_one_who_was_long_gone_are_new_people():
    entries = [(frame, person(100, 100)) for frame in range(80)]
    entries += [(frame, person(600, 300)) for frame in (*range(5, 10), *range(60, 65))]
    tracks = tracks_of(detections(entries))
    assert [(track.person, track.first, len(track.points)) for track in tracks] == [
        ("1", 0, 80), ("2", 5, 5), ("3", 60, 5),
    ]  # fmt: skip


def test_one_person_spans_the_video_and_keeps_the_frame_numbers():
    entries = [(frame, person(100, 100)) for frame in (7, 4, 5)]
    (track,) = tracks_of(detections(entries, span=(2, 9)))
    assert (track.first, len(track.points)) == (2, 8)
    assert (track.confidence.max(axis=1) > 0).tolist() == [False, False, True, True, False, True, False, False]
    np.testing.assert_allclose(track.filled, np.tile(person(100, 100), (8, 1, 1)))


def test_labels_of_the_file_count():
    entries = [(frame, person(100, 100)) for frame in range(3)] + [(frame, person(105, 100)) for frame in range(1, 3)]
    tracks = tracks_of(detections(entries, people=["4", "4", "4", "12", "12"]))
    assert [(track.person, track.first, len(track.points)) for track in tracks] == [("4", 0, 3), ("12", 1, 2)]
    np.testing.assert_array_equal(tracks[1].points[0], person(105, 100))


def test_impossible_detections_are_refused():
    entries = [(frame, person(100, 100)) for frame in range(3)]
    with pytest.raises(ValueError, match=r"clip.*person 1 is detected twice in frame 1 \(1 such frames\)"):
        tracks_of(detections([*entries, (1, person(0, 0))], people=["1"] * 4))
    with pytest.raises(ValueError, match=r"seen in 4 of the frames 0 to 5000.*single images"):
        tracks_of(detections([*entries, (5000, person(0, 0))]))
    confidence = np.ones((3, 17))
    confidence[1, 2] = np.nan
    with pytest.raises(ValueError, match=r"frame 1, joint REye.*confidence nan"):
        detections(entries, confidence=confidence)
    confidence[1, 2] = -0.5
    with pytest.raises(ValueError, match=r"frame 1, joint REye.*confidence -0.5"):
        detections(entries, confidence=confidence)
    with pytest.raises(ValueError, match="expected pixels"):
        detections([(frame, points / 1000) for frame, points in entries])
    points = person(100, 100)
    points[3] = np.inf
    with pytest.raises(ValueError, match=r"joint LEar: x, y = .inf, inf."):
        detections([(0, points)])


def test_scores_above_one_are_cut_and_missing_numbers_are_missing_joints():
    confidence = np.array([[3.5, np.nan, *[0.5] * 15]])
    points = person(100, 100)
    points[1] = np.nan
    found = detections([(0, points)], confidence=confidence)
    assert found.confidence[0].tolist() == [1, 0, *[0.5] * 15]
