"""What commands print: lines for people, or with --json one document for scripts. Nothing else decides where it goes.

With --json standard output holds the document and nothing else, and only if the command succeeds: whatever else is
printed meanwhile, also by libraries, goes to standard error. Numbers that JSON does not know (NaN) are null.
"""

import json
import math
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import fields, is_dataclass
from typing import Any

import typer


def say(text: str) -> None:
    """Print a line at once, also into a pipe: progress, remarks."""
    typer.echo(text)
    sys.stdout.flush()


class Answer:
    """The result of a command, in both forms."""

    def __init__(self, as_json: bool) -> None:
        self.as_json = as_json
        self._documents: list[Any] = []

    def show(self, text: str) -> None:
        """Print a part of the result for people; nothing with --json."""
        if not self.as_json:
            say(text)

    def give(self, content: Any) -> None:
        """The whole result for scripts, printed when the command ends well; nothing without --json.

        content: mappings, sequences, data classes, arrays, numbers, text. What else there is becomes text, as paths do.
        """
        self._documents.append(content)

    def document(self) -> str:
        """The result as JSON."""
        (content,) = self._documents  # exactly one document is promised
        return json.dumps(plain(content), indent=1, allow_nan=False)


@contextmanager
def answering(as_json: bool) -> Iterator[Answer]:
    """Collect what a command answers, and print the document at the end if it is wanted."""
    answer = Answer(as_json)
    if not as_json:
        yield answer
        return
    with redirect_stdout(sys.stderr):
        yield answer
    say(answer.document())


def plain(content: Any) -> Any:
    """As what JSON has: text, numbers, lists, objects, true, false, null."""
    if content is None or isinstance(content, str | bool | int):
        return content
    if isinstance(content, float):
        return float(content) if math.isfinite(content) else None
    if isinstance(content, Mapping):
        return {str(key): plain(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [plain(value) for value in content]
    if is_dataclass(content) and not isinstance(content, type):
        return {field.name: plain(getattr(content, field.name)) for field in fields(content)}
    if hasattr(content, "tolist"):  # arrays and their numbers, without importing NumPy for `posegrid --help`
        return plain(content.tolist())
    return str(content)
