"""What nodes are asked before a study starts, without a cluster: the questions run here, each twice as two nodes."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from posegrid.datasets.store import Store
from posegrid.orchestration import preflight
from posegrid.orchestration.preflight import Answer, Question, answer, clean_up, compare, installed, unseen, unshared
from posegrid.orchestration.tracking import Tracking


@pytest.fixture
def question(tmp_path: Path, tracking: Tracking, toy_store: Store) -> Question:
    return Question(
        tracking=tracking.uri,
        storage=str(tmp_path / "state"),
        data=str(toy_store.path),
        data_hash=toy_store.content_hash,
        probe="preflight-0",
    )


def test_a_node_where_all_is_well(question: Question) -> None:
    said = answer(question, "one (10.0.0.1)")
    assert said.findings == []
    assert said.versions == installed()
    assert set(said.seconds) == {"storage", "tracking", "data"}
    assert (Path(question.storage) / "preflight-0" / "one_10.0.0.1_").read_text() == "one (10.0.0.1)"


@pytest.mark.parametrize("address", ["{}", "file://{}"])
def test_nodes_read_what_others_wrote(question: Question, tmp_path: Path, address: str) -> None:
    question = replace(question, storage=address.format(tmp_path / "state"))
    for node in ("one", "two"):
        answer(question, node)
    assert unseen(question, ["one", "two"]) == []
    assert unshared(question, {"one": [], "two": []}) == []
    clean_up(question)
    assert not list((tmp_path / "state").iterdir())


def test_a_folder_of_one_machine_is_no_storage(question: Question, tmp_path: Path) -> None:
    answer(question, "one")
    elsewhere = replace(question, storage=str(tmp_path / "another machine"))
    answer(elsewhere, "two")
    missing = {"one": unseen(question, ["one", "two"]), "two": unseen(elsewhere, ["one", "two"])}
    assert missing == {"one": ["two"], "two": ["one"]}
    (text,) = unshared(question, missing)
    assert "one does not see that of two; two does not see that of one" in text
    assert "--storage" in text
    assert "Allowed: a shared file system" in text


def test_options_of_an_address_stay_last(question: Question) -> None:
    folder = preflight._storage(replace(question, storage="s3://bucket/state?region=eu-west-1"))
    assert folder.path == "bucket/state/preflight-0"


def test_storage_that_cannot_be_written(question: Question, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    said = answer(replace(question, storage=str(tmp_path / "file" / "state")), "one")
    (text,) = said.findings
    assert "cannot be written there" in text
    assert "--storage" in text


def test_tracking_server_that_does_not_answer(question: Question) -> None:
    said = answer(replace(question, tracking="http://127.0.0.1:9"), "one")
    (text,) = said.findings
    assert "tracking server http://127.0.0.1:9 does not answer" in text
    assert "Allowed: a server that every node reaches" in text


def test_other_data_than_planned(question: Question, toy_store: Store, tmp_path: Path) -> None:
    (text,) = answer(replace(question, data_hash="f" * 64), "one").findings
    assert f"has hash {toy_store.content_hash[:12]} there, the driver's has ffffffffffff" in text
    (text,) = answer(replace(question, data=str(tmp_path / "none")), "one").findings
    assert "--data" in text


def test_every_byte_is_read_only_when_asked(question: Question, toy_store: Store, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged"
    shutil.copytree(toy_store.path, damaged)
    content = bytearray((damaged / "frames.arrow").read_bytes())
    content[len(content) // 2] ^= 1
    (damaged / "frames.arrow").write_bytes(content)
    question = replace(question, data=str(damaged))
    assert answer(question, "one").findings == []
    (text,) = answer(replace(question, every_byte=True), "one").findings
    assert "Allowed: one that every node has at the same path" in text


def test_findings_of_several_nodes_are_told_once() -> None:
    driver = {"python": "3.11", "torch": "2.13.0", "posegrid": "aaa"}
    same = Answer(node="one", versions=driver)
    older = {**driver, "torch": "2.12.1", "posegrid": "bbb"}
    findings = compare(driver, [same, *(Answer(node=node, versions=older, findings=["no disk"]) for node in "ab")])
    assert findings[0] == "a, b: no disk"
    assert findings[1].startswith("a, b: torch 2.12.1 (the driver has 2.13.0), posegrid bbb (the driver has aaa); ")
    assert "Run `ray up` with the same wheel" in findings[1]
    assert compare(driver, [same]) == []
    assert "of 3 node(s) cannot run this study" in str(preflight.refusal(findings, 3))


def test_versions_without_the_accelerator_of_their_build(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "version", lambda package: "2.13.0+cu130")
    assert installed()["torch"] == "2.13.0"


def test_digest_follows_the_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Room:
        def __init__(self, name: str) -> None:
            self.__path__ = [str(tmp_path / name.removeprefix("posegrid."))]

    for room in ("datasets", "models", "orchestration", "experiments"):
        (tmp_path / room).mkdir()
    (tmp_path / "models" / "a.py").write_text("x = 1\n")
    monkeypatch.setattr(preflight.importlib, "import_module", Room)
    first = preflight.source_digest()
    (tmp_path / "models" / "a.pyc").write_text("no source")
    assert preflight.source_digest() == first
    (tmp_path / "models" / "a.py").write_text("x = 2\n")
    assert preflight.source_digest() != first
