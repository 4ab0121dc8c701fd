"""A split of one's own, as a TOML file."""

from dataclasses import asdict
from pathlib import Path

import pytest

from posegrid.datasets.prepare import prepare
from posegrid.datasets.schema import Protocol
from posegrid.datasets.store import open_store

OPTIONS = {"seconds": 1.0, "actions": ["walk", "wave"], "train_subjects": 3, "test_subjects": 1}


def split(tmp_path: Path, text: str) -> dict[str, set[str]]:
    """Prepare with a protocol file; recordings of each split."""
    file = tmp_path / "mine.toml"
    file.write_text(text)
    store = prepare("synthetic", None, tmp_path / "store", options=OPTIONS, protocol=file)
    found: dict[str, set[str]] = {}
    for row in open_store(store.path).sequences:
        found.setdefault(row.split, set()).add(f"{row.subject}/{row.recording}")
    return found


def test_file_replaces_the_split_of_the_source(tmp_path):
    found = split(
        tmp_path,
        'train = ["P4", "P1"]\ntest = ["P2"]\nheld_out = ["P4", "P1/wave 1"]\nexcluded = ["P2/walk 1"]\nnote = "mine"',
    )
    assert found == {
        "train": {"P1/walk 1"},
        "held_out": {"P4/walk 1", "P4/wave 1", "P1/wave 1"},
        "test": {"P2/wave 1"},
        "unused": {"P3/walk 1", "P3/wave 1"},
    }
    assert open_store(tmp_path / "store").description["protocol"] == {
        "train": ["P4", "P1"],
        "test": ["P2"],
        "held_out": ["P4", "P1/wave 1"],
        "excluded": ["P2/walk 1"],
        "keypoints": "",
        "note": "mine",
    }


def test_what_the_file_leaves_out_stays(tmp_path):
    proposed = prepare("synthetic", None, tmp_path / "proposed", options=OPTIONS).description["protocol"]
    assert proposed["held_out"] == ["P1/walk 1", "P2/wave 1", "P3/walk 1"]
    found = split(tmp_path, 'test = ["P3"]\ntrain = ["P1", "P2"]')
    assert found["held_out"] == {"P1/walk 1", "P2/wave 1"}
    recorded = open_store(tmp_path / "store").description["protocol"]
    assert recorded == {
        **proposed, "test": ["P3"], "train": ["P1", "P2"], "held_out": ["P1/walk 1", "P2/wave 1"]
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('trian = ["P1"]', r'key "trian" \(protocol file .*mine\.toml\) is unknown; did you mean "train"'),
        ("train = 3", r"mine\.toml, key train = 3 is a int, expected tuple"),
        ("train = [1]", r"key train\[0\] = 1 is a int, expected str"),
        ('train = ["P11"]', r'subject "P11" .*mine\.toml, key train\) is unknown; did you mean "P1"'),
        ('held_out = ["P1/wav 1"]', r'recording "P1/wav 1" .*did you mean "P1/wave 1"'),
        ('held_out = ["P9"]', r'subject "P9" .*key held_out\) is unknown; .*P1, P2, P3, P4'),
        ('excluded = ["P1"]', r'recording "P1" .*key excluded\) is unknown.*P1/walk 1, P1/wave 1'),
        ('test = ["P1"]', r"the subjects P1 would both train and test"),
        ('held_out = ["P4/walk 1"]', r"P4/walk 1 is not of a training subject \(P1, P2, P3\)"),
        ("train = []\ntest = []", "neither train nor test names a subject"),
        ("train = [", r"mine\.toml cannot be read .*train, test, held_out, excluded, note"),
    ],
)
def test_mistakes_are_named(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        split(tmp_path, text)
    assert not (tmp_path / "store").exists()


def test_missing_and_binary_files_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"none\.toml cannot be read"):
        prepare("synthetic", None, tmp_path / "store", protocol=tmp_path / "none.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match=r"binary\.toml cannot be read"):
        prepare("synthetic", None, tmp_path / "store", protocol=tmp_path / "binary.toml")


def test_parts_of_a_recording_follow_it():
    protocol = Protocol(train=("A", "B"), test=("C",), held_out=("A/walk 1", "B"), excluded=("A/sit 1",))
    cases = {
        ("A", "walk 1"): "held_out",
        ("A", "walk 1 part 2"): "held_out",
        ("A", "walk 12"): "train",
        ("A", "walk part 1"): "train",
        ("A", "sit 1 part 10"): "unused",
        ("B", "anything part 3"): "held_out",
        ("C", "walk 1 part 1"): "test",
        ("D", "walk 1"): "unused",
    }
    assert {case: protocol.split_of(*case) for case in cases} == cases
    assert Protocol(**asdict(protocol)) == protocol
