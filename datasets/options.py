"""Plain values <-> configuration dataclass, with errors that say what was given, where, what is allowed, what to do."""

from dataclasses import MISSING, fields, is_dataclass
from difflib import get_close_matches
from functools import cache
from types import UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

C = TypeVar("C")


def unknown(what: str, given: str, where: str, known: list[str]) -> ValueError:
    """The error for a name that does not exist; names the nearest one that does."""
    near = get_close_matches(given, known, 1, 0.5)
    hint = f'did you mean "{near[0]}"? ' if near else ""
    return ValueError(f'{what} "{given}" ({where}) is unknown; {hint}Known: {", ".join(sorted(known))}.')


def from_values(cls: type[C], values: dict[str, Any], where: str) -> C:
    """Build the dataclass `cls` from plain values such as a TOML table.

    Integers become floats and lists become tuples where the field asks for it; nested dataclasses take nested tables.
    `where` names the file and table for the message. Raises ValueError for an unknown key, a missing one or a wrong
    type; checks of values are left to the dataclass's own `__post_init__`.
    """
    hints = _hints(cls)  # type: ignore[arg-type]
    known = {field.name: field for field in fields(cls)}  # type: ignore[arg-type]
    if not isinstance(values, dict):
        raise ValueError(f"{where} must be a table of keys and values, got {values!r}.")
    for key in values:
        if key not in known:
            raise unknown("key", key, where, list(known))
    missing = [
        name
        for name, field in known.items()
        if name not in values and field.default is MISSING and field.default_factory is MISSING
    ]
    if missing:
        raise ValueError(f"{where} lacks the key{'s' * (len(missing) > 1)} {', '.join(missing)}. Add a value.")
    given = {name: _converted(hints[name], value, f"{where}, key {name}") for name, value in values.items()}
    try:
        return cls(**given)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


def to_values(value: Any) -> Any:
    """The inverse of `from_values`: dataclasses as tables, tuples as lists, as JSON has them; always new containers.

    A plan asks for it many thousand times; `dataclasses.asdict` copies every number by `deepcopy`, which takes
    more than twice as long.
    """
    if isinstance(value, dict):
        return {name: to_values(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [to_values(one) for one in value]
    if is_dataclass(value):
        cls: type = type(value)
        return {name: to_values(getattr(value, name)) for name in _names(cls)}
    return value


@cache
def _names(cls: type) -> tuple[str, ...]:
    return tuple(field.name for field in fields(cls))


@cache
def _hints(cls: type) -> dict[str, Any]:
    """Types of the fields; to read them takes longer than all the rest."""
    return get_type_hints(cls)


def _converted(hint: Any, value: Any, where: str) -> Any:
    if get_origin(hint) in (Union, UnionType):
        options = get_args(hint)
        if value is None and type(None) in options:
            return None
        options = tuple(option for option in options if option is not type(None))
        if len(options) > 1:
            if isinstance(value, options):
                return value
            names = " or ".join(option.__name__ for option in options)
            raise ValueError(f"{where} = {value!r} is a {type(value).__name__}, expected {names}.")
        (hint,) = options
    if is_dataclass(hint):
        return from_values(hint, value, where)  # type: ignore[arg-type]
    origin = get_origin(hint) or hint
    if origin is Literal:
        if value not in get_args(hint):
            raise unknown("value", str(value), where, [str(option) for option in get_args(hint)])
        return value
    if origin is tuple and isinstance(value, list | tuple):
        inner = get_args(hint)[0] if get_args(hint) else None
        return tuple(
            _converted(inner, item, f"{where}[{index}]") if inner else item for index, item in enumerate(value)
        )
    if origin is dict and isinstance(value, dict):
        return dict(value)
    if origin is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    # bool is an int in Python, but `heads = true` is a mistake
    if origin is Any or (isinstance(value, origin) and not (origin is int and isinstance(value, bool))):
        return value
    raise ValueError(
        f"{where} = {value!r} is a {type(value).__name__}, expected {getattr(origin, '__name__', origin)}."
    )
