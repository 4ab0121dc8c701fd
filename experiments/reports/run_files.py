"""What a page reads from many runs: artifacts and metric histories, several at a time."""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

from posegrid.orchestration.tracking import Tracking, Trial

_AT_ONCE = 8


def read_artifacts(tracking: Tracking, wanted: Iterable[tuple[str, str]]) -> dict[tuple[str, str], bytes]:
    """(run id, name of an artifact) -> its content; those that a run does not have are left out."""
    folders: dict[tuple[str, str], list[str]] = {}
    for run, name in dict.fromkeys(wanted):
        folders.setdefault((run, name.rpartition("/")[0]), []).append(name)

    def read(place: tuple[str, str]) -> dict[tuple[str, str], bytes]:
        run, folder = place
        present = set(tracking.artifacts(run, folder))
        found = {}
        for name in folders[place]:
            if name in present:
                with tracking.fetched(run, name) as file:
                    found[run, name] = file.read_bytes()
        return found

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return {key: content for found in pool.map(read, folders) for key, content in found.items()}


def read_histories(
    tracking: Tracking, trials: Iterable[Trial], metrics: Iterable[str]
) -> dict[tuple[str, str], list[tuple[int, float]]]:
    """(run id, metric) -> (step, value) in order, for the metrics that a run has."""
    wanted = [(trial.run_id, metric) for metric in metrics for trial in trials if metric in trial.metrics]
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return dict(zip(wanted, pool.map(lambda one: tracking.history(*one), wanted), strict=True))
