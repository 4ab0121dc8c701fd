"""The table of published frame counts agrees with itself and with the sources, and stores are held against it."""

import json
from pathlib import Path

import pytest
from mpi_inf_3dhp_files import SEQUENCES, TESTS, made_up_test, made_up_training, write_npz

from posegrid.datasets.checks import integrity
from posegrid.datasets.checks.findings import FAILED, OK, WARNING
from posegrid.datasets.checks.integrity import check_store
from posegrid.datasets.prepare import prepare
from posegrid.datasets.sources import h36m, mpi_inf_3dhp

TABLE = json.loads((Path(integrity.__file__).parent / "published_counts.json").read_text())


def entry(source: str, split: str) -> dict:
    (found,) = [known for known in TABLE if known["source"] == source and split in known["splits"]]
    return found


def test_the_table_adds_up():
    train, test = entry("mpi_inf_3dhp", "train"), entry("mpi_inf_3dhp", "test")
    assert train["frames"] == sum(train["recordings"].values()) * len(mpi_inf_3dhp.CAMERAS) == 8 * 131_592
    assert list(train["recordings"]) == [name.replace(" ", "/") for name in mpi_inf_3dhp.FRAME_RATES]
    assert test["frames"] == sum(test["recordings"].values()) == 2929
    # sequences of 50 Hz have about twice as many frames: the two tables were copied without a shift
    for name, frames in train["recordings"].items():
        assert (frames > 9000) == (mpi_inf_3dhp.FRAME_RATES[name.replace("/", " ")] == 50)
    # published by subject: S1, S5, S6, and S7 with S8; S11's first Directions is left out
    assert entry("h36m", "train")["frames"] == 248_376 + 396_316 + 249_864 + 665_196
    assert entry("h36m", "test")["frames"] == 550_644 - 4 * 1825
    assert h36m.PROTOCOL.excluded == ("S11/Directions",)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """All sequences, a few frames each, with cameras."""
    folder = write_npz(tmp_path_factory.mktemp("raw"), "_ori", 1.0)
    return prepare("mpi_inf_3dhp", folder, folder / "store", options={"annotation": "metric"})


def counted(**changes) -> list[dict]:
    """A table that is right for the store, with changes by recording."""
    train = {name.replace(" ", "/"): len(made_up_training(name, "0")[0]) for name in SEQUENCES}
    test = {f"{name}/{name}": int(made_up_test(name)[2].sum()) for name in TESTS}
    return [
        {"source": "mpi_inf_3dhp", "splits": ["train", "held_out"], "frames": 8 * sum(train.values()), "from": "here"}
        | {"recordings": {**train, **changes}},
        {"source": "mpi_inf_3dhp", "splits": ["test"], "frames": sum(test.values()), "from": "there"}
        | {"recordings": test, "only_valid": True},
    ]


def rows(store) -> list[tuple[str, str, str]]:
    found = [finding for finding in check_store(store) if finding.check.startswith("published")]
    return [(finding.check, finding.status, finding.place) for finding in found]


def test_recordings_and_valid_frames_are_counted(store, tmp_path, monkeypatch):
    file = tmp_path / "counts.json"
    monkeypatch.setattr(integrity, "_COUNTS", file)
    names = ("published frames, train + held_out", "published valid frames, test")
    file.write_text(json.dumps(counted()))
    assert rows(store) == [(names[0], OK, "here"), (names[1], OK, "there")]
    file.write_text(json.dumps(counted(**{"S6/Seq2": 5})))
    assert rows(store)[0] == (names[0], WARNING, "S6/Seq2/0 has 7, not 5")
    file.write_text(json.dumps([{**known, "frames": 3} for known in counted()]))
    assert [status for _, status, _ in rows(store)] == [WARNING, WARNING]


def test_a_prepared_store_passes_all_other_checks(store):
    """Bones, depth, sides, and test keypoints against projections by the cameras of the test sequences."""
    found = check_store(store)
    assert not [finding for finding in found if finding.status == FAILED]
    (projected,) = [finding for finding in found if finding.check == "reprojection, camera test"]
    assert projected.status == OK
