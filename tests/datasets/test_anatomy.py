"""Sizes of bodies: ranges of bones, and sequences that are refused before they enter a store."""

from dataclasses import replace

import numpy as np
import pytest
import toy
from people import PERSON, people, stored

from posegrid.datasets.checks.anatomy import BONE_RANGES, body_scale, bone_lengths, bone_ranges, check_sequence
from posegrid.datasets.checks.findings import FAILED
from posegrid.datasets.checks.integrity import check_store
from posegrid.datasets.prepare import prepare
from posegrid.datasets.schema import CameraSequence, Recording
from posegrid.datasets.skeletons import H36M_17, SKELETONS
from posegrid.datasets.sources import synthetic


def test_every_bone_of_every_skeleton_has_a_range() -> None:
    for skeleton in SKELETONS.values():
        ranges = bone_ranges(skeleton)
        assert np.isfinite(ranges).all(), skeleton.name
        assert (ranges[:, 0] < ranges[:, 1]).all()
        for left, right in zip(skeleton.left, skeleton.right, strict=True):
            of = {child: index for index, (child, _) in enumerate(skeleton.bones)}
            if left in of and right in of:
                np.testing.assert_array_equal(ranges[of[left]], ranges[of[right]])
    assert all(0 < low < high < 1 for low, high in BONE_RANGES.values())


def test_size_of_a_body() -> None:
    lengths = bone_lengths(PERSON[None], H36M_17)[0]
    assert lengths[1] == pytest.approx(0.45)
    assert 0.8 < body_scale(lengths, H36M_17) < 1.2
    assert body_scale(lengths * 7, H36M_17) == pytest.approx(7 * body_scale(lengths, H36M_17))


def test_sequences_that_are_right_enter_a_store() -> None:
    for sequence in (*people(), *toy.sequences(), replace(people()[0], poses=None)):
        check_sequence(sequence, H36M_17)
    child = people()[0]
    check_sequence(replace(child, poses=child.poses * np.float32(0.6)), H36M_17)


@pytest.mark.parametrize(
    ("unit", "factor"),
    [("millimetres", 1000), ("centimetres", 100), ("inches", 39.37), ("decimetres", 10), ("kilometres", 0.001)],
)
def test_sequences_in_other_units_are_refused(unit: str, factor: float) -> None:
    sequence = people()[1]
    with pytest.raises(ValueError, match=rf"A/turn 2/.*must be in metres\. They look like {unit}"):
        check_sequence(replace(sequence, poses=sequence.poses * np.float32(factor)), H36M_17)


def test_other_gross_mistakes_are_refused() -> None:
    good = people()[0]
    behind = good.poses * np.array([1, 1, -1], np.float32)
    relative = good.poses - good.poses[:, :1]
    pixels = good.keypoints * np.float32(500) + np.float32(500)
    for change, expected in (
        ({"poses": behind}, r"depth of its root is -4\S* m"),
        ({"poses": relative}, "relative to the root"),
        ({"keypoints": pixels}, "look like pixels"),
        ({"confidence": good.confidence * np.float32(100)}, "allowed is 0 to 1"),
    ):
        with pytest.raises(ValueError, match=expected):
            check_sequence(replace(good, **change), H36M_17)
    # what is never scored may be anything, as long as it is not all
    valid = np.arange(len(behind)) >= len(behind) // 2
    half = np.where(valid[:, None, None], good.poses, behind)
    check_sequence(replace(good, poses=half, valid=valid), H36M_17)


def test_gross_mistakes_do_not_enter_a_store(tmp_path) -> None:
    sequences = people()
    sequences[2] = replace(sequences[2], poses=sequences[2].poses * np.float32(1000))
    with pytest.raises(ValueError, match=r"B/turn 1/54138969: its bones .* millimetres"):
        stored(tmp_path, sequences)
    assert not (tmp_path / "store").exists()


def test_gross_mistakes_stop_a_preparation(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    right = synthetic.read_recording

    def wrong(config: synthetic.Config, recording: Recording) -> list[CameraSequence]:
        return [
            replace(sequence, poses=sequence.poses * np.float32(1000) if recording.subject == "P2" else sequence.poses)
            for sequence in right(config, recording)
        ]

    options = {"seconds": 1.0, "actions": ["walk"], "train_subjects": 2, "test_subjects": 1}
    monkeypatch.setattr(synthetic, "read_recording", wrong)
    with pytest.raises(ValueError, match=r"P2/walk 1/\d+: its bones .* millimetres"):
        prepare("synthetic", None, tmp_path / "store", options=options)
    assert not (tmp_path / "store").exists()
    monkeypatch.setattr(synthetic, "read_recording", right)
    findings = check_store(prepare("synthetic", None, tmp_path / "store", options=options))
    assert FAILED not in {finding.status for finding in findings}
