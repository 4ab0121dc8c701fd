"""Options: plain values become configurations, mistakes are named with their place."""

import json
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import pytest

from posegrid.datasets.options import from_values, to_values


@dataclass(frozen=True, kw_only=True)
class Inner:
    rate: float = 0.5


@dataclass(frozen=True, kw_only=True)
class Outer:
    count: int
    name: str = "x"
    flag: bool = False
    mode: Literal["a", "b"] = "a"
    inner: Inner = field(default_factory=Inner)
    maybe: Inner | None = None
    names: tuple[str, ...] = ()
    mixed: tuple[str | dict, ...] = ()
    several: tuple[Inner, ...] = ()


def test_values_are_converted() -> None:
    built = from_values(
        Outer,
        {"count": 2, "inner": {"rate": 1}, "names": ["p", "q"], "mixed": ["n", {"k": 1}], "several": [{"rate": 0.1}]},
        "here",
    )
    assert built == Outer(
        count=2, inner=Inner(rate=1.0), names=("p", "q"), mixed=("n", {"k": 1}), several=(Inner(rate=0.1),)
    )
    assert isinstance(built.inner.rate, float)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"count": 1, "nam": "y"}, r'key "nam" \(here\) is unknown; did you mean "name"\?'),
        ({}, r"here lacks the key count"),
        ({"count": "many"}, r"here, key count = 'many' is a str, expected int"),
        ({"count": True}, r"key count = True is a bool, expected int"),
        ({"count": 1.5}, r"is a float, expected int"),
        ({"count": 1, "flag": "False"}, r"is a str, expected bool"),
        ({"count": 1, "mode": "c"}, r'value "c" \(here, key mode\) is unknown.*Known: a, b'),
        ({"count": 1, "inner": {"rat": 1}}, r'key "rat" \(here, key inner\).*"rate"'),
        ({"count": 1, "inner": 3}, r"must be a table"),
        ({"count": 1, "mixed": [3]}, r"mixed\[0\] = 3 is a int, expected str or dict"),
        ({"count": 1, "several": [{"rate": 1}, {"r": 1}]}, r"several\[1\]"),
    ],
)
def test_mistakes_are_named(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        from_values(Outer, values, "here")


def test_values_of_a_configuration_are_those_of_its_json_and_new_ones() -> None:
    built = Outer(
        count=2, names=("p",), mixed=("n", {"k": [1, {"l": (2, 3)}]}), maybe=Inner(), several=(Inner(rate=0.1),)
    )
    values = to_values(built)
    assert values == json.loads(json.dumps(asdict(built)))
    values["mixed"][1]["k"].append(4)
    assert built.mixed[1] == {"k": [1, {"l": (2, 3)}]}
    assert from_values(Outer, to_values(built), "here").several == built.several
