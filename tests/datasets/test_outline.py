"""Published sizes as stores: they add up, split as the protocols say, take no memory, and windows can be cut."""

import json
from pathlib import Path

import pytest

from posegrid.datasets.checks import integrity
from posegrid.datasets.outline import NO_HASH, OUTLINES, is_outline, outline
from posegrid.datasets.store import Store
from posegrid.datasets.windows import consecutive_windows, training_count

TABLE = json.loads((Path(integrity.__file__).parent / "published_counts.json").read_text())


def frames(store: Store, *splits: str) -> int:
    return sum(one.frames for one in store.sequences if one.split in splits)


@pytest.mark.parametrize("entry", TABLE, ids=lambda entry: f"{entry['source']} {entry['splits'][0]}")
def test_frames_are_those_of_the_table_of_published_counts(entry: dict) -> None:
    assert frames(outline(entry["source"]), *entry["splits"]) == entry["frames"]


def test_human36m_has_the_published_sequences() -> None:
    store = outline("h36m")
    assert [len(store.of_split("train", "held_out")), len(store.of_split("test"))] == [600, 236]
    assert len(store.of_split("held_out")) == 15 * 4
    assert not any(one.split == "unused" for one in store.sequences)
    by_subject = {one.subject: 0 for one in store.sequences}
    for one in store.sequences:
        by_subject[one.subject] += one.frames
    assert by_subject["S1"] == 248_376
    assert by_subject["S7"] + by_subject["S8"] == 665_196
    assert len({one.name for one in store.sequences}) == len(store.sequences)


def test_windows_of_diffhpe_are_as_many_as_published() -> None:
    """About 57.8 thousand in training, about 20 thousand in the test."""
    store = outline("h36m")
    assert training_count(store, ("train", "held_out"), 27) == pytest.approx(57_800, rel=0.01)
    assert len(consecutive_windows(store, "test", 27)) == pytest.approx(20_000, rel=0.02)


def test_held_out_subject_of_mpi_inf_3dhp() -> None:
    store = outline("mpi_inf_3dhp")
    assert {one.subject for one in store.sequences if one.split == "held_out"} == {"S8"}
    assert {one.frame_rate for one in store.sequences if one.split == "train"} == {25.0, 50.0}


def test_amass_trains_longer_than_it_tests() -> None:
    """Three hours of the three data sets that validate, published to the hundredth of a minute."""
    store = outline("amass")
    assert frames(store, "test") == round((144.54 + 15.23 + 16.53) * 60 * 50)
    assert frames(store, "train") > 10 * frames(store, "test")


@pytest.mark.parametrize("name", OUTLINES)
def test_an_outline_takes_no_memory(name: str, toy_store: Store) -> None:
    store = outline(name)
    assert all(set(array.strides) == {0} for array in store.columns)
    assert is_outline(store)
    assert store.content_hash == NO_HASH
    assert not is_outline(toy_store)


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ValueError, match=r'"h36" \(option --as\) is unknown; did you mean "h36m"'):
        outline("h36")
