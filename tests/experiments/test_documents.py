"""Commands of documents and help parse against the real command line; the way of LIFTING.md is walked."""

import re
import shlex
from pathlib import Path

import click
import pytest
import typer
import yaml

from posegrid.datasets.keypoints.pose_files import read_poses
from posegrid.experiments import catalogue, search_files
from posegrid.experiments.cli import app, main
from posegrid.experiments.examples import EXAMPLES
from posegrid.experiments.reproductions import tables

ROOT = Path(__file__).parents[2]
DOCUMENTS = (
    *("README.md", "DATASETS.md", "EXPERIMENTS.md", "CLUSTER.md", "LIFTING.md", "CONTRIBUTING.md"),
    *("experiments/README.md", "datasets/README.md", "orchestration/README.md"),
)
OWN = {"linear", "beside.toml", "best.toml"}
"""What CONTRIBUTING.md adds, and what a search writes."""
PLACEHOLDER = re.compile(r"[A-Z_]{3,}|\.\.\.")
COMMAND = typer.main.get_command(app)


def verb_of(words: list[str]) -> tuple[click.Command, list[str]]:
    """The command that words call, and the rest of them."""
    command, left = COMMAND, list(words)
    while left and hasattr(command, "commands"):
        assert left[0] in command.commands, f"posegrid {' '.join(words)}: there is no {left[0]}"
        command = command.commands[left.pop(0)]
    return command, left


def parsed(words: list[str]) -> dict:
    """Parameters of a command line as the command would get them. Fails where it would be refused."""
    command, left = verb_of(words)
    try:
        return command.make_context(command.name, left).params
    except Exception as error:
        raise AssertionError(f"posegrid {shlex.join(words)}: {error}") from error


def blocks(document: str) -> list[str]:
    """Command lines of the indented and fenced blocks that are no Python, TOML and the like."""
    text = (ROOT / document).read_text()
    text = re.sub(r"^```\w+\n.*?^```$", "", text, flags=re.M | re.S)
    lines = re.findall(r"^(?:    )+(?!\s)([^|\n].*)$", text, re.M)
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines)).splitlines()
    # a remark stands after two blanks
    return [re.split(r"\s{2,}(?=[a-z#])", line.strip())[0] for line in joined]


def mentioned(document: str) -> list[str]:
    """Commands within sentences and tables."""
    return re.findall(r"`(posegrid [^`]+)`", (ROOT / document).read_text())


def check_names(words: list[str], where: str) -> None:
    """Recipes, grids, searches and tables of a command exist."""
    recipes, grids = catalogue.names(catalogue.RECIPES), catalogue.names(catalogue.GRIDS)
    searches = {file.stem for file in search_files.SEARCHES.glob("*.toml")}
    known = {
        "train": {*recipes},
        "grid": {*grids},
        "search": searches,
        "plan": {*recipes, *grids},
        "reproduce": {*tables()},
        "import-checkpoint": {*recipes},
        "complexity": {*recipes},
    }
    if words[0] in known and len(words) > 1 and not words[1].startswith("-") and not PLACEHOLDER.search(words[1]):
        assert words[1] in known[words[0]] | OWN, f"{where}: posegrid {' '.join(words)}"


@pytest.mark.parametrize("document", DOCUMENTS)
def test_commands_of_documents_parse_and_name_what_exists(document: str) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    found = 0
    for line in blocks(document):
        if line.startswith("make "):
            assert line.split()[1] in targets, line
            found += 1
        if not line.startswith("posegrid ") or " --- " in line:  # a picture has lines of blanks and dashes
            continue
        words = shlex.split(line, comments=True)[1:]
        params = parsed(words)
        check_names(words, document)
        if words[0] == "submit":
            inner = words[words.index("--") + 1 :] if "--" in words else []
            assert params
            if inner:
                parsed(inner)
                check_names(inner, document)
        found += 1
    for text in mentioned(document):
        words = shlex.split(text.replace("VERB --help", "train --help"))[1:]
        if not words or words[0].startswith("--"):
            continue
        command, left = verb_of(words)
        options = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
        given = left[: left.index("--")] if "--" in left else left
        for word in given:
            if word.startswith("--") and word != "--help":
                assert word in options, f"{document}: {text}"
        check_names(words, document)
        found += 1
    assert found, f"{document} has no command"


def test_every_verb_has_an_example_in_its_help() -> None:
    verbs = []
    for name, command in COMMAND.commands.items():
        verbs += [f"{name} {inner}" for inner in command.commands] if hasattr(command, "commands") else [name]
    assert sorted(verbs) == sorted(EXAMPLES)
    for verb in verbs:
        command, _ = verb_of(verb.split())
        text = command.get_help(click.Context(command, info_name=verb))
        (example,) = re.findall(r"Example:\n +(posegrid .*)$", text, re.M)
        words = shlex.split(example)[1:]
        assert example == EXAMPLES[verb]
        assert words[: len(verb.split())] == verb.split()
        parsed(words)
        check_names(words, "help")


def test_own_keypoints_as_the_document_tells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The commands of "Try it" in order, with less data and training than they say."""
    less = {
        "prepare": "--option seconds=4.5 --option 'actions=[\"walk\"]' --option train_subjects=2 "
        "--option test_subjects=1",
        "train": "--set training.epochs=1 --set model.channels=16 --set training.grid=9",
        "lift": "--seconds 0.2",
    }
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("posegrid.experiments.reports.grid_report.build_report", lambda *_: None)
    section = re.search(r"^## Try it\n(.*?)^## ", (ROOT / "LIFTING.md").read_text(), re.M | re.S)
    assert section is not None
    lines = re.findall(r"^    (posegrid .*)$", section[1], re.M)
    assert [line.split()[1] for line in lines] == ["prepare", "train", "export-keypoints", "lift"]
    for line in lines:
        words = shlex.split(f"{line} {less.get(line.split()[1], '')}")[1:]
        with pytest.raises(SystemExit) as ended:
            main(words)
        assert not ended.value.code, (line, capsys.readouterr())
    clip = read_poses(tmp_path / "poses.parquet")
    assert len(clip.rows.frame) == 100
    # of the wrist's 25 hidden frames and the elbow's 15, gaps of up to 5 frames are filled: none of these
    assert (~clip.rows.visible).sum() == 25 + 15
    assert (tmp_path / "walk.gif").stat().st_size > 1000


def test_ctrl_c_ends_with_130_and_says_how_to_continue(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("posegrid.experiments.planning.open_store", interrupted)
    monkeypatch.setattr("posegrid.experiments.data_commands.say", interrupted)
    words = ["train", "lifters_mlp", "--data", str(tmp_path / "a store"), "--home", str(tmp_path)]
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 130
    assert f"this continues where it stopped:\n  posegrid {shlex.join(words)}" in capsys.readouterr().err


def test_citation_has_the_keys_that_the_format_requires() -> None:
    """Required of version 1.2.0: authors (a name or family and given names), cff-version, message, title."""
    content = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"authors", "cff-version", "message", "title"} <= content.keys()
    assert content["cff-version"] == "1.2.0"
    assert content["type"] in ("software", "dataset")
    assert all("name" in author or {"family-names", "given-names"} <= author.keys() for author in content["authors"])
    project = (ROOT / "pyproject.toml").read_text()
    assert f'version = "{content["version"]}"' in project
    assert f'license = "{content["license"]}"' in project
    for name in ("CHANGELOG.md", "LICENSE", *DOCUMENTS):
        assert (ROOT / name).stat().st_size > 500
    for document in DOCUMENTS:
        for link in re.findall(r"\]\((?!https?://|#|mailto)([^)#]+)", (ROOT / document).read_text()):
            assert ((ROOT / document).parent / link).exists(), f"{document}: {link}"


def test_pages_of_the_reference_exist() -> None:
    """`make docs` names modules that are there."""
    recipe = re.search(r"^docs:.*?\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.M)
    assert recipe is not None
    modules = re.findall(r"posegrid\.([\w.]+)", recipe[1])
    assert len(modules) > 10
    for module in modules:
        assert (ROOT / f"{module.replace('.', '/')}.py").is_file(), module
