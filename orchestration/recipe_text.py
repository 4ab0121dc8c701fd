"""Settings as the text of a recipe: the inverse of `recipe_files`."""

import json
import re
from typing import Any

from posegrid.orchestration.settings import Settings

_TABLES = ("model", "conditioner", "initial", "occlusion", "data", "training", "compute", "evaluation")
_FILLED_IN = {"initial": ("digest", "key")}
"""Keys that the plan fills in."""


def recipe_text(settings: Settings, header: list[str]) -> str:
    """A recipe with every value that the settings have, defaults too: it means the same when defaults change.

    header: lines of the comment at its top. Values that are not given (None) are left out, and what a plan filled in.
    """
    plain = settings.plain()
    parts = ["".join(f"# {line}\n" if line else "#\n" for line in header)]
    for table in _TABLES:
        values = plain[table]
        if values is None or values == {"pattern": "none"}:
            continue
        lines = [f"[{table}]"]
        for key, value in values.items():
            if value is not None and key not in _FILLED_IN.get(table, ()):
                lines.append(f"{_key(key)} = {_value(value)}")
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


def _value(value: Any) -> str:
    """A value in TOML; tables within tables in one line."""
    if isinstance(value, dict):
        inner = ", ".join(f"{_key(key)} = {_value(one)}" for key, one in value.items() if one is not None)
        return f"{{ {inner} }}" if inner else "{}"
    if isinstance(value, list):
        return f"[{', '.join(_value(one) for one in value)}]"
    # JSON's numbers, words and escapes are TOML's too
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else json.dumps(key, ensure_ascii=False)
