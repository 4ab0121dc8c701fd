"""The `posegrid` commands that documents show: where they stand, and when two of them are one case for a test.

Two commands are one case if they have the same verb and the same kinds of words. Their difference is then a name: of a
recipe, a grid, a run, a folder. What is kept of a word:

- its place, and whether it is an address (of which scheme), a folder, a file (its ending), a TOML table, a registered
  model, a run id, the name of a run, or else just a word;
- the word itself where it chooses what is done: the source of `prepare` and `fetch`, what is checked, the network whose
  checkpoint is imported, and the values of the options in `CHOICES`;
- the table of a recipe that `--set` changes, and the setting of a source that `--option` changes;
- whether another option is repeated.
"""

import re
import shlex
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import typer

from posegrid.experiments import catalogue
from posegrid.experiments.cli import app

ROOT = Path(__file__).parents[1]
DOCUMENTS = (
    *("README.md", "DATASETS.md", "EXPERIMENTS.md", "LIFTING.md"),
    *("experiments/README.md", "datasets/README.md", "orchestration/README.md"),
)
RUN = re.compile(r"\b(RUN(_ID)?|[0-9a-f]{8})\b")
"""Placeholders of run ids, and ids of runs that a document names."""
RECIPE_OF = {"RECIPE": "mixste_27"}
CHOICES = ("as_", "launch", "scale")
SHELL = ("```", "```sh", "```bash", "```console", "```shell")
NAMED = ("prepare", "fetch", "check")


@dataclass(frozen=True)
class Shown:
    """A command of a document."""

    document: str
    words: tuple[str, ...]
    """Without "posegrid"."""

    def __str__(self) -> str:
        return f"posegrid {shlex.join(self.words)}"


@dataclass(frozen=True)
class Case:
    """What a command does, apart from names."""

    verb: str
    parts: tuple[str, ...]
    """Kinds of its words: positional ones in order, then options sorted by name."""


def shown(document: str) -> list[Shown]:
    """Commands of the blocks of a document, then those in its sentences and tables."""
    text = (ROOT / document).read_text()
    lines = [*_block_lines(text), *(" ".join(found.split()) for found in re.findall(r"`(posegrid\s[^`]+)`", text))]
    return [Shown(document, tuple(shlex.split(line, comments=True)[1:])) for line in lines]


def mentions(document: str) -> int:
    """How often a document has `posegrid` and one of its verbs, or an option, wherever that is."""
    text = " ".join((ROOT / document).read_text().split())
    return len(re.findall(rf"\bposegrid (?:--|(?:{'|'.join(_command().commands)}|VERB)\b)", text))


def _block_lines(text: str) -> Iterator[str]:
    """Lines that begin with posegrid in indented and fenced blocks, continued ones joined, without remarks."""
    fence = ""
    for line in re.sub(r"\\\n\s*", " ", text).splitlines():
        if line.startswith("```"):
            fence = "" if fence else line
        elif line.lstrip().startswith("posegrid ") and (fence in SHELL if fence else line.startswith("    ")):
            # a remark stands after two blanks
            yield re.split(r"\s{2,}(?=[a-z#])", line.strip())[0]


@cache
def _command() -> Any:
    return typer.main.get_command(app)


def verb_of(words: tuple[str, ...]) -> tuple[str, Any, list[str]]:
    """Verb, its command, and the other words."""
    command, left, verb = _command(), list(words), []
    while left and hasattr(command, "commands") and not left[0].startswith("-"):
        name = "train" if left[0] == "VERB" else left[0]
        assert name in command.commands, f"posegrid {' '.join(words)}: there is no {name}"
        command = command.commands[name]
        verb.append(left.pop(0))
    return " ".join(verb), command, left


def refused(words: tuple[str, ...]) -> str:
    """Why the command line does not take these words, empty if it does."""
    _, command, left = verb_of(words)
    if hasattr(command, "commands"):
        return "" if left else "no verb"
    try:
        command.make_context(command.name, [word for word in left if word != "--help"])
    except Exception as error:  # whichever click typer uses
        return "" if "--help" in left else str(error) or type(error).__name__
    return ""


def case_of(words: tuple[str, ...]) -> Case:
    """What a complete command does, apart from names."""
    verb, command, left = verb_of(words)
    inner = left.index("--") if "--" in left else len(left)
    options = {name: one for one in command.params for name in (*one.opts, *one.secondary_opts)}
    places: list[str] = []
    given: Counter[str] = Counter()
    queue = left[:inner]
    while queue:
        word = queue.pop(0)
        if not word.startswith("-"):
            places.append(_place(verb, len(places), word))
        elif word not in options:
            given[word] += 1
        else:
            option = options[word]
            given[_option(option.name, "" if option.is_flag else queue.pop(0))] += 1
    repeated = [f"{name}{' again' * (count > 1 and name[:6] != '--set ')}" for name, count in given.items()]
    return Case(verb, (*places, *sorted(repeated), *(["-- ..."] if inner < len(left) else [])))


def _place(verb: str, number: int, word: str) -> str:
    if number == 0 and verb in NAMED:
        return word
    if number == 0 and verb == "import-checkpoint":
        return str(catalogue.recipe(RECIPE_OF.get(word, word)).model["name"])
    return kind(word)


def _option(name: str, value: str) -> str:
    shown_as = f"--{name.rstrip('_')}"
    if name == "set_":
        return f"{shown_as} {value.partition('.')[0].rpartition(':')[2]}"
    if name == "option":
        return f"{shown_as} {value.partition('=')[0]}"
    found = value if name in CHOICES else kind(value)
    return shown_as if found in ("", "word") else f"{shown_as} {found}"


def kind(word: str) -> str:
    """What sort of thing a word names."""
    if "://" in word:
        return word.split("://")[0] + "://"
    if word.startswith("models:/"):
        return "models:/"
    if word.startswith("{"):
        return "{}"
    if RUN.fullmatch(word):
        return "RUN"
    if word.endswith("/"):
        return "folder"
    if ending := re.fullmatch(r"[^ ]*(\.[a-z]\w*)", word):
        return ending[1]
    return "name of a run" if " " in word else "word"


def python_blocks(document: str) -> list[str]:
    """The fenced Python of a document."""
    return re.findall(r"^```python\n(.*?)^```$", (ROOT / document).read_text(), re.M | re.S)
