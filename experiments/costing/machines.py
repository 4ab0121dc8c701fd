"""Machines that a plan reckons with: prices and rates, from a file that users edit."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from posegrid.datasets.options import from_values, unknown
from posegrid.orchestration.recipe_files import read_toml
from posegrid.orchestration.work_estimate import Rates

MACHINES = Path(__file__).parent / "machines.toml"


@dataclass(frozen=True, kw_only=True)
class Machine:
    """A kind of machine."""

    name: str
    """Name in the file; of clouds the instance type."""
    device: str
    """How the name of its devices starts, as torch tells it: runs on such devices are measurements."""
    gpus: int
    """GPUs of one machine; 0: devices are cores."""
    usd_per_hour: float
    """USD an hour on demand."""
    usd_per_hour_spot: float
    """USD an hour as a spot instance."""
    rates: Rates
    """Of one device."""


@dataclass(frozen=True, kw_only=True)
class _Defaults:
    """Which machines are meant where none is named."""

    default_gpu: str
    """With GPUs."""
    default_cpu: str
    """Without."""
    machines: dict[str, Any]
    """Tables of machines by name."""


def machine(name: str | None, *, gpu: bool, file: Path | None = None) -> Machine:
    """The machine of that name, or the file's default. Raises ValueError for an unknown one, wrong values, or if it
    has no GPUs where some are asked."""
    file = file or MACHINES
    content = from_values(_Defaults, read_toml(file), str(file))
    wanted = name or (content.default_gpu if gpu else content.default_cpu)
    if wanted not in content.machines:
        raise unknown("machine", wanted, f"--machine, or a default in {file}", list(content.machines))
    found = _read(wanted, content.machines[wanted], file)
    if gpu != (found.gpus > 0):
        others = [one for one, table in content.machines.items() if gpu == (_read(one, table, file).gpus > 0)]
        raise ValueError(
            f"machine {wanted} ({file}) has {found.gpus} GPUs, but --gpus-per-worker asks for "
            f"{'some' if gpu else 'none'}. Machines that fit: {', '.join(others) or 'none'}. Change one of the two."
        )
    return found


def _read(name: str, table: Any, file: Path) -> Machine:
    where = f"{file}, machine {name}"
    if not isinstance(table, dict):
        raise ValueError(f"{where} must be a table of keys and values, got {table!r}.")
    of_rates = {field.name for field in fields(Rates)}
    rates = from_values(Rates, {key: value for key, value in table.items() if key in of_rates}, where)
    rest = {key: value for key, value in table.items() if key not in of_rates}
    found = from_values(Machine, {"name": name, **rest, "rates": vars(rates)}, where)
    if found.gpus < 0 or found.usd_per_hour < 0 or found.usd_per_hour_spot < 0:
        raise ValueError(
            f"{where}: gpus = {found.gpus}, usd_per_hour = {found.usd_per_hour}, usd_per_hour_spot = "
            f"{found.usd_per_hour_spot}. None can be below 0: correct the file."
        )
    return found
