"""`posegrid check`: find mistakes before they cost an hour."""

from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from posegrid.datasets.addresses import shown
from posegrid.datasets.checks.findings import FAILED, table
from posegrid.datasets.checks.integrity import SPLITS, check_store, splits_table
from posegrid.datasets.checks.keypoint_check import look_at
from posegrid.datasets.store import Store, open_store
from posegrid.experiments import catalogue
from posegrid.experiments.answers import say
from posegrid.experiments.search_files import load_search, resolve
from posegrid.experiments.studies import Where
from posegrid.orchestration.grid import check_same_windows
from posegrid.orchestration.settings import Settings, occlusion_label
from posegrid.orchestration.tracking import Tracking

Show = Callable[[str], None]


def check(what: str, name: str | None, show: Show) -> dict[str, Any]:
    """Check a recipe, a grid, a search, a store or keypoint files by name; prints what was found with `show` and
    returns it as plain data. Raises ValueError with what is wrong."""
    if what not in ("recipe", "grid", "search", "data", "keypoints"):
        raise ValueError(f'check "{what}" is unknown. Known: recipe, grid, search, data, keypoints, setup.')
    if name is None:
        raise ValueError(f"check {what} needs a name: recipe, grid, search, folder of a store, or keypoint files.")
    kinds = {"recipe": _check_recipe, "grid": _check_grid, "search": _check_search, "data": _check_data}
    return (kinds | {"keypoints": _check_keypoints})[what](name, show)


def _check_recipe(name: str, show: Show) -> dict[str, Any]:
    settings = _recipe(name)
    show(f"recipe {settings.name}: model {settings.model['name']}, {settings.data.frames} frames, ok")
    return {"recipe": settings.name, "model": settings.model["name"], "frames": settings.data.frames}


def _check_grid(name: str, show: Show) -> dict[str, Any]:
    grid = catalogue.load_grid(name)
    patterns = {"train": catalogue.resolve(grid.train, "train"), "test": catalogue.resolve(grid.test, "test")}
    for member in grid.members:
        catalogue.resolve(member.train, f"members[{member.label}].train")
        lifter = partial(catalogue.conditioner_recipe, grid, member, overrides=[])
        _check_conditioner(catalogue.member_recipe(grid, member, []), lifter)
    show(f"grid {name}: {len(grid.members)} members x {len(grid.train)} x {len(grid.test)} patterns, ok")
    labels = {part: [occlusion_label(one) for one in found] for part, found in patterns.items()}
    return {"grid": name, "members": [member.label for member in grid.members], **labels}


def _check_search(name: str, show: Show) -> dict[str, Any]:
    searched = resolve(load_search(name), [], f"searches/{Path(name).stem}.toml").search
    catalogue.resolve(searched.train, "train")
    catalogue.resolve(searched.test, "test")
    show(f"search {name}: {searched.trials} trials of {searched.recipe} over {', '.join(searched.space)}, ok")
    return {"search": name, "trials": searched.trials, "recipe": searched.recipe, "space": list(searched.space)}


def _recipe(name: str) -> Settings:
    """A recipe whose conditioner exists too and uses the same windows."""
    settings = catalogue.recipe(name)
    _check_conditioner(settings, catalogue.recipe)
    return settings


def _check_conditioner(settings: Settings, load: Callable[[str], Settings]) -> None:
    if settings.conditioner is not None and not settings.conditioner.run:
        check_same_windows(settings, load(settings.conditioner.recipe))


def _check_keypoints(name: str, show: Show) -> dict[str, Any]:
    errors, lines = 0, []
    for line, wrong in look_at(Path(name)):
        (say if wrong else show)(line)  # what is wrong belongs to the error, which --json does not hide
        errors += wrong
        lines.append(line)
    if errors:
        raise ValueError(f"{errors} errors in {name} (listed above). Correct the rows or files and check again.")
    return {"keypoints": name, "lines": lines}


def _check_data(path: str, show: Show) -> dict[str, Any]:
    store = open_store(path)
    show(
        f"store {shown(path)}: source {store.source}, skeleton {store.skeleton.name}, hash {store.content_hash} matches"
    )
    for line in splits_table(store):
        show(line)
    note = store.description["protocol"]["note"]
    if note:
        show(f"note: {note}")
    findings = check_store(store)
    failed = [f"{row.check} ({row.measured}; {row.place})" for row in findings if row.status == FAILED]
    tell = say if failed else show  # the table belongs to the error, which --json does not hide
    for line in ("", *table(findings), ""):
        tell(line)
    results = Counter(row.status for row in findings)
    tell(", ".join(f"{number} {status}" for status, number in results.items()))
    if failed:
        raise ValueError(
            f"store {shown(path)}: {len(failed)} checks failed: {', '.join(failed)}. The table says what is allowed. "
            "Correct the raw files or the options of the source and prepare the data set again."
        )
    facts = {"store": shown(path), "source": store.source, "skeleton": store.skeleton.name, "hash": store.content_hash}
    return {**facts, "note": note, "splits": _splits(store), "results": results, "checks": findings}


def _splits(store: Store) -> dict[str, dict[str, float]]:
    """The table of splits as plain data."""
    found = {}
    for split in SPLITS:
        rows = [sequence for sequence in store.sequences if sequence.split == split]
        if rows:
            found[split] = {
                "subjects": len({row.subject for row in rows}),
                "sequences": len(rows),
                "frames": sum(row.frames for row in rows),
                "minutes": sum(row.frames / row.frame_rate for row in rows if row.frame_rate > 0) / 60,
            }
    return found


def check_setup(where: Where, show: Show, data: str | None = None) -> dict[str, Any]:
    """Connect to Ray, compare resources; write and read back probes in the tracking store and in the storage. Returns
    what is there as plain data.

    On a cluster every node does so, and reads every byte of the data store if one is given.
    """
    from posegrid.orchestration.launch.cluster import connected

    store = None if data is None else open_store(data)
    Tracking.open(where.tracking).probe()
    show(f"tracking store {where.tracking}: takes runs and artifacts")
    with connected(where.address, where.resources) as cluster:
        from posegrid.orchestration.launch.nodes import preflight

        show(
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
    return {
        "tracking": where.tracking,
        "storage": where.storage,
        "data_hash": None if store is None else store.content_hash,
        "nodes": cluster.nodes,
        "cpu_cores": cluster.cpus,
        "gpus": cluster.gpus,
        "trainings_side_by_side": cluster.concurrent,
        "grows": cluster.grows,
        "resources_each": where.resources,
    }
