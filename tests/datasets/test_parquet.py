"""Parquet: a store goes out and comes back the same, edits are declared, what does not fit is refused."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import toy

from posegrid.datasets.parquet import FRAMES, SEQUENCES, export
from posegrid.datasets.prepare import prepare
from posegrid.datasets.schema import Protocol
from posegrid.datasets.skeletons import COCO_17, H36M_17
from posegrid.datasets.store import DESCRIPTION, Store, open_store
from posegrid.datasets.store_writer import write_store
from posegrid.experiments.cli import main

EDITED = {"edited": True}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """The toy store with two cameras in one recording, frames that do not count, a camera and places of images."""
    sequences = toy.sequences(40)
    second = replace(sequences[6], camera="1", keypoints=sequences[6].keypoints * np.float32(0.5))
    valid = np.arange(len(second.keypoints)) % 4 > 0
    extra = {"camera_parameters": {"id": "1", "centre": [0.1, -0.25], "name": "Kamera ö"}, "images": {"folder": "x"}}
    sequences.insert(7, replace(second, valid=valid, frame_rate=29.97, **extra))
    return write_store(
        tmp_path_factory.mktemp("store") / "s",
        sequences,
        source="toy",
        source_config={"seed": 3, "nested": {"list": [1, 2.5, "three"]}},
        skeleton=H36M_17,
        protocol=Protocol(train=("A", "B"), test=("C",), held_out=("B/walk 2",), keypoints="exact", note="Toy."),
    )


@pytest.fixture
def folder(store: Store, tmp_path: Path) -> Path:
    export(store, tmp_path / "export")
    return tmp_path / "export"


def rewritten(file: Path, change: Callable[[pa.Table], pa.Table], **options: Any) -> None:
    """Edit a table as other tools do, which write row groups of their own."""
    pq.write_table(change(pq.read_table(file)), file, **options)


def with_value(column: str, row: int, value: object) -> Callable[[pa.Table], pa.Table]:
    def change(table: pa.Table) -> pa.Table:
        values = table[column].to_pylist()
        values[row] = value
        place = table.column_names.index(column)
        return table.set_column(place, table.schema.field(column), pa.array(values, table.schema.field(column).type))

    return change


def test_untouched_export_comes_back_with_the_same_hash(store: Store, folder: Path, tmp_path: Path) -> None:
    again = prepare("parquet", folder, tmp_path / "again", processes=2)
    assert again.content_hash == store.content_hash
    assert open_store(tmp_path / "again").source == "toy"
    assert again.description == store.description


def test_table_holds_what_the_store_holds(store: Store, folder: Path) -> None:
    table = pq.read_table(folder / FRAMES)
    assert len(table) == len(store.keypoints)
    lower = [name.lower() for name in table.column_names]
    assert len(set(lower)) == len(lower)
    joint = H36M_17.index("RKnee")
    for column, expected in {
        "RKnee_x": store.keypoints[:, joint, 0],
        "RKnee_y": store.keypoints[:, joint, 1],
        "RKnee_confidence": store.confidence[:, joint],
        "RKnee_X_m": store.poses[:, joint, 0],
        "RKnee_Y_m": store.poses[:, joint, 1],
        "RKnee_Z_m": store.poses[:, joint, 2],
        "valid": store.valid,
    }.items():
        np.testing.assert_array_equal(table[column].to_numpy(), expected)
    sequence = store.sequences[7]
    mine = table.filter((pc.field("recording") == "walk 1") & (pc.field("camera") == "1"))
    assert len(mine) == sequence.frames
    np.testing.assert_allclose(mine["time_s"].to_numpy(), np.arange(sequence.frames) / 29.97, rtol=1e-12)
    assert pq.ParquetFile(folder / FRAMES).metadata.num_row_groups == len(store.sequences)
    assert pq.read_table(folder / SEQUENCES)["sha256"].to_pylist() == [row.sha256 for row in store.sequences]


@pytest.mark.parametrize("row_group_size", [7, 100, 100_000])
def test_other_row_groups_do_not_matter(store: Store, folder: Path, tmp_path: Path, row_group_size: int) -> None:
    rewritten(folder / FRAMES, lambda table: table, row_group_size=row_group_size)
    assert prepare("parquet", folder, tmp_path / "again").content_hash == store.content_hash


def test_doubles_and_additional_columns_do_not_matter(store: Store, folder: Path, tmp_path: Path) -> None:
    def change(table: pa.Table) -> pa.Table:
        doubles = table["Hip_x"].cast(pa.float64())
        table = table.set_column(table.column_names.index("Hip_x"), "Hip_x", doubles)
        subject = table["subject"].cast(pa.large_string()).dictionary_encode()
        table = table.set_column(0, "subject", subject)
        return table.append_column("remark", pa.array([None] * len(table), pa.string())).drop(["time_s"])

    rewritten(folder / FRAMES, change)
    assert prepare("parquet", folder, tmp_path / "again").content_hash == store.content_hash


def test_store_of_keypoints_on_another_skeleton(tmp_path: Path) -> None:
    sequences = [replace(sequence, poses=None) for sequence in toy.sequences(20)]
    arguments = {"source": "keypoints", "source_config": {}, "skeleton": COCO_17, "protocol": toy.PROTOCOL}
    store = write_store(tmp_path / "store", sequences, **arguments)
    export(store, tmp_path / "export")
    again = prepare("parquet", tmp_path / "export", tmp_path / "again")
    assert again.content_hash == store.content_hash
    assert again.skeleton is COCO_17
    assert again.poses_if_any is None


def test_edited_values_must_be_declared_and_are_told(store: Store, folder: Path, tmp_path: Path) -> None:
    rewritten(folder / FRAMES, with_value("RKnee_x", 50, 0.125))
    with pytest.raises(ValueError, match=r"A/sit 1/0 were changed after the export.*edited=true"):
        prepare("parquet", folder, tmp_path / "again")
    again = prepare("parquet", folder, tmp_path / "again", options=EDITED)
    assert again.content_hash != store.content_hash
    assert again.source == "parquet"
    assert again.description["source_config"]["exported_source"] == "toy"
    assert again.description["source_config"]["exported_hash"] == store.content_hash
    expected = store.keypoints.copy()
    expected[50, H36M_17.index("RKnee"), 0] = 0.125
    np.testing.assert_array_equal(again.keypoints, expected)
    np.testing.assert_array_equal(again.poses, store.poses)


def test_edited_protocol_must_be_declared(store: Store, folder: Path, tmp_path: Path) -> None:
    description = json.loads((folder / DESCRIPTION).read_text())
    description["protocol"]["held_out"] = []
    (folder / DESCRIPTION).write_text(json.dumps(description))
    with pytest.raises(ValueError, match=r"was changed after the export.*edited=true"):
        prepare("parquet", folder, tmp_path / "again")
    with pytest.raises(ValueError, match=r"B/walk 2/0 has split 'held_out', but the protocol .* makes it 'train'"):
        prepare("parquet", folder, tmp_path / "again", options=EDITED)
    rewritten(folder / SEQUENCES, with_value("split", 5, "train"))
    again = prepare("parquet", folder, tmp_path / "again", options=EDITED)
    assert [row.split for row in again.sequences].count("train") == 6


def test_recordings_may_be_removed(store: Store, folder: Path, tmp_path: Path) -> None:
    rewritten(folder / SEQUENCES, lambda table: table.slice(1))
    rewritten(folder / FRAMES, lambda table: table.slice(store.sequences[0].frames))
    again = prepare("parquet", folder, tmp_path / "again", options=EDITED)
    np.testing.assert_array_equal(again.poses, store.poses[store.sequences[0].frames :])


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        (FRAMES, lambda table: table.drop(["RKnee_x", "valid"]), r"lacks 2 columns.*: valid, RKnee_x"),
        (SEQUENCES, lambda table: table.drop(["split"]), r"lacks 1 columns.*: split"),
        (FRAMES, with_value("RKnee_x", 3, float("nan")), r"A/walk 1/0: keypoints holds 1 NaN .* frame 3, joint 2"),
        (FRAMES, with_value("RKnee_X_m", 3, float("inf")), r"A/walk 1/0: poses holds 1 NaN or infinite"),
        (FRAMES, with_value("RKnee_x", 3, None), r"RKnee_x has 1 empty values in sequence A/walk 1/0"),
        (FRAMES, with_value("valid", 3, None), r"valid has 1 empty values"),
        (FRAMES, with_value("frame", 3, 4), r"frames of A/walk 1/0 are out of order: row 3 holds frame 4, expected 3"),
        (FRAMES, with_value("frame", 3, None), r"frame has 1 empty values"),
        (FRAMES, with_value("subject", 3, None), r"row 3 has subject None, expected 'A'"),
        (FRAMES, with_value("camera", 3, "9"), r"row 3 has camera '9', expected '0'"),
        (FRAMES, lambda table: table.take(np.arange(len(table))[::-1]), r"row 0 has subject 'C', expected 'A'"),
        (FRAMES, lambda table: table.slice(1), r"has \d+ rows, but its sequences.parquet tells \d+ frames"),
        (FRAMES, lambda table: table.append_column("RKnee_x", table["RKnee_x"]), r"or has them twice: RKnee_x"),
        (SEQUENCES, lambda table: table.slice(0, 0), r"has no rows"),
        (SEQUENCES, with_value("frames", 0, 0), r"A/walk 1/0 occurs twice, or has 0 frames"),
        (SEQUENCES, with_value("frame_rate", 0, float("nan")), r"or has 40 frames at nan per second"),
        (SEQUENCES, with_value("recording", 0, "walk 2"), r"A/walk 2/0 occurs twice"),
        (SEQUENCES, with_value("subject", 0, None), r"empty values in the columns subject"),
        (SEQUENCES, with_value("camera_parameters", 0, "{"), r"camera_parameters of A/walk 1/0 is no JSON object"),
        (SEQUENCES, lambda table: table.take([0, 1, 2, 3, 4, 5, 6, 8, 7]), r"rows of one recording do not stand"),
    ],
)
def test_edits_that_break_it_are_located(
    folder: Path, tmp_path: Path, name: str, change: Callable[[pa.Table], pa.Table], message: str
) -> None:
    rewritten(folder / name, change)
    with pytest.raises(ValueError, match=message):
        prepare("parquet", folder, tmp_path / "again", options=EDITED)
    assert not (tmp_path / "again").exists()


def test_columns_of_another_type_are_refused(folder: Path, tmp_path: Path) -> None:
    def as_text(table: pa.Table) -> pa.Table:
        return table.set_column(table.column_names.index("Hip_x"), "Hip_x", table["Hip_x"].cast(pa.string()))

    rewritten(folder / FRAMES, as_text)
    with pytest.raises(ValueError, match="column Hip_x is string, expected decimal numbers"):
        prepare("parquet", folder, tmp_path / "again", options=EDITED)


@pytest.mark.parametrize("edited", [False, True])
@pytest.mark.parametrize("name", [FRAMES, SEQUENCES, DESCRIPTION])
def test_damaged_files_are_refused(store: Store, folder: Path, tmp_path: Path, name: str, edited: bool) -> None:
    content = (folder / name).read_bytes()
    generator = np.random.default_rng(0)
    kept = 0
    for attempt in range(12):
        damaged = bytearray(content)
        if attempt % 3:
            damaged[int(generator.integers(len(content)))] ^= 1 << int(generator.integers(8))
        else:
            del damaged[int(generator.integers(len(content))) :]
        (folder / name).write_bytes(damaged)
        try:
            again = prepare("parquet", folder, tmp_path / "again", options={"edited": edited})
        except ValueError:
            continue
        kept += 1
        # metadata that nobody reads may be damaged; values may not
        if not edited:
            assert again.content_hash == store.content_hash
        np.testing.assert_array_equal(again.poses, store.poses)
    assert kept < 12


@pytest.mark.parametrize("name", [FRAMES, SEQUENCES, DESCRIPTION])
def test_missing_files_are_named(folder: Path, tmp_path: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(ValueError, match=rf"parquet: {name} missing in the raw folder .*export"):
        prepare("parquet", folder, tmp_path / "again")


def test_export_does_not_replace_anything(store: Store, folder: Path) -> None:
    with pytest.raises(ValueError, match="exists, so nothing is exported"):
        export(store, folder)


def test_verbs(store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (
        ["publish", str(store.path), (tmp_path / "shared").as_uri()],
        ["export", str(store.path), str(tmp_path / "export")],
        ["prepare", "parquet", "--raw", str(tmp_path / "export"), "--out", str(tmp_path / "again")],
    ):
        with pytest.raises(SystemExit) as stopped:
            main(arguments)
        assert stopped.value.code == 0
    assert capsys.readouterr().out.count(store.content_hash[:16]) == 2
