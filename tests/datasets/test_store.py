"""The store: what is written is read, damage is noticed, nothing half-written looks finished."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import toy

from posegrid.datasets import store_writer
from posegrid.datasets.schema import Protocol
from posegrid.datasets.skeletons import H36M_17
from posegrid.datasets.store import DESCRIPTION, FRAMES, SEQUENCES, Store, open_store
from posegrid.datasets.store_writer import write_store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return toy.write_toy(tmp_path / "store", frames=30)


def damage(file: Path, at: float) -> None:
    content = bytearray(file.read_bytes())
    content[int(len(content) * at)] ^= 1
    file.write_bytes(content)


def test_frames_come_back_bit_by_bit(store: Store) -> None:
    for written, row in zip(toy.sequences(30), store.sequences, strict=True):
        rows = slice(row.offset, row.offset + row.frames)
        np.testing.assert_array_equal(store.keypoints[rows], written.keypoints)
        np.testing.assert_array_equal(store.confidence[rows], written.confidence)
        np.testing.assert_array_equal(store.poses[rows], written.poses)
        assert (row.subject, row.action, row.recording) == (written.subject, written.action, written.recording)


def test_splits_follow_the_protocol(store: Store) -> None:
    assert {row.name: row.split for row in store.sequences if row.split != "train"} == {
        "B/walk 2/0": "held_out",
        "C/walk 1/0": "test",
        "C/sit 1/0": "test",
    }


def test_reading_copies_nothing(store: Store) -> None:
    before = pa.total_allocated_bytes()
    again = open_store(store.path)
    assert pa.total_allocated_bytes() - before < 10_000
    assert not again.poses.flags.writeable
    assert again.poses.flags.c_contiguous


def test_same_content_same_hash_wherever_it_lies(store: Store, tmp_path: Path) -> None:
    assert toy.write_toy(tmp_path / "elsewhere", frames=30).content_hash == store.content_hash
    assert toy.write_toy(tmp_path / "longer", frames=31).content_hash != store.content_hash


def test_one_flipped_bit_in_the_frames_is_found_and_located(store: Store) -> None:
    damage(store.path / FRAMES, 0.9)
    with pytest.raises(ValueError, match=r"hash of sequence \S+/.*does not match.*prepare the data set again"):
        open_store(store.path)


def test_changed_description_is_found(store: Store) -> None:
    file = store.path / DESCRIPTION
    description = json.loads(file.read_text())
    description["protocol"]["test"] = ["A"]
    file.write_text(json.dumps(description))
    with pytest.raises(ValueError, match="content hash does not match"):
        open_store(store.path)


@pytest.mark.parametrize("name", [FRAMES, SEQUENCES])
@pytest.mark.parametrize("kept", [0.0, 0.3, 0.99])
def test_cut_files_are_refused(store: Store, name: str, kept: float) -> None:
    file = store.path / name
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * kept)])
    with pytest.raises(ValueError, match=r"cannot be read|does not match"):
        open_store(store.path)


def test_missing_store_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="posegrid prepare"):
        open_store(tmp_path / "nothing")


def test_other_schema_version_is_refused(store: Store) -> None:
    file = store.path / DESCRIPTION
    file.write_text(json.dumps({**json.loads(file.read_text()), "schema_version": 99}))
    with pytest.raises(ValueError, match="schema version 99"):
        open_store(store.path)


def test_failure_while_writing_leaves_the_old_store_and_no_rest(store: Store) -> None:
    def broken():  # type: ignore[no-untyped-def]
        yield toy.sequences(30)[0]
        raise RuntimeError("reader failed")

    arguments = {"source": "toy", "source_config": {}, "skeleton": H36M_17, "protocol": toy.PROTOCOL}
    with pytest.raises(RuntimeError, match="reader failed"):
        write_store(store.path, broken(), **arguments)
    assert open_store(store.path).content_hash == store.content_hash
    assert [entry.name for entry in store.path.parent.iterdir()] == [store.path.name]


def test_repeated_names_and_empty_sources_are_refused(tmp_path: Path) -> None:
    arguments = {"source": "toy", "source_config": {}, "skeleton": H36M_17, "protocol": toy.PROTOCOL}
    with pytest.raises(ValueError, match="occurs twice"):
        write_store(tmp_path / "store", [toy.sequences(30)[0]] * 2, **arguments)
    with pytest.raises(ValueError, match="no frames"):
        write_store(tmp_path / "store", [], **arguments)
    assert not (tmp_path / "store").exists()


def test_folder_that_is_no_store_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "thesis.tex").write_text("work")
    with pytest.raises(ValueError, match="is no store"):
        toy.write_toy(tmp_path / "precious", frames=30)
    assert (tmp_path / "precious" / "thesis.tex").read_text() == "work"


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite_are_located(value: float) -> None:
    good = toy.sequences(30)[0]
    poses = good.poses.copy()
    poses[4, 11, 2] = value
    with pytest.raises(ValueError, match=r"A/walk 1/0: poses .* frame 4, joint 11"):
        replace(good, poses=poses)


def test_excluded_recordings_stay_out(tmp_path: Path) -> None:
    protocol = replace(toy.PROTOCOL, excluded=("C/sit 1",))
    store = write_store(
        tmp_path / "store", toy.sequences(30), source="toy", source_config={}, skeleton=H36M_17, protocol=protocol
    )
    assert "C/sit 1/0" not in [row.name for row in store.sequences]


ARGUMENTS = {"source": "toy", "source_config": {}, "skeleton": H36M_17}


def test_whole_subjects_can_be_held_out(tmp_path: Path) -> None:
    protocol = Protocol(train=("A", "B"), test=("C",), held_out=("B", "A/sit 1"))
    store = write_store(tmp_path / "store", toy.sequences(30), protocol=protocol, **ARGUMENTS)
    assert {row.name for row in store.sequences if row.split == "held_out"} == {
        "A/sit 1/0",
        "B/walk 1/0",
        "B/sit 1/0",
        "B/walk 2/0",
    }


def test_frames_that_are_not_valid_come_back_and_are_hashed(tmp_path: Path) -> None:
    sequences = toy.sequences(30)
    count = len(sequences[-1].keypoints)
    valid = np.arange(count) % 3 > 0
    sequences[-1] = replace(sequences[-1], valid=valid)
    store = write_store(tmp_path / "store", sequences, protocol=toy.PROTOCOL, **ARGUMENTS)
    again = open_store(tmp_path / "store")
    assert again.valid.dtype == np.bool_
    assert again.valid[:-count].all()
    np.testing.assert_array_equal(again.valid[-count:], valid)
    sequences[-1] = replace(sequences[-1], valid=~valid)
    other = write_store(tmp_path / "other", sequences, protocol=toy.PROTOCOL, **ARGUMENTS)
    assert other.content_hash != store.content_hash


@pytest.mark.parametrize("split", ["train", "held_out"])
def test_recordings_that_train_have_valid_frames_only(tmp_path: Path, split: str) -> None:
    sequences = toy.sequences(30)
    index = {"train": 0, "held_out": 5}[split]
    valid = np.ones(len(sequences[index].keypoints), dtype=np.bool_)
    valid[7] = False
    sequences[index] = replace(sequences[index], valid=valid)
    with pytest.raises(ValueError, match=f"{sequences[index].name} .* is in the split {split} but has frames that are"):
        write_store(tmp_path / "store", sequences, protocol=toy.PROTOCOL, **ARGUMENTS)


def test_store_of_keypoints_only(tmp_path: Path) -> None:
    sequences = [replace(sequence, poses=None) for sequence in toy.sequences(30)]
    write_store(tmp_path / "store", sequences, protocol=toy.PROTOCOL, **ARGUMENTS)
    store = open_store(tmp_path / "store")
    np.testing.assert_array_equal(store.keypoints, np.concatenate([sequence.keypoints for sequence in sequences]))
    assert store.poses_if_any is None
    with pytest.raises(ValueError, match=r"has keypoints but no 3D poses \(source toy\)"):
        _ = store.poses
    damage(store.path / FRAMES, 0.5)
    with pytest.raises(ValueError, match="does not match"):
        open_store(store.path)


@pytest.mark.parametrize("mixed", [0, 3])
def test_sequences_with_and_without_poses_do_not_mix(tmp_path: Path, mixed: int) -> None:
    sequences = toy.sequences(30)
    sequences[mixed] = replace(sequences[mixed], poses=None)
    with pytest.raises(ValueError, match="3D poses, unlike those before it"):
        write_store(tmp_path / "store", sequences, protocol=toy.PROTOCOL, **ARGUMENTS)


def test_joints_must_be_those_of_the_skeleton(tmp_path: Path) -> None:
    whole = toy.sequences(30)
    fewer = [
        replace(
            found,
            keypoints=np.ascontiguousarray(found.keypoints[:, :16]),
            confidence=np.ascontiguousarray(found.confidence[:, :16]),
            poses=np.ascontiguousarray(found.poses[:, :16]),
        )
        for found in whole
    ]
    with pytest.raises(ValueError, match="has 16 joints, but its skeleton h36m_17 has 17"):
        write_store(tmp_path / "store", fewer, protocol=toy.PROTOCOL, **ARGUMENTS)


def test_sequences_without_frames_are_refused(tmp_path: Path) -> None:
    empty = replace(
        toy.sequences(30)[0],
        keypoints=np.zeros((0, 17, 2), np.float32),
        confidence=np.zeros((0, 17), np.float32),
        poses=None,
    )
    with pytest.raises(ValueError, match="A/walk 1/0 has no frames"):
        write_store(tmp_path / "store", [empty], protocol=toy.PROTOCOL, **ARGUMENTS)


def test_disk_that_refuses_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store_writer, "_write_tables", full)
    with pytest.raises(ValueError, match=r"cannot be written .*No space left"):
        toy.write_toy(tmp_path / "store", frames=30)
    assert list(tmp_path.iterdir()) == []
