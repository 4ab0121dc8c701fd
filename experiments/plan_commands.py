"""`posegrid plan`: what a study will do, how long it takes and what it costs, before anything starts."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from posegrid.experiments.answers import answering
from posegrid.experiments.command_options import (
    Axis,
    CpusEach,
    GpusEach,
    Home,
    Json,
    Set,
    TrackingUri,
    WorkerCount,
    tracking_address,
)

if TYPE_CHECKING:
    # imported when used: `posegrid --help` answers at once
    from posegrid.datasets.store import Store
    from posegrid.experiments.catalogue import Grid
    from posegrid.experiments.costing.study_cost import SearchRounds, StudyCost
    from posegrid.orchestration.launch.resources import Resources
    from posegrid.orchestration.tracking import Tracking


def plan_command(
    name: Annotated[str, typer.Argument(help="Grid, or recipe if no grid has that name; or path of a TOML file.")],
    data: Annotated[str | None, typer.Option("--data", help="Prepared data store: a folder or an address.")] = None,
    as_: Annotated[
        str | None,
        typer.Option("--as", help="Without data: plan with the published size of h36m, mpi_inf_3dhp or amass."),
    ] = None,
    study: Annotated[str | None, typer.Option("--study", help="Name of the study; default: grid and data.")] = None,
    home: Home = Path("runs"),
    tracking: TrackingUri = None,
    address: Annotated[
        str | None, typer.Option("--address", help="Ray cluster whose size is asked; default: --gpus, or one machine.")
    ] = None,
    workers: WorkerCount = "1",
    gpus_each: GpusEach = 0,
    cpus: CpusEach = 1,
    set_: Set = None,
    axis: Axis = None,
    machine: Annotated[
        str | None, typer.Option("--machine", help="Kind of machine, as named in the price table; default: its own.")
    ] = None,
    prices: Annotated[
        Path | None, typer.Option("--prices", help="Price table; default: experiments/costing/machines.toml.")
    ] = None,
    gpus: Annotated[
        list[int] | None, typer.Option("--gpus", help="GPUs (or cores) in all (repeatable): a wall-clock for each.")
    ] = None,
    search: Annotated[
        list[str] | None,
        typer.Option(
            "--search",
            help="Search first (repeatable): name of a search, or RECIPE=TRIALS: full trainings.",
        ),
    ] = None,
    stages: Annotated[bool, typer.Option("--stages", help="List every stage, also of large studies.")] = False,
    json_: Json = False,
) -> None:
    """Cells, what is done already, hours, cost and wall-clock of a grid. Starts nothing and writes nothing."""
    from posegrid.experiments.costing.machines import machine as machine_named
    from posegrid.experiments.costing.plan_table import plain_plan, plan_lines
    from posegrid.experiments.costing.study_cost import study_cost
    from posegrid.experiments.planning import plan
    from posegrid.orchestration.launch.resources import Resources
    from posegrid.orchestration.settings import fingerprint

    resources = Resources.asked(workers, gpus=gpus_each, cpus=cpus)
    chosen = machine_named(machine, gpu=gpus_each > 0, file=prices)
    grid, decides = grid_or_recipe(name, set_ or [], axis or [])
    store = _store(data, as_)
    runs = _existing(tracking_address(home, tracking))
    changes = [*(set_ or []), *(axis or [])]
    changed = f"-{fingerprint(sorted(changes))[:6]}" if changes else ""  # as `posegrid grid` names it
    with answering(json_) as answer:
        planned = plan(
            study or f"{Path(name).stem}-{store.source}{changed}",
            grid,
            store,
            set_,
            decides=decides,
            tracking=None if runs is None else lambda: runs,
            gpu=gpus_each > 0,
        )
        cost = study_cost(planned, chosen, resources, runs, [_searched(text) for text in search or []])
        clocks = [cost.on(number) for number in gpus or [_devices(cost, address, resources)]]
        for line in plan_lines(cost, clocks, every_stage=stages):
            answer.show(line)
        answer.give(plain_plan(cost, clocks))


def grid_or_recipe(name: str, overrides: list[str], axes: list[str]) -> "tuple[Grid, bool]":
    """The grid of that name, or a recipe as the one cell that `posegrid train` makes of it; and whether patterns and
    seeds are the grid's to decide. Raises ValueError if there is neither."""
    from posegrid.experiments import catalogue
    from posegrid.experiments.axes import given_axes
    from posegrid.experiments.catalogue import Grid, Member
    from posegrid.orchestration.recipe_files import read_toml

    is_recipe = "members" not in read_toml(Path(name)) if name.endswith(".toml") else False
    if not is_recipe and (name.endswith(".toml") or name in catalogue.names(catalogue.GRIDS)):
        return catalogue.load_grid(name, given_axes(axes)), True
    own = catalogue.recipe(name, catalogue.overrides_for(name, overrides, member=True))
    member = Member(recipe=name, label=Path(name).stem)
    grid = Grid(
        title=f"{member.label} on {own.occlusion['pattern']}",
        train=(own.occlusion,),
        test=(own.occlusion,),
        members=(member,),
        seeds=(own.training.seed,),
    )
    return catalogue.crossed(grid, given_axes(axes), "--axis"), False


def _store(data: str | None, as_: str | None) -> "Store":
    from posegrid.datasets.outline import outline
    from posegrid.datasets.store import open_store

    if (data is None) == (as_ is None):
        raise ValueError(
            f"--data {data} and --as {as_} were given; a plan needs one of them. Give --data STORE to find what is "
            "done already, or --as h36m to plan with a published size before data are prepared."
        )
    # a plan starts nothing: what a hash over every byte would find, the study itself finds before it starts
    return outline(as_) if as_ is not None else open_store(data or "", verify=False)


def _existing(uri: str) -> "Tracking | None":
    """The tracking store, None if there is none yet under --home. Raises ValueError if a server does not answer."""
    from posegrid.orchestration.tracking import Tracking

    if uri.startswith("sqlite:///") and not Path(uri.removeprefix("sqlite:///")).is_file():
        return None
    return Tracking.existing(uri)


def _searched(text: str) -> "SearchRounds":
    from posegrid.experiments.costing.study_cost import SearchRounds

    recipe, equals, trials = text.partition("=")
    if equals:
        if not recipe or not trials.isdigit():
            raise ValueError(
                f'--search "{text}" is neither the name of a search nor of the form RECIPE=TRIALS, for instance '
                "diffhpe_wrapper=50."
            )
        return SearchRounds(recipe=recipe, rounds=((int(trials), 1.0),))
    from posegrid.experiments.search_files import load_search

    search = load_search(text)
    each = len(search.train) * len(search.seeds)
    sizes = [search.trials]
    if search.method == "tpe":
        sizes = [min(search.startup, search.trials)]
        while sum(sizes) < search.trials:
            sizes.append(min(search.at_once, search.trials - sum(sizes)))
    elif search.method == "halving":
        while len(sizes) < search.rounds:
            sizes.append(max(1, sizes[-1] // search.keep))
    strategy = search.strategy({})
    rounds = tuple((size * each, strategy.share(number)) for number, size in enumerate(sizes))
    return SearchRounds(recipe=Path(search.recipe).stem, rounds=rounds)


def _devices(cost: "StudyCost", address: str | None, resources: "Resources") -> int:
    """GPUs or cores of a cluster that is asked; without one, of a machine of the chosen kind, or the cores of this."""
    import os

    if address is None:
        return max(cost.machine.gpus, int(resources.workers * resources.gpus)) or len(os.sched_getaffinity(0))
    from posegrid.orchestration.launch.cluster import connected

    with connected(address, resources) as cluster:
        return int(cluster.concurrent * resources.workers * (resources.gpus or resources.cpus))
