"""The verbs of the command line that make and look at data; `cli` registers them."""

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    # commands import what they need when they run: `posegrid --help` answers at once
    from posegrid.datasets.prepare import Progress


def say(text: str) -> None:
    """Print a line at once, also into a pipe."""
    typer.echo(text)
    sys.stdout.flush()


class _PreparationLines:
    """A line for every tenth of the recordings, and when ten seconds have passed."""

    def __init__(self) -> None:
        self._said = time.monotonic()
        self._tenth = 0

    def __call__(self, state: "Progress") -> None:
        if state.stage == "writing":
            say(f"  writing the store: {state.frames:,} frames")
        if state.stage != "reading":
            return
        if state.kept == state.done and state.kept:
            say(f"  {state.kept}/{state.total} recordings are there from an earlier attempt")
        tenth = 10 * state.done // max(state.total, 1)
        if state.done == state.kept or (tenth == self._tenth and time.monotonic() - self._said < 10):
            return
        self._tenth, self._said = tenth, time.monotonic()
        left = f", about {state.left_s:.0f} s left" if state.done < state.total else ""
        say(f"  {state.done}/{state.total} recordings, {state.frames:,} frames, last {state.recording}{left}")


def prepare(
    source: Annotated[str, typer.Argument(help="Data source: synthetic, cmu, h36m.")],
    out: Annotated[Path, typer.Option("--out", help="Folder of the store to write.")],
    raw: Annotated[
        Path | None, typer.Option("--raw", help="Folder with the raw files, if the source needs any.")
    ] = None,
    option: Annotated[
        list[str] | None, typer.Option("--option", help="Setting of the source: --option seed=3 (repeatable).")
    ] = None,
    processes: Annotated[int, typer.Option("--processes", help="Processes that read recordings.")] = 2,
    address: Annotated[
        str | None,
        typer.Option(
            "--address",
            envvar="RAY_ADDRESS",
            help="Ray cluster whose nodes read the recordings instead; they must reach the raw files.",
        ),
    ] = None,
    protocol: Annotated[
        Path | None,
        typer.Option("--protocol", help="TOML file with train, test, held_out, excluded, note: a split of your own."),
    ] = None,
) -> None:
    """Turn raw files into one verified Arrow store. Repeat it to continue after an interruption."""
    from posegrid.datasets.prepare import prepare as run
    from posegrid.orchestration.settings import parse_overrides

    options, progress = parse_overrides(option or []), _PreparationLines()
    if address:
        from posegrid.orchestration.launch.ray_prepare import on_cluster

        with on_cluster(address) as elsewhere:
            store = run(source, raw, out, options=options, elsewhere=elsewhere, protocol=protocol, progress=progress)
    else:
        store = run(source, raw, out, options=options, processes=processes, protocol=protocol, progress=progress)
    splits = {split: 0 for split in ("train", "held_out", "test", "unused")}
    for sequence in store.sequences:
        splits[sequence.split] += sequence.frames
    counts = ", ".join(f"{split} {frames:,}" for split, frames in splits.items() if frames)
    say(f"{out}: {len(store.sequences)} sequences, frames: {counts}; hash {store.content_hash[:16]}")
