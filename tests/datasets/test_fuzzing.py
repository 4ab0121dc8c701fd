"""Damaged files for every reader, in small: `experiments/benchmarks/fuzz_readers.py` takes thousands of them.

Also what makes the fuzzing worth anything: judges that notice wrong values, and workers whose death is noticed.
"""

import multiprocessing
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from fuzzing import attempts, pickles
from fuzzing.formats import Format

from posegrid.datasets.restricted_pickle import read_npz
from posegrid.datasets.store import SEQUENCES

SHAPES_ONLY = ("JPEG",)
"""Formats of which a judge cannot tell values."""


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
    content = form.content()
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


def test_a_missing_camera_among_cells_is_refused(tmp_path):
    """Cameras are told by their places: one cell less would give every later camera the keypoints of the next."""
    form, content = whole("MPI-INF-3DHP annot.mat", tmp_path)
    del content["annot2"][5]
    form.write(tmp_path, content)
    with pytest.raises(ValueError, match=r"annot\.mat: annot2 has 13 cells and annot3 14; both must have one for each"):
        form.read(tmp_path)


def test_an_unknown_skeleton_names_its_file(tmp_path):
    form, _ = whole("keypoint table's TOML", tmp_path)
    (tmp_path / "own.toml").write_text('skeleton = "coco_71"\n')
    with pytest.raises(ValueError, match=r"own\.csv: skeleton 'coco_71' is unknown.*key skeleton in own\.toml"):
        form.read(tmp_path)


def test_an_infinite_shape_coefficient_is_named(tmp_path):
    form, content = whole("AMASS", tmp_path)
    content["betas"][3] = np.inf
    form.write(tmp_path, content)
    with pytest.raises(
        ValueError, match=r"01_01_poses\.npz: betas holds 1 NaN or infinite values, the first at index 3"
    ):
        form.read(tmp_path)


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
