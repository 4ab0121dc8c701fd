"""Run what is left of a planned study. Everything that can refuse comes before anything is written."""

import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from posegrid.datasets.store import Store
from posegrid.experiments.planning import Plan
from posegrid.experiments.progress import Progress, Say
from posegrid.orchestration.evaluation import mean_pose_mpjpe_mm
from posegrid.orchestration.grid import Stage, Study, Work, open_study, remaining_work
from posegrid.orchestration.launch.resources import Resources
from posegrid.orchestration.outages import NoAnswerError
from posegrid.orchestration.protocol import scoring_protocol, window_words
from posegrid.orchestration.settings import fingerprint, occlusion_label
from posegrid.orchestration.tracking import Tracking, sqlite_uri

Launch = Callable[[Study, list[Work], Progress], dict[str, str]]


@dataclass(frozen=True, kw_only=True)
class Where:
    """Where a study runs and keeps its files."""

    tracking: str
    """Address of the tracking store."""
    storage: str
    """Folder or address for the state of unfinished runs; every node must reach it."""
    launch: str = "ray"
    """"ray" or "local" (one process, no Ray)."""
    address: str | None = None
    """Ray cluster to join; None starts Ray on this machine."""
    resources: Resources = field(default_factory=Resources)

    @property
    def gpu(self) -> bool:
        """Whether stages train on GPUs."""
        return self.launch == "ray" and self.resources.gpus > 0


def where_to_run(
    home: Path, tracking: str | None, storage: str | None, launch: str, address: str | None, resources: Resources
) -> Where:
    """Where a command runs, as its options say. Raises ValueError for an unknown launcher."""
    if launch not in ("ray", "local"):
        raise ValueError(f'--launch {launch} is unknown. Allowed: "ray", "local". Choose one.')
    if launch == "local" and resources != Resources():
        warnings.warn("--launch local runs one worker on the CPU: --workers and the like have no effect", stacklevel=2)
    return Where(
        tracking=tracking or sqlite_uri(home / "mlflow.db"),
        storage=storage or str((home / "state").resolve()),
        launch=launch,
        address=address,
        resources=resources,
    )


def study_name(default: str, overrides: list[str] | None = None, given: str | None = None) -> str:
    """Name of a study; changed recipes make another one, so that the unchanged one's report stays as it is."""
    changed = f"-{fingerprint(sorted(overrides))[:6]}" if overrides else ""
    name = given or default + changed
    if not all(sign.isalnum() or sign in "-_." for sign in name):
        raise ValueError(f"study name {name!r}: allowed are letters, digits, '-', '_' and '.'. Choose another name.")
    return name


def run(planned: Plan, where: Where, say: Say) -> Study:
    """Run everything that is left of a study.

    Raises ValueError before anything is written if it cannot run, RuntimeError at the end if stages failed; what is
    done is kept.
    """
    check_workers(planned.stages.values(), where)
    tracking = Tracking.open(where.tracking)
    with only_one(planned.name, where.storage):
        work = remaining_work(planned.stages, tracking.trials(), planned.store.content_hash)
        left = [item for item in work if not item.done]
        say(f"study {planned.name}: {len(work)} stages, {len(work) - len(left)} done, {len(left)} to run")
        if not left:
            study = _open(planned, tracking, work)
            tracking.finish(study.parent, "FINISHED")
            return study
        with launcher(where, say, planned.store) as launch:
            study = _open(planned, tracking, work)
            try:
                failed = launch(study, left, Progress(left, say))
            except BaseException as error:
                with suppress(NoAnswerError), tracking.at_once():  # whoever ends the command does not wait
                    _ended(study, left, "KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED")
                raise
    if failed:
        tracking.finish(study.parent, "FAILED")
        reasons = "\n".join(f"  {planned.stages[key].name}: {reason}" for key, reason in failed.items())
        raise RuntimeError(
            f"{len(failed)} of {len(left)} stages did not finish:\n{reasons}\n"
            "What is done is kept: repeat the command to run the rest."
        )
    tracking.finish(study.parent, "FINISHED")
    return study


def _ended(study: Study, left: list[Work], status: str) -> None:
    """Say of a study that ended early, and of its stages that were under way, how it ended."""
    for run in (study.runs[item.stage.key] for item in left if item.stage.key in study.runs):
        if study.tracking.trial(run).status == "RUNNING":
            study.tracking.finish(run, status)
    study.tracking.finish(study.parent, status)


def check_workers(stages: Iterable[Stage], where: Where) -> None:
    """Raises ValueError if there are more workers than windows in the batch of a stage. Shares may be unequal."""
    for stage in stages:
        if stage.given is None and stage.settings.training.batch < where.resources.workers:
            raise ValueError(
                f"training.batch = {stage.settings.training.batch} of recipe {stage.settings.name} cannot be shared "
                f"by {where.resources.workers} workers (--workers), of which each needs a window. Use at most "
                f"{stage.settings.training.batch} workers, or --set training.batch."
            )


@contextmanager
def only_one(study: str, storage: str) -> Iterator[None]:
    """One driver for a study at a time: two would open its runs twice. Remote storage has no lock."""
    if "://" in storage:
        yield
        return
    Path(storage).mkdir(parents=True, exist_ok=True)
    lock = FileLock(Path(storage) / f"{study}.lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise ValueError(
            f"study {study} is being run by another command (lock {lock.lock_file}). Wait for it, end it, or give this "
            "one another name with --study."
        ) from None
    try:
        yield
    finally:
        lock.release()


@contextmanager
def launcher(where: Where, say: Say, store: Store | None = None) -> Iterator[Launch]:
    """What runs stages. Connects to Ray and compares resources on entry; on a cluster it asks every node for the rest,
    and for the data store if one is given. Raises ValueError for what is missing.
    """
    if where.launch == "local":
        if "://" in where.storage:
            raise ValueError(
                f"--launch local with --storage {where.storage}: a training without Ray keeps its state in a folder of "
                "this machine. Give a folder, or leave out --launch local."
            )
        from posegrid.orchestration.launch.local import run_local

        yield lambda study, left, progress: run_local(study, left, Path(where.storage), progress)
        return
    from posegrid.orchestration.launch.cluster import connected

    if where.resources.inside and (where.address is not None or "://" in where.storage):
        raise ValueError(
            f"--workers 0 with {'--address' if where.address is not None else '--storage'} "
            f"{where.address or where.storage}: trainings inside the processes of trials run on this machine and keep "
            "their state in a folder of it. Allowed elsewhere: --workers 1 or more."
        )
    with connected(where.address, where.resources) as cluster:
        # Ray reads its environment when it is imported, so `connected` comes first
        from posegrid.orchestration.launch.ray_tune import run_ray

        if cluster.nodes > 1 and where.tracking.startswith("sqlite:"):
            raise ValueError(
                f"the cluster has {cluster.nodes} nodes, but the tracking store is a file of this one "
                f"({where.tracking}). Start an MLflow server that all nodes reach and give its address with --tracking."
            )
        say(
            f"Ray: {cluster.nodes} node(s), {cluster.cpus} CPU cores, {cluster.gpus} GPUs; "
            f"{cluster.concurrent} stages side by side{' once it has grown' if cluster.grows else ''}"
        )
        if where.address is not None:
            from posegrid.orchestration.launch.nodes import preflight

            preflight(cluster, where.resources, tracking=where.tracking, storage=where.storage, store=store, say=say)

        def launch(study: Study, left: list[Work], progress: Progress) -> dict[str, str]:
            progress.concurrent = cluster.concurrent
            return run_ray(study, left, where.storage, where.resources, progress)

        yield launch


def _open(planned: Plan, tracking: Tracking, work: list[Work]) -> Study:
    """Open the parent run, note the members, and take over the runs that are done."""
    params = {"grid": planned.grid.title, "data": planned.store.source}
    study = open_study(planned.name, planned.store, tracking, params, planned.grid.title)
    take_over(study, work)
    log_members(study, planned)
    return study


def take_over(study: Study, work: list[Work]) -> None:
    """Make the finished runs of a plan the study's own."""
    for item in work:
        if not item.done:
            continue
        assert item.trial is not None
        study.runs[item.stage.key] = item.trial.run_id
        study.tracking.set_tags(item.trial.run_id, {f"posegrid.member.{study.name}": "true"})
        if item.trial.status != "FINISHED":  # killed between the last result and the end
            study.tracking.finish(item.trial.run_id, "FINISHED")


def log_members(study: Study, planned: Plan) -> None:
    """What the report needs to find the cells again, and the control that needs no training."""
    data_hash = planned.store.content_hash
    cells = {
        label: [
            {
                "trained_on": pattern,
                "seed": seed,
                "key": key,
                "scores": planned.stages[key].score_fingerprints(data_hash),
            }
            for (pattern, seed), key in found.items()
        ]
        for label, found in planned.members.items()
    }
    described = {
        "title": planned.grid.title,
        "published": planned.grid.published,
        "tests": {occlusion_label(pattern): pattern for pattern in planned.tests},
        "scoring": {label: _scoring(planned, label) for label in planned.members},
        "members": cells,
        "data_hash": data_hash,
        "source": planned.store.source,
        "skeleton": planned.store.skeleton.name,
    }
    study.tracking.log_plain(study.parent, described, "study.json")
    study.tracking.set_tags(study.parent, {"data_hash": data_hash})
    first = next(iter(planned.stages.values())).settings
    study.tracking.log_metrics(study.parent, {"control mean pose/mpjpe_mm": mean_pose_mpjpe_mm(planned.store, first)})


def _scoring(planned: Plan, label: str) -> dict[str, Any]:
    """How a member is scored: in words for people, as plain data for what measures it later."""
    key = next(iter(planned.members[label].values()))
    settings = planned.stages[key].settings
    plain = settings.plain()
    return {
        "protocol": scoring_protocol(settings),
        "window": window_words(settings),
        "evaluation": plain["evaluation"],
        "data": plain["data"],
    }
