"""The verbs of the command line that make and look at data; `cli` registers them."""

import sys
from pathlib import Path
from typing import Annotated

import typer


def say(text: str) -> None:
    """Print a line at once, also into a pipe."""
    typer.echo(text)
    sys.stdout.flush()


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
) -> None:
    """Turn raw files into one verified Arrow store."""
    from posegrid.datasets.prepare import prepare as run
    from posegrid.orchestration.settings import parse_overrides

    def progress(done: int, total: int, name: str) -> None:
        if done == total or done % max(total // 10, 1) == 0:
            say(f"  {done}/{total} recordings, last {name}")

    store = run(source, raw, out, options=parse_overrides(option or []), processes=processes, progress=progress)
    splits = {split: 0 for split in ("train", "held_out", "test", "unused")}
    for sequence in store.sequences:
        splits[sequence.split] += sequence.frames
    counts = ", ".join(f"{split} {frames:,}" for split, frames in splits.items() if frames)
    say(f"{out}: {len(store.sequences)} sequences, frames: {counts}; hash {store.content_hash[:16]}")
