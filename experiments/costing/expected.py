"""The line of a published recipe's header that says how long its command takes.

    python -m posegrid.experiments.costing.expected            prints the line of every published recipe
    python -m posegrid.experiments.costing.expected --write    puts them into the headers

An estimate with the shipped machines.toml on the machine of cluster.yaml, of everything that the command of the header
runs: the recipe, its conditioner and the conditioner's folds, one worker with one GPU each.
"""

import re
import sys
from pathlib import Path

from posegrid.datasets.outline import outline
from posegrid.experiments import catalogue
from posegrid.experiments.costing.machines import machine
from posegrid.experiments.costing.study_cost import study_cost
from posegrid.experiments.plan_commands import grid_or_recipe
from posegrid.experiments.planning import plan
from posegrid.orchestration.launch.resources import Resources

_COMMAND = re.compile(r"posegrid (?:grid|train) (\S+) --data data/(\S+)")
_ONE_GPU = Resources(gpus=1)


def published_recipes() -> list[str]:
    """Recipes whose header names what was published."""
    return [name for name in catalogue.names(catalogue.RECIPES) if "\n# published  " in _text(name)]


def expected_line(name: str) -> str:
    """The line of a recipe's header. Raises ValueError if the header has no command with a data set of known size."""
    found = _COMMAND.search(_text(name))
    if found is None:
        raise ValueError(
            f"recipe {name} has no line `posegrid train NAME --data data/SET` or `posegrid grid ...` in its header. "
            "Give it one, with a data set of known size."
        )
    asked, data = found.groups()
    grid, decides = grid_or_recipe(asked, [], [])
    planned = plan(asked, grid, outline(data), decides=decides, gpu=True)
    chosen = machine(None, gpu=True)
    hours = study_cost(planned, chosen, _ONE_GPU, None).device_hours
    return (
        f"# expected   about {_rounded(hours)} GPU-hours on {chosen.name} (estimate: posegrid plan, assumptions in "
        "experiments/costing/machines.toml)"
    )


def _rounded(hours: float) -> str:
    """Two significant digits: more would pretend."""
    return f"{float(f'{hours:.2g}'):g}"


def with_line(text: str, line: str) -> str:
    """A recipe's text with that line: in place of the one that it has, else after what was published."""
    lines = text.splitlines(keepends=True)
    own = [index for index, old in enumerate(lines) if old.startswith("# expected   about ")]
    if own:
        lines[own[0]] = line + "\n"
        return "".join(lines)
    at = next(index for index, old in enumerate(lines) if old.startswith("# published  ")) + 1
    while lines[at].startswith("#    "):  # the published line goes on
        at += 1
    return "".join([*lines[:at], line + "\n", *lines[at:]])


def _text(name: str) -> str:
    return (catalogue.RECIPES / f"{name}.toml").read_text()


def main(arguments: list[str]) -> None:
    """Print or write the lines."""
    for name in published_recipes():
        line = expected_line(name)
        print(f"{name}\n  {line}", flush=True)
        if "--write" in arguments:
            file: Path = catalogue.RECIPES / f"{name}.toml"
            file.write_text(with_line(file.read_text(), line))


if __name__ == "__main__":
    main(sys.argv[1:])
