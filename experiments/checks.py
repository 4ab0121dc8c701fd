"""`posegrid check`: find mistakes before they cost an hour."""

from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

from posegrid.datasets.addresses import shown
from posegrid.datasets.checks.findings import FAILED, table
from posegrid.datasets.checks.integrity import check_store, splits_table
from posegrid.datasets.checks.keypoint_check import look_at
from posegrid.datasets.store import open_store
from posegrid.experiments import catalogue
from posegrid.experiments.search_files import load_search, resolve
from posegrid.experiments.studies import Where
from posegrid.orchestration.grid import check_same_windows
from posegrid.orchestration.settings import Settings
from posegrid.orchestration.tracking import Tracking


def check(what: str, name: str | None, say: Callable[[str], None]) -> None:
    """Check a recipe, a grid, a search, a store or keypoint files by name. Raises ValueError with what is wrong."""
    if what not in ("recipe", "grid", "search", "data", "keypoints"):
        raise ValueError(f'check "{what}" is unknown. Known: recipe, grid, search, data, keypoints, setup.')
    if name is None:
        raise ValueError(f"check {what} needs a name: recipe, grid, search, folder of a store, or keypoint files.")
    if what == "recipe":
        settings = _recipe(name)
        say(f"recipe {settings.name}: model {settings.model['name']}, {settings.data.frames} frames, ok")
    elif what == "grid":
        grid = catalogue.load_grid(name)
        catalogue.resolve(grid.train, "train")
        catalogue.resolve(grid.test, "test")
        for member in grid.members:
            catalogue.resolve(member.train, f"members[{member.label}].train")
            lifter = partial(catalogue.conditioner_recipe, grid, member, overrides=[])
            _check_conditioner(catalogue.member_recipe(grid, member, []), lifter)
        say(f"grid {name}: {len(grid.members)} members x {len(grid.train)} x {len(grid.test)} patterns, ok")
    elif what == "search":
        searched = resolve(load_search(name), [], f"searches/{Path(name).stem}.toml").search
        catalogue.resolve(searched.train, "train")
        catalogue.resolve(searched.test, "test")
        say(f"search {name}: {searched.trials} trials of {searched.recipe} over {', '.join(searched.space)}, ok")
    elif what == "keypoints":
        _check_keypoints(Path(name), say)
    else:
        _check_data(name, say)


def _recipe(name: str) -> Settings:
    """A recipe whose conditioner exists too and uses the same windows."""
    settings = catalogue.recipe(name)
    _check_conditioner(settings, catalogue.recipe)
    return settings


def _check_conditioner(settings: Settings, load: Callable[[str], Settings]) -> None:
    if settings.conditioner is not None and not settings.conditioner.run:
        check_same_windows(settings, load(settings.conditioner.recipe))


def _check_keypoints(path: Path, say: Callable[[str], None]) -> None:
    errors = 0
    for line, wrong in look_at(path):
        say(line)
        errors += wrong
    if errors:
        raise ValueError(f"{errors} errors in {path} (listed above). Correct the rows or files and check again.")


def _check_data(path: str, say: Callable[[str], None]) -> None:
    store = open_store(path)
    say(
        f"store {shown(path)}: source {store.source}, skeleton {store.skeleton.name}, hash {store.content_hash} matches"
    )
    for line in splits_table(store):
        say(line)
    note = store.description["protocol"]["note"]
    if note:
        say(f"note: {note}")
    findings = check_store(store)
    for line in ("", *table(findings), ""):
        say(line)
    results = Counter(row.status for row in findings)
    say(", ".join(f"{number} {status}" for status, number in results.items()))
    failed = [f"{row.check} ({row.measured}; {row.place})" for row in findings if row.status == FAILED]
    if failed:
        raise ValueError(
            f"store {shown(path)}: {len(failed)} checks failed: {', '.join(failed)}. The table says what is allowed. "
            "Correct the raw files or the options of the source and prepare the data set again."
        )


def check_setup(where: Where, say: Callable[[str], None], data: str | None = None) -> None:
    """Connect to Ray, compare resources; write and read back probes in the tracking store and in the storage.

    On a cluster every node does so, and reads every byte of the data store if one is given.
    """
    from posegrid.orchestration.launch.cluster import connected

    store = None if data is None else open_store(data)
    Tracking.open(where.tracking).probe()
    say(f"tracking store {where.tracking}: takes runs and artifacts")
    with connected(where.address, where.resources) as cluster:
        from posegrid.orchestration.launch.nodes import preflight

        say(
            f"Ray: {cluster.nodes} node(s), {cluster.cpus} CPU cores, {cluster.gpus} GPUs; "
            f"{cluster.concurrent} trainings of {where.resources.workers} worker(s) side by side"
            f"{' once it has grown' if cluster.grows else ''}"
        )
        preflight(
            cluster,
            where.resources,
            tracking=where.tracking,
            storage=where.storage,
            store=store,
            every_byte=True,
            say=say,
        )
