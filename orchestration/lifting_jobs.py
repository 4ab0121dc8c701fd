"""A folder of keypoint files -> a folder of pose files, one job a file: what a task of any launcher runs."""

import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from posegrid.datasets.keypoints.clips import Reading
from posegrid.datasets.keypoints.pose_files import read_about
from posegrid.orchestration.clip_sources import ClipSource
from posegrid.orchestration.found_models import FoundModel, find_model
from posegrid.orchestration.lifting_choices import Choices
from posegrid.orchestration.own_keypoints import Lifted, Progress, lift_sources, request_key
from posegrid.orchestration.tracking import Tracking


@dataclass(frozen=True, kw_only=True)
class LiftJob:
    """One source, to be lifted into a file of its own. Can be pickled."""

    model: str
    """As `find_model` understands it."""
    tracking: str
    """Address of the tracking store."""
    source: ClipSource
    out: Path
    reading: Reading
    choices: Choices


@dataclass(frozen=True, kw_only=True)
class LiftOutcome:
    """What became of a job."""

    lifted: Lifted | None = None
    """None if the file stood there already, or if it could not be made."""
    error: str = ""
    """Why it could not be made."""


def jobs_for(
    model: str, tracking: str, sources: Sequence[ClipSource], folder: Path, reading: Reading, choices: Choices
) -> list[LiftJob]:
    """One job for each source, the longest-named folders kept: `walk/1.json` becomes `FOLDER/walk/1.parquet`."""
    return [
        LiftJob(
            model=model,
            tracking=tracking,
            source=source,
            out=folder / f"{source.name}.parquet",
            reading=reading,
            choices=choices,
        )
        for source in sources
    ]


def run_job(job: LiftJob, progress: Progress | None = None) -> LiftOutcome:
    """Lift one source, unless its file stands there for the same model, input and options. Errors are returned: one bad
    file must not end a folder."""
    try:
        found = _model(job.model, job.tracking)
        if _done(job, request_key(found, [job.source], job.reading, job.choices)):
            return LiftOutcome()
        return LiftOutcome(
            lifted=lift_sources(found, [job.source], job.out, job.reading, job.choices, progress=progress)
        )
    except ValueError as error:
        return LiftOutcome(error=str(error))
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        return LiftOutcome(error=f"{type(error).__name__}: {error} ({Path(place.filename).name}:{place.lineno})")


def _done(job: LiftJob, key: str) -> bool:
    if not job.out.is_file():
        return False
    try:
        return read_about(job.out).get("request") == key
    except ValueError:
        return False


@lru_cache(maxsize=1)
def _model(name: str, tracking: str) -> FoundModel:
    """Kept per process: every job asks for the same one."""
    return find_model(name, lambda: Tracking.existing(tracking))
