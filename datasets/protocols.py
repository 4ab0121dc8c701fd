"""Splits as data: a TOML file of the user in place of the split that a source proposes."""

import tomllib
from dataclasses import dataclass, fields, replace
from pathlib import Path

from posegrid.datasets.options import from_values, unknown
from posegrid.datasets.schema import Protocol, Recording


@dataclass(frozen=True, kw_only=True)
class Changes:
    """What a protocol file may say; what it leaves out stays as the source proposes it."""

    train: tuple[str, ...] | None = None
    """Training subjects."""
    test: tuple[str, ...] | None = None
    """Test subjects."""
    held_out: tuple[str, ...] | None = None
    """Training subjects, or recordings of them ("subject/recording"), kept for selection."""
    excluded: tuple[str, ...] | None = None
    """Recordings ("subject/recording") left out of the store."""
    note: str | None = None
    """What a reader of results must know about this split."""


def read_protocol(file: Path) -> Changes:
    """The changes in a TOML file. Raises ValueError if it is missing, no TOML, or has unknown keys or wrong types."""
    try:
        values = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(
            f"protocol file {file} cannot be read ({error}); expected a TOML file with some of the keys "
            f"{', '.join(field.name for field in fields(Changes))}. Correct the file or the path given with --protocol."
        ) from None
    return from_values(Changes, values, f"protocol file {file}")


def changed(proposed: Protocol, changes: Changes, recordings: list[Recording], where: str) -> Protocol:
    """The proposed protocol with the user's changes; `where` names the file for messages.

    Held-out entries that the source proposes are dropped where their subject no longer trains. Raises ValueError for
    subjects and recordings that do not exist, a subject that both trains and tests, and held-out entries that do not
    train.
    """
    given = {field.name: getattr(changes, field.name) for field in fields(changes)}
    result = replace(proposed, **{name: value for name, value in given.items() if value is not None})
    subjects = sorted({recording.subject for recording in recordings})
    names = sorted({f"{recording.subject}/{recording.name}" for recording in recordings})
    for key, known in (
        ("train", subjects),
        ("test", subjects),
        ("held_out", subjects + names),
        ("excluded", names),
    ):
        for entry in given[key] or ():
            if entry not in known:
                what = "recording" if "/" in entry or key == "excluded" else "subject"
                nearby = [name for name in known if ("/" in name) == (what == "recording")]
                raise unknown(what, entry, f"{where}, key {key}", _few(entry, nearby))
    both = sorted(set(result.train) & set(result.test))
    if both:
        raise ValueError(
            f"{where}: the subjects {', '.join(both)} would both train and test. Keys that the file leaves out stay as "
            "the source proposes them: give train and test so that they have no subject in common."
        )
    if not result.train and not result.test:
        raise ValueError(f"{where}: neither train nor test names a subject. Give at least one.")
    idle = [entry for entry in result.held_out if entry.split("/")[0] not in result.train]
    if idle and changes.held_out is not None:
        raise ValueError(
            f"{where}, key held_out: {', '.join(idle)} is not of a training subject ({', '.join(result.train)}). Held "
            "out are recordings that would train otherwise: add the subject to train or remove the entry."
        )
    return replace(result, held_out=tuple(entry for entry in result.held_out if entry not in idle))


def _few(entry: str, known: list[str]) -> list[str]:
    """The names worth showing: those of the same subject where there are any, twenty at most."""
    same = [name for name in known if name.split("/")[0] == entry.split("/")[0]]
    return (same or known)[:20]
