"""`posegrid reproduce`: a published table by one command, as published or at a size for a laptop."""

import json
import shlex
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from posegrid.experiments.answers import Answer, answering, say
from posegrid.experiments.command_options import Address, Home, Json, Launch, TrackingUri

if TYPE_CHECKING:
    # imported when used: `posegrid --help` answers at once
    from posegrid.experiments.reproductions import SmallGrid, Table

_SCALES = ("small", "paper")
_SYNTHETIC = Path("data/synthetic")


def reproduce(
    table: Annotated[str | None, typer.Argument(help="Published table; without one they are listed.")] = None,
    scale: Annotated[
        str, typer.Option("--scale", help='"small": scaled down, for two CPU cores and generated motion; or "paper".')
    ] = "small",
    data: Annotated[
        str | None, typer.Option("--data", help="Data store; default: data/synthetic, or that of the paper.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would run, and plan it.")] = False,
    home: Home = Path("runs"),
    tracking: TrackingUri = None,
    launch: Launch = "ray",
    address: Address = None,
    gpus: Annotated[
        float | None, typer.Option("--gpus-per-worker", help="GPUs for each training; default: 0 if small, else 1.")
    ] = None,
    json_: Json = False,
) -> None:
    """Make the rows of a published table again: scaled down anywhere, or by the paper's full commands."""
    from posegrid.experiments.reproductions import table_named, tables

    if table is None:
        with answering(json_) as answer:
            _list(list(tables().values()), answer)
        return
    if scale not in _SCALES:
        raise ValueError(f'--scale {scale} is unknown. Allowed are "small" and "paper". Choose one.')
    found = table_named(table)
    where = ["--home", str(home), "--launch", launch]
    where += ["--tracking", tracking] if tracking else []
    where += ["--address", address] if address else []
    with answering(json_) as answer:
        if scale == "small":
            commands = _small(found, data, where, home, gpus or 0.0, dry_run)
        else:
            commands = _paper(found, data, where, home, 1.0 if gpus is None else gpus, dry_run)
        ran = {"scale": scale, "ran": not dry_run, "home": home, "tracking": tracking}
        answer.give(_plain(found, commands) | ran)


def _plain(table: "Table", commands: list[list[str]]) -> dict[str, Any]:
    about = {"name": table.name, "source": table.source, "protocol": table.protocol, "data": table.data}
    return about | {"note": table.note, "commands": [f"posegrid {shlex.join(words)}" for words in commands]}


def _list(every: "list[Table]", answer: Answer) -> None:
    width = max(len(one.name) for one in every)
    for one in every:
        commands = (
            f"{len(one.commands)} command{'s' * (len(one.commands) != 1)}" if one.commands else "not yet possible"
        )
        answer.show(f"{one.name:<{width}}  {commands:<16}  {one.source}")
    answer.show(
        "posegrid reproduce TABLE --scale small   runs a scaled-down version; --dry-run only prints what would run"
    )
    answer.give([_plain(one, [list(words) for words in one.commands]) for one in every])


def _heading(table: "Table") -> None:
    say(f"{table.name}: {table.source}")
    say(f"published protocol: {table.protocol}")
    if table.note:
        say(f"note: {table.note}")


def _small(
    table: "Table", data: str | None, where: list[str], home: Path, gpus: float, dry_run: bool
) -> list[list[str]]:
    """Run the scaled-down version; returns the commands that ran, or that would run."""
    from posegrid.datasets.addresses import is_address
    from posegrid.experiments.reproductions import grid_text, small_grids, unscaled

    grids = small_grids(table)
    _heading(table)
    say(
        "SCALED DOWN: smaller networks, shorter windows and training than published, and other data unless --data names"
    )
    say("the paper's. What comes out says that the path works, and nothing about the published numbers.")
    for one in grids:
        _say_changes(one)
    store = data or str(_SYNTHETIC)
    there = is_address(store) or Path(store).exists()
    ran = []
    if data is None and not there:
        prepare = ["prepare", "synthetic", "--out", store, "--option", "seconds=4.0"]
        say(f"first: posegrid {shlex.join(prepare)}")
        ran.append(prepare)
        if not dry_run:
            _run(prepare)
    folder = home / "reproduce"
    for one in grids:
        file = folder / f"{one.name}.toml"
        words = ["grid", str(file), "--data", store, *where, *(["--gpus-per-worker", f"{gpus:g}"] if gpus else [])]
        say(f"posegrid {shlex.join(words)}")
        ran.append(words)
        header = [f"{table.name} of published.toml, scaled down by `posegrid reproduce {table.name} --scale small`"]
        if dry_run:
            with tempfile.TemporaryDirectory(prefix="posegrid-") as scratch:
                draft = Path(scratch) / file.name
                draft.write_text(grid_text(one.grid, header))
                _plan(str(draft), store if there else None, home, gpus, [])
            continue
        folder.mkdir(parents=True, exist_ok=True)
        file.write_text(grid_text(one.grid, header))
        _run(words)
    for words in unscaled(table):
        say(f"posegrid {shlex.join(words)}   (as published: it trains nothing)")
        ran.append(words)
        if not dry_run:
            _run(words)
    say("SCALED DOWN, see above: not comparable with the published table.")
    return ran


def _paper(
    table: "Table", data: str | None, where: list[str], home: Path, gpus: float, dry_run: bool
) -> list[list[str]]:
    """Run the published version; returns the commands that ran, or that would run."""
    from posegrid.experiments.reproductions import paper_commands

    store = data or f"data/{table.data}"
    commands, ran = paper_commands(table, store, gpus), []
    _heading(table)
    for words in commands:
        trains = words[0] in ("grid", "train")
        full = [*words, *where] if trains else words
        ran.append(full)
        say(f"posegrid {shlex.join(full)}")
        if not dry_run:
            _run(full)
        elif trains:
            there = Path(store).exists() or "://" in store
            changes = [words[at + 1] for at, word in enumerate(words) if word == "--set"]
            _plan(words[1], store if there else None, home, gpus, changes, like=table.data)
    return ran


def _say_changes(small: "SmallGrid") -> None:
    say(f"{small.name}: {len(small.grid.members)} members, patterns {_patterns(small.grid.train)}")
    for recipe, changed in small.changed.items():
        listed = ", ".join(f"{key} {_short(before)} -> {_short(after)}" for key, (before, after) in changed.items())
        say(f"  {recipe}: {listed}")


def _patterns(patterns: tuple[str | dict[str, Any], ...]) -> str:
    from posegrid.orchestration.settings import occlusion_label

    return ", ".join(one if isinstance(one, str) else occlusion_label(one) for one in patterns)


def _short(value: Any) -> str:
    return "default" if value is None else json.dumps(value)


def _plan(name: str, data: str | None, home: Path, gpus: float, changes: list[str], like: str = "") -> None:
    """Plan a grid or recipe where the data are there, or their published size is known; else say what is needed."""
    from posegrid.datasets.outline import OUTLINES
    from posegrid.experiments.plan_commands import plan_command

    if data is None and like not in OUTLINES:
        say("  (no data yet: prepare the store for a plan with hours)")
        return
    plan_command(
        name,
        data=data,
        as_=None if data else like,
        home=home,
        gpus_each=gpus,
        set_=changes,
        tracking=None,
        address=None,
    )


def _run(words: list[str]) -> None:
    from posegrid.experiments.cli import app

    app(words, standalone_mode=False)
