"""The verbs of the command line that make and look at data; `cli` registers them."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from posegrid.experiments.answers import answering, say
from posegrid.experiments.command_options import Json

if TYPE_CHECKING:
    # commands import what they need when they run: `posegrid --help` answers at once
    from posegrid.datasets.prepare import Progress


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
    json_: Json = False,
) -> None:
    """Turn raw files into one verified Arrow store. Repeat it to continue after an interruption."""
    from posegrid.datasets.prepare import prepare as run
    from posegrid.orchestration.recipe_files import parse_overrides

    options, progress = parse_overrides(option or []), _PreparationLines()
    with answering(json_) as answer:
        if address:
            from posegrid.orchestration.launch.ray_prepare import on_cluster

            with on_cluster(address) as elsewhere:
                store = run(
                    source, raw, out, options=options, elsewhere=elsewhere, protocol=protocol, progress=progress
                )
        else:
            store = run(source, raw, out, options=options, processes=processes, protocol=protocol, progress=progress)
        splits = {split: 0 for split in ("train", "held_out", "test", "unused")}
        for sequence in store.sequences:
            splits[sequence.split] += sequence.frames
        counts = ", ".join(f"{split} {frames:,}" for split, frames in splits.items() if frames)
        answer.show(f"{out}: {len(store.sequences)} sequences, frames: {counts}; hash {store.content_hash[:16]}")
        about = {"store": out, "source": store.source, "hash": store.content_hash}
        answer.give(about | {"sequences": len(store.sequences), "frames": splits})


def export(
    store: Annotated[str, typer.Argument(help="Folder or address of a store.")],
    folder: Annotated[Path, typer.Argument(help="New folder for frames.parquet, sequences.parquet and store.json.")],
    json_: Json = False,
) -> None:
    """Write a store as Parquet for other tools; `posegrid prepare parquet --raw FOLDER` reads it back."""
    from posegrid.datasets.parquet import export as run
    from posegrid.datasets.store import open_store

    with answering(json_) as answer:
        opened = open_store(store)
        run(opened, folder)
        sequences, frames = len(opened.sequences), int(opened.lengths.sum())
        answer.show(f"{folder}: {sequences} sequences, {frames:,} frames")
        answer.give({"folder": folder, "sequences": sequences, "frames": frames, "hash": opened.content_hash})


def publish(
    store: Annotated[Path, typer.Argument(help="Folder of a store.")],
    address: Annotated[str, typer.Argument(help="Where it goes, such as s3://bucket/name or file:///shared/name.")],
    json_: Json = False,
) -> None:
    """Upload a store, so that every node of a cluster can fetch it with --data ADDRESS."""
    from posegrid.datasets.addresses import shown
    from posegrid.datasets.store_cache import publish as run

    with answering(json_) as answer:
        content_hash = run(store, address)
        answer.show(f"{shown(address)}: hash {content_hash[:16]}")
        answer.give({"address": shown(address), "hash": content_hash})


def fetch(
    source: Annotated[str, typer.Argument(help="What to download: cmu.")],
    subjects: Annotated[str, typer.Option("--subjects", help='Numbers of subjects, such as "01,02".')],
    out: Annotated[Path, typer.Option("--out", help="Folder for the raw files.")],
    takes: Annotated[
        str | None, typer.Option("--takes", help='Takes of each subject, such as "1,2"; default: all there are.')
    ] = None,
    mirror: Annotated[str | None, typer.Option("--mirror", help="Address of a copy of mocap.cs.cmu.edu.")] = None,
    pause: Annotated[float, typer.Option("--pause", help="Seconds between requests.")] = 1.0,
    max_gib: Annotated[float, typer.Option("--max-gib", help="Most GiB that one command may receive.")] = 8.0,
    json_: Json = False,
) -> None:
    """Download motion files of the CMU database politely. Repeat it to continue or to verify what is there."""
    from posegrid.datasets.fetching import cmu as fetch_cmu
    from posegrid.datasets.fetching.transfer import Downloader, Manners
    from posegrid.datasets.options import unknown

    if source != "cmu":
        raise unknown("data source", source, "posegrid fetch", ["cmu"])
    if mirror is None and pause < 0.5:
        raise ValueError(
            f"--pause {pause}: expected at least 0.5 s for the database's own server. Raise it, or name a --mirror."
        )
    manners = Manners(pause_s=pause, largest_total=int(max_gib * 2**30))
    wanted = fetch_cmu.numbers_of(subjects, "--subjects")
    some = fetch_cmu.numbers_of(takes, "--takes") if takes else None
    with answering(json_) as answer:
        with Downloader(manners, say=say) as downloader:
            done = fetch_cmu.fetch(downloader, out, wanted, some, mirror=mirror, say=say)
        answer.show(
            f"{out}: {done.fetched} files fetched, {done.there} were there and are unchanged; {done.received:,} bytes "
            f"received, at most {max_gib:g} GiB. Checksums are in {out / fetch_cmu.SUMS}."
        )
        say(fetch_cmu.TERMS)
        if len(wanted) > 1:
            say(
                f"Next: posegrid prepare cmu --raw {out} --out data/cmu --option 'test_subjects=[\"{wanted[-1]:02d}\"]'"
            )
        counts = {"fetched_files": done.fetched, "unchanged_files": done.there, "received_bytes": done.received}
        answer.give({"folder": out, **counts, "checksums": out / fetch_cmu.SUMS, "terms": fetch_cmu.TERMS})
