"""Damaged files for every reader, in small: `experiments/benchmarks/fuzz_readers.py` takes thousands of them.

Also what makes the fuzzing worth anything: judges that notice wrong values, and workers whose death is noticed.
"""

import copy
import multiprocessing
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from body_files import Old, old_pickle
from fuzzing import attempts, pickles
from fuzzing.formats import Format
from PIL import Image

from posegrid.datasets.store import SEQUENCES
from posegrid.datasets.unpickling.restricted_pickle import read_npz, read_pickle

SHAPES_ONLY = ("JPEG",)
"""Formats of which a judge cannot tell values."""
METADATA = ["keypoints", "metadata"]


@pytest.mark.slow
def test_damaged_files_are_read_as_what_they_say_or_refused():
    """Some of every format, and one harmful file of each that has any."""
    inputs = attempts.plan(200, seed=0)
    found = list(attempts.outcomes(inputs))
    assert len(found) == len(inputs) == 200
    assert {wanted.format for wanted, _ in found} == {form.name for form in attempts.TABLE}
    assert not [(wanted.again, outcome) for wanted, outcome in found if outcome not in attempts.SOUND]
    # if everything were refused, or nothing, the inputs would be too coarse or too fine
    counts = [sum(outcome == sound for _, outcome in found) for sound in attempts.SOUND]
    assert min(counts) > 5


def test_harmful_pickles_run_in_the_usual_way(tmp_path):
    assert attempts.control(tmp_path / "ran")


def test_a_worker_that_dies_or_hangs_is_noticed_and_replaced():
    one = attempts.Input(format="BVH", kind="cut", number=0, seed=0)
    running = attempts.outcomes([one, one, one], seconds=30)
    assert next(running) == (one, "refused")
    multiprocessing.active_children()[0].kill()
    assert [outcome for _, outcome in running] == ["the process ended with status -9", "refused"]
    assert [outcome for _, outcome in attempts.outcomes([one], seconds=0)] == ["no end within 0 s"]


@pytest.mark.parametrize("form", attempts.TABLE, ids=lambda form: form.name)
def test_whole_files_are_read_and_wrong_values_are_noticed(form: Format, tmp_path: Path):
    form.write(tmp_path, form.content())
    values = form.read(tmp_path)
    assert values
    assert attempts.same(values, attempts._whole(form.name))
    if form.judge is None or form.name in SHAPES_ONLY:
        return
    assert not form.judge(tmp_path, values)
    name = next((name for name in values if name.endswith("keypoints")), next(iter(values)))
    for place, wrong in enumerate((changed(values[name]), None)):
        again = tmp_path / str(place)
        again.mkdir()
        form.write(again, form.content())
        others = {key: value for key, value in values.items() if key != name}
        assert form.judge(again, others if wrong is None else {**values, name: wrong})


def changed(value):
    """One number, or letter, is another."""
    if isinstance(value, np.ndarray):
        other = value.copy()
        other.flat[-1] += 1
        return other
    if isinstance(value, dict):
        key = next(iter(value))
        return {**value, key: changed(value[key])}
    return f"{value}x" if isinstance(value, str) else (*value[:-1], changed(value[-1]))


# ---------------------------------------------------------------------------------------------------------------------
# What fuzzing found
# ---------------------------------------------------------------------------------------------------------------------


def whole(name: str, folder: Path) -> tuple[Format, Any]:
    """The format, and what its files hold; they are written."""
    form = next(each for each in attempts.TABLE if each.name == name)
    content = copy.deepcopy(form.content())  # parts of it belong to every test of the format
    form.write(folder, content)
    return form, content


@pytest.mark.parametrize("name", ["store, store.json", "export, store.json", "protocol TOML", "COCO results"])
def test_text_nested_too_deeply_is_refused(name, tmp_path):
    form, _ = whole(name, tmp_path)
    form.hostile["deep"](tmp_path, tmp_path / "ran")
    with pytest.raises(ValueError, match=rf"{form.damaged[0]} (cannot be read|is damaged).*recursion depth"):
        form.read(tmp_path)


def test_empty_values_in_the_sequence_table_are_refused(tmp_path):
    form, _ = whole("store, sequences.arrow", tmp_path)
    for column in ("sha256", "offset", "camera"):
        table = pa.ipc.open_file(pa.BufferReader((tmp_path / SEQUENCES).read_bytes())).read_all()
        place = table.column_names.index(column)
        empty = table.set_column(place, column, pa.nulls(len(table), table.schema.types[place]))
        (tmp_path / column).mkdir()
        for file in tmp_path.glob("*.*"):
            shutil.copy(file, tmp_path / column)
        with pa.OSFile(str(tmp_path / column / SEQUENCES), "wb") as sink, pa.ipc.new_file(sink, empty.schema) as writer:
            writer.write_table(empty)
        with pytest.raises(
            ValueError, match=rf"store .*{column} cannot be read .*empty values in the columns {column}"
        ):
            form.read(tmp_path / column)


def test_an_unknown_skeleton_names_its_file(tmp_path):
    form, _ = whole("keypoint table's TOML", tmp_path)
    (tmp_path / "own.toml").write_text('skeleton = "coco_71"\n')
    with pytest.raises(ValueError, match=r"own\.csv: skeleton 'coco_71' is unknown.*key skeleton in own\.toml"):
        form.read(tmp_path)


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("BVH", b"OFFSET 0.0 2.0 0.0\n", b"\n", r"take\.bvh, line \d+: rib has no OFFSET"),
        (
            "BVH",
            b"OFFSET 0.0 2.0 0.0\n",
            b"OFFSET 0.0 2.0 0.0\nOFFSET 0 0 9\n",
            r"line \d+: cannot read 'OFFSET 0 0 9'",
        ),
        ("BVH", b"JOINT rib\n", b"JOINT rib\nOFFSET 0 0 9\n", r"line \d+: cannot read 'OFFSET 0 0 9'"),
        ("BVH", b"3 Yrotation Zrotation X", b"3 Yrotation Zrotation Y", r"line \d+: channels .*, each once"),
        # the second camera's numbers would become those of the first
        ("Skeletool calibration", b"0\nname          1", b"0Jname          1", r"calibration cannot be read .*twice"),
        ("keypoint table CSV", b"sequence,", b"s\xe5quence,", r"own\.csv cannot be read as a table"),
    ],
)
def test_damaged_text_is_refused(name, old, new, message, tmp_path):
    form, _ = whole(name, tmp_path)
    file = tmp_path / form.damaged[0]
    assert old in file.read_bytes()
    file.write_bytes(file.read_bytes().replace(old, new))
    with pytest.raises(ValueError, match=message):
        form.read(tmp_path)


def test_texts_that_lie_beyond_the_end_of_a_store_are_refused(tmp_path):
    """To follow their offsets ends the process: this one reads in another."""
    whole("store, sequences.arrow", tmp_path)
    file = tmp_path / SEQUENCES
    offsets = np.arange(5, dtype="<i4").tobytes()  # subjects A, A, B, C
    content = file.read_bytes()
    assert content.count(offsets) > 0
    file.write_bytes(content.replace(offsets, np.array([0, 1, 2, 2**28, 4], dtype="<i4").tobytes()))
    code = "import sys; from posegrid.datasets.store import open_store; open_store(sys.argv[1])"
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False)
    assert (done.returncode, "ValueError: store" in done.stderr, "Column 0" in done.stderr) == (1, True, True)


@pytest.mark.parametrize(
    ("name", "path", "value", "message"),
    [
        (
            "AMASS",
            ["betas", 3],
            np.inf,
            r"01_01_poses\.npz: betas holds 1 NaN or infinite values, the first at index 3",
        ),
        ("AMASS", ["trans"], np.array(1.5), r"01_01_poses\.npz: trans is float64 \(\), expected floats"),
        ("AMASS", ["gender"], np.zeros(0), r"01_01_poses\.npz: gender is array"),
        ("Human3.6M npz", [*METADATA, "keypoints_symmetry", 0], [4, [5, 6]], r"mirror pairs \[\[4, \[5, 6\]"),
        ("Human3.6M npz", [*METADATA, "num_joints"], np.zeros(3), r"describes \[0.0, 0.0, 0.0\] joints"),
        ("VideoPose3D custom npz", ["metadata", "layout_name"], {}, r"own\.npz: metadata gives the layout_name {}"),
        ("VideoPose3D custom npz", ["metadata", "video_metadata", "clip", "w"], 10**12, "width .* whole pixels up to"),
        # cameras are told by their places: one cell less would give every later one the keypoints of the next
        (
            "MPI-INF-3DHP annot.mat",
            ["annot2"],
            [np.zeros((4, 56))] * 13,
            r"annot2 has 13 cells and annot3 14; both must",
        ),
    ],
)
def test_wrong_values_are_refused(name, path, value, message, tmp_path):
    form, content = whole(name, tmp_path)
    owner = content
    for key in path[:-1]:
        owner = owner[key]
    owner[path[-1]] = value
    form.write(tmp_path, content)
    with pytest.raises(ValueError, match=message):
        form.read(tmp_path)


def test_a_png_whose_checksum_is_wrong_is_refused(tmp_path):
    """Pillow alone reads it: it compares the checksum of the picture only when it is told to."""
    form, _ = whole("PNG", tmp_path)
    file = tmp_path / "frame.png"
    content = bytearray(file.read_bytes())
    content[-13] ^= 1  # the last byte of the picture's checksum, before the twelve of the end
    file.write_bytes(content)
    with Image.open(file) as image:
        image.load()
    with pytest.raises(ValueError, match=r"frame\.png cannot be read .*checksum"):
        form.read(tmp_path)


@pytest.mark.parametrize(
    "parts", [{"indices": [0, -1]}, {"data": [1.0]}, {"indptr": [0, 1, 1]}], ids=["negative", "short", "left over"]
)
def test_sparse_matrices_whose_parts_do_not_fit_are_refused(parts, tmp_path):
    sound = {"_shape": (2, 2), "data": [1.0, 2.0], "indices": [0, 1], "indptr": [0, 1, 2]}
    state = {name: np.array(value) if name != "_shape" else value for name, value in (sound | parts).items()}
    state["indices"] = state["indices"].astype(np.int32)
    file = tmp_path / "m.pkl"
    file.write_bytes(old_pickle({"m": Old("scipy.sparse.csc", "csc_matrix", state)}))
    with pytest.raises(ValueError, match=r"m\.pkl is damaged .*parts do not fit"):
        read_pickle(file, ["m"])


def test_entries_that_unpack_to_thousands_of_times_their_size_are_refused(tmp_path):
    file = tmp_path / "bomb.npz"
    pickles.zip_bomb("data", pickles.npy_header("<f4", f"({249 * 2**19}, 8)"), file)
    with pytest.raises(
        ValueError, match=r"bomb\.npz is damaged .*data\.npy would unpack from 40\d{5} to 417\d{7} bytes"
    ):
        read_npz(file, ["data"])
    # what is constant may be packed well
    np.savez_compressed(file, data=np.ones((2**20, 8)))
    assert read_npz(file, ["data"])["data"].all()
