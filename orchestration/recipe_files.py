"""Reads recipes, and values given on the command line, from TOML.

One TOML file is one run: no inheritance, no interpolation.
"""

import tomllib
from pathlib import Path
from typing import Any

from posegrid.orchestration.settings import Settings


def load_recipe(file: Path, overrides: list[str] | None = None) -> Settings:
    """Read a recipe and apply overrides such as "training.lr=2e-4".

    Raises ValueError for unreadable TOML, an unknown or mistyped key, or a value out of range.
    """
    values = read_toml(file)
    for override in overrides or []:
        _override(values, override)
    return Settings.from_plain({"name": file.stem, **values}, f"recipes/{file.name}")


def parse_overrides(overrides: list[str]) -> dict[str, Any]:
    """Values given on the command line, such as "seed=3", as a nested table."""
    values: dict[str, Any] = {}
    for override in overrides:
        _override(values, override)
    return values


def read_toml(file: Path) -> dict[str, Any]:
    """Read a TOML file. Raises ValueError with the line of the fault."""
    try:
        return tomllib.loads(file.read_text())
    except FileNotFoundError:
        raise ValueError(f"{file} does not exist.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{file} is not valid TOML: {error}.") from None


def _override(values: dict[str, Any], text: str) -> None:
    path, separator, value = text.partition("=")
    if not separator or not path.strip():
        raise ValueError(f'override "{text}" is not of the form key=value, for instance training.lr=2e-4.')
    *tables, key = path.strip().split(".")
    at = values
    for table in tables:
        at = at.setdefault(table, {})
        if not isinstance(at, dict):
            raise ValueError(f'override "{text}": {table} is a value, not a table.')
    try:
        at[key] = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        at[key] = value.strip()  # a bare word is a string: --set training.schedule=cosine
