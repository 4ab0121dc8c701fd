"""The only place that knows MLflow: studies, trials, metrics, artifacts.

A study is a parent run, a trial its child. Runs are found again by tags, never by name: `posegrid.study` names a study,
`posegrid.key` is the training fingerprint of a trial. One process owns a trial at a time, so that search-then-create
makes no duplicates. Everything goes through `MlflowClient` with an explicit address: workers change their directory and
environment, so nothing may depend on either.
"""

import json
import math
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlparse
from urllib.request import url2pathname

from mlflow import MlflowClient
from mlflow.data.meta_dataset import MetaDataset
from mlflow.data.sources import LocalArtifactDatasetSource  # type: ignore[attr-defined]
from mlflow.entities import DatasetInput, InputTag, Metric, Param, Run, RunTag, ViewType
from mlflow.exceptions import MlflowException

from posegrid.datasets.addresses import shown
from posegrid.orchestration import database_files, outages
from posegrid.orchestration.outages import NoAnswerError, Patience, PatientCalls, Trouble
from posegrid.orchestration.trials import DESCRIPTION, DIVERGED, FAILURE, KEY, STUDY
from posegrid.orchestration.trials import EVALUATED as EVALUATED
from posegrid.orchestration.trials import FOLDS as FOLDS
from posegrid.orchestration.trials import MODEL_ARTIFACT as MODEL_ARTIFACT
from posegrid.orchestration.trials import STAGE as STAGE
from posegrid.orchestration.trials import TRAINED as TRAINED
from posegrid.orchestration.trials import UPSTREAM as UPSTREAM
from posegrid.orchestration.trials import VERSIONS as VERSIONS
from posegrid.orchestration.trials import Trial as Trial

EXPERIMENT = "posegrid"
_PARENT = "mlflow.parentRunId"
_BATCH = 900  # MLflow takes at most 1000 metrics in a call
_SINGLE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
_SHORT = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "5"}  # seconds, for calls that must not hold up training
_TRANSIENT = ("TEMPORARILY_UNAVAILABLE", "REQUEST_LIMIT_EXCEEDED", "RESOURCE_EXHAUSTED")

Point = tuple[str, float, int, int]
"""A value of a metric: name, value, milliseconds since 1970, step."""


def sqlite_uri(file: Path) -> str:
    """Address of a database file, absolute: MLflow's default would follow the current directory."""
    return f"sqlite:///{file.resolve()}"


class Tracking:
    """A tracking store at an address.

    Each call waits for a store that does not answer, for `wait_s` seconds (`outages.tracking_wait` if None) from the
    first failure on, and then raises NoAnswerError.
    """

    def __init__(self, uri: str, experiment: str = EXPERIMENT, wait_s: float | None = None) -> None:
        self.uri = uri
        self.experiment = experiment
        self.wait_s = outages.tracking_wait() if wait_s is None else wait_s
        self._patience = Patience(where=f"tracking store {shown(uri)}", wait_s=self.wait_s)
        self.at_once = self._patience.at_once
        """Context: one attempt of a few seconds for each call in it, then NoAnswerError."""
        # the methods of MlflowClient, which would itself repeat any call for four minutes: also the making of a run
        client = MlflowClient(tracking_uri=uri)
        self._client: Any = PatientCalls(client, self._patience, _trouble, _SINGLE, _SHORT, once=("create_run",))
        self._experiment_id = ""
        self._folders: dict[str, Path | None] = {}

    @classmethod
    def open(cls, uri: str, experiment: str = EXPERIMENT) -> "Tracking":
        """Connect, create database and experiment, and check that runs and artifacts can be written.

        The driver does this before any trial starts.
        Raises ValueError if the server does not answer or refuses.
        """
        outages.check_answers(uri)
        try:
            with quiet(), database_files.opened_alone(uri):
                tracking = cls(uri, experiment)
                tracking._ensure_experiment()
        except Exception as error:  # MLflow passes on whatever its stores and database drivers raise
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            raise ValueError(
                f"tracking store {uri} cannot be used ({reason}); it was set with --tracking or --home. Give the "
                "address of an MLflow server, or leave it out to use a SQLite file under --home."
            ) from None
        return tracking

    @classmethod
    def existing(cls, uri: str, experiment: str = EXPERIMENT) -> "Tracking":
        """Connect to a store that must be there already. Raises ValueError if it is not."""
        file = Path(uri.removeprefix("sqlite:///"))
        if uri.startswith("sqlite:///") and not file.is_file():
            raise ValueError(f"no results at {file}. Run a study first, or pass --home or --tracking.")
        return cls.open(uri, experiment)

    def probe(self) -> None:
        """Write an artifact in a run of its own, read it back, remove the run. Raises ValueError if that fails."""
        run_id = self._client.create_run(self.experiment_id, run_name="probe").info.run_id
        self.delete(run_id)  # first: whoever is killed now leaves nothing, and artifacts do not mind
        self.log_text(run_id, "probe", "probe.txt")
        with self.fetched(run_id, "probe.txt") as file:
            if file.read_text() != "probe":
                raise ValueError(f"tracking store {self.uri} returned another artifact than was written.")

    def _ensure_experiment(self) -> None:
        found = self._client.get_experiment_by_name(self.experiment)
        if found is not None:
            self._experiment_id = found.experiment_id
            return
        # beside the database, not in the current directory; a server keeps its own artifacts
        location = None
        if self.uri.startswith("sqlite:///"):
            location = Path(self.uri.removeprefix("sqlite:///")).parent.joinpath("artifacts").as_uri()
        # the UI then opens with run tables and charts rather than with tools for language models
        kind = {"mlflow.experimentKind": "custom_model_development"}
        self._experiment_id = self._client.create_experiment(self.experiment, artifact_location=location, tags=kind)

    @property
    def experiment_id(self) -> str:
        """Identifier of the experiment; looked up once."""
        if not self._experiment_id:
            found = self._client.get_experiment_by_name(self.experiment)
            if found is None:
                raise ValueError(
                    f"tracking store {self.uri} has no experiment {self.experiment!r}: nothing was run yet."
                )
            self._experiment_id = found.experiment_id
        return self._experiment_id

    # ---- studies and trials ----------------------------------------------------------------------------------------

    def open_study(self, name: str, params: dict[str, Any], description: str) -> str:
        """Run id of the study's parent run, created at the first call."""
        tags = {STUDY: name, DESCRIPTION: description}
        run = self._found_or_made(f"tags.`{STUDY}` = '{name}'", tags, name)
        self._client.update_run(run.info.run_id, status="RUNNING")
        self.log_params(run.info.run_id, params)
        return run.info.run_id

    def study(self, name: str) -> str:
        """Run id of a study that exists. Raises ValueError that lists the known ones."""
        runs = self._search(f"tags.`{STUDY}` = '{name}'")
        if not runs:
            known = sorted({run.data.tags[STUDY] for run in self._search(f"tags.`{STUDY}` != ''")})
            raise ValueError(
                f"study {name!r} is not in {self.uri}. Known: {', '.join(known) or 'none yet'}. "
                "Run `posegrid grid NAME` first."
            )
        return runs[0].info.run_id

    def trials(self) -> dict[str, Trial]:
        """All live trials of the experiment by training fingerprint, in one paged search."""
        newest_last = reversed(self._search(f"tags.`{KEY}` != ''"))
        return {run.data.tags[KEY]: _trial(run) for run in newest_last}

    def trial(self, run_id: str) -> Trial:
        """One trial by run id. Raises ValueError if there is none."""
        try:
            return _trial(self._client.get_run(run_id))
        except MlflowException:
            raise ValueError(f"run {run_id!r} is not in {self.uri}. Copy the run id from the MLflow UI.") from None

    def registered_run(self, name: str) -> str:
        """Run id of a registered model, models:/NAME@ALIAS or models:/NAME/VERSION. Raises ValueError if none."""
        model, sign, which = name.removeprefix("models:/").rpartition("@" if "@" in name else "/")
        try:
            version = (
                self._client.get_model_version_by_alias(model, which)
                if sign == "@"
                else self._client.get_model_version(model, which)
            )
        except MlflowException as error:
            known = [registered.name for registered in self._client.search_registered_models(max_results=20)]
            raise ValueError(
                f'"{name}" is no registered model of {self.uri} ({next(iter(str(error).splitlines()), "")}). Allowed '
                f"are models:/NAME@ALIAS and models:/NAME/VERSION; registered are: {', '.join(known) or 'none yet'}. "
                "Correct the name, or give a run id."
            ) from None
        if not version.run_id:
            raise ValueError(f'"{name}" in {self.uri} belongs to no run, so it holds no model file. Give a run id.')
        return version.run_id

    def open_trial(self, key: str, name: str, parent: str, params: dict[str, Any], tags: dict[str, str]) -> str:
        """Run id of the trial with that fingerprint: the live one, or a new child of `parent`.

        All of it may be repeated: whoever is killed in the middle leaves what the next call completes.
        """
        run = self._found_or_made(f"tags.`{KEY}` = '{key}'", {KEY: key, _PARENT: parent, **tags}, name)
        run_id, held = run.info.run_id, run.data.tags
        self._client.update_run(run_id, status="RUNNING")
        if tags.items() - held.items():
            self.set_tags(run_id, tags)
        for past in {FAILURE, DIVERGED} & held.keys():  # it is tried again
            self._client.delete_tag(run_id, past)
        self.log_params(run_id, params)
        return run_id

    def _found_or_made(self, condition: str, tags: dict[str, str], name: str) -> Run:
        """The run that is found so, or a new one: one only, also if a server dies before it says that it made it."""

        def attempt() -> Run:
            runs = self._search(condition)
            return runs[0] if runs else self._client.create_run(self.experiment_id, tags=tags, run_name=name)

        return self._patience.insist(attempt, _trouble)

    def delete(self, run_id: str) -> None:
        """Take a run out of the way; MLflow keeps it restorable."""
        self._client.delete_run(run_id)

    def finish(self, run_id: str, status: str) -> None:
        """Set the terminal status. Only the driver calls this, so that the last writer is always the same."""
        self._client.set_terminated(run_id, status)

    def _search(self, condition: str) -> list[Run]:
        runs: list[Run] = []
        token = None
        while True:
            page = self._client.search_runs(
                [self.experiment_id], condition, ViewType.ACTIVE_ONLY, max_results=1000, page_token=token
            )
            runs += page
            self._folders |= {run.info.run_id: _folder_of(run) for run in page}
            token = page.token
            if not token:
                return runs

    # ---- what a run holds ------------------------------------------------------------------------------------------

    def log_params(self, run_id: str, params: dict[str, Any]) -> None:
        """Log nested values under dotted names; a value that stands is left (MLflow's parameters cannot change)."""
        flat = dict(_flatten(params))
        have = self._client.get_run(run_id).data.params
        new = [Param(name, str(value)) for name, value in flat.items() if name not in have]
        for first in range(0, len(new), 100):
            self._client.log_batch(run_id, params=new[first : first + 100])

    def log_metrics(
        self,
        run_id: str,
        metrics: dict[str, float],
        step: int = 0,
        tags: dict[str, str] | None = None,
        later: Sequence[Point] = (),
    ) -> None:
        """Log values at a step, `later` ones after them, and tags with the last; what is not finite is left out.

        What has no steps is logged at step 0: a value that stands there is left, so that repeating changes nothing.
        """
        now, have = int(time.time() * 1000), {}
        if not step:
            have = self._client.get_run(run_id).data.metrics
        self.log_points(run_id, [*((k, v, now, step) for k, v in metrics.items() if have.get(k) != v), *later], tags)

    def log_points(self, run_id: str, points: list[Point], tags: dict[str, str] | None = None) -> None:
        """Log values in order, in as few calls as possible, and tags with the last of them.

        Repeating it changes nothing: MLflow holds a name, value, time and step once.
        """
        finite = [Metric(name, float(value), when, step) for name, value, when, step in points if math.isfinite(value)]
        own = [RunTag(name, value) for name, value in (tags or {}).items()]
        for first in range(0, max(len(finite), bool(own)), _BATCH):
            last = first + _BATCH >= len(finite)
            self._client.log_batch(run_id, metrics=finite[first : first + _BATCH], tags=own if last else [])

    def last_step(self, run_id: str, metric: str) -> int:
        """Last step of a metric, -1 if it was never logged: a resumed run logs only what comes after."""
        return max((point.step for point in self._client.get_metric_history(run_id, metric)), default=-1)

    def history(self, run_id: str, metric: str) -> list[tuple[int, float]]:
        """(step, value) of a metric of a run, in order; empty if it was never logged."""
        return sorted((point.step, point.value) for point in self._client.get_metric_history(run_id, metric))

    def lowest(self, run_id: str, metric: str) -> float:
        """Lowest value that a metric of a run ever had. Raises ValueError if it was never logged."""
        values = [point.value for point in self._client.get_metric_history(run_id, metric)]
        if not values:
            raise ValueError(
                f"run {run_id} in {self.uri} has no metric {metric}. Delete the run to have it made again."
            )
        return min(values)

    def set_tags(self, run_id: str, tags: dict[str, str]) -> None:
        """Set tags in one call."""
        self.log_points(run_id, [], tags)

    def log_data(self, run_id: str, name: str, digest: str, source: str, context: str) -> None:
        """Log a store as the run's data set input, without loading it; repeated calls change nothing."""
        held = self._client.get_run(run_id).inputs
        if held is not None and any(given.dataset.digest == digest[:36] for given in held.dataset_inputs):
            return
        place = LocalArtifactDatasetSource(source)
        made = MetaDataset(place, name=name, digest=digest[:36])  # type: ignore[abstract]
        tag = InputTag("mlflow.data.context", context)
        self._client.log_inputs(run_id, [DatasetInput(made._to_mlflow_entity(), [tag])])

    def log_file(self, run_id: str, file: Path, folder: str | None = None) -> None:
        """Log a file as an artifact."""
        self._client.log_artifact(run_id, str(file), folder)

    def log_text(self, run_id: str, text: str, name: str) -> None:
        """Log text as an artifact of that name."""
        self._client.log_text(run_id, text, name)

    def log_plain(self, run_id: str, content: Any, name: str) -> None:
        """Log plain data as a JSON artifact; keys keep their order, which is that of rows and columns in reports."""
        self.log_text(run_id, json.dumps(content, indent=1) + "\n", name)

    def log_figure(self, run_id: str, figure: Any, name: str) -> bytes:
        """Log a matplotlib figure as an artifact; returns the picture, which takes long to draw."""
        with tempfile.TemporaryDirectory(prefix="posegrid-") as scratch:
            figure.savefig(file := Path(scratch) / Path(name).name)
            self.log_file(run_id, file, str(Path(name).parent))
            return file.read_bytes()

    def artifacts(self, run_id: str, folder: str = "") -> list[str]:
        """Paths of the artifacts in a folder of a run."""
        place = self._in_place(run_id, folder)
        if place is not None:
            return sorted(f"{folder}/{file.name}".lstrip("/") for file in place.iterdir()) if place.is_dir() else []
        return [item.path for item in self._client.list_artifacts(run_id, folder)]

    @contextmanager
    def fetched(self, run_id: str, name: str) -> Iterator[Path]:
        """A file of an artifact, to read: where it lies, or a copy. Raises ValueError if the run does not have it."""
        place = self._in_place(run_id, name)
        if place is not None and place.is_file():
            yield place
            return
        with tempfile.TemporaryDirectory(prefix="posegrid-") as folder:
            try:
                with quiet():
                    path = Path(self._client.download_artifacts(run_id, name, folder))
            except (MlflowException, OSError) as error:
                raise ValueError(f"run {run_id} in {self.uri} has no artifact {name} ({error}).") from None
            yield path

    def _in_place(self, run_id: str, name: str) -> Path | None:
        """Where an artifact lies if this machine has the folder of the run: MLflow takes 0.2 s to copy one."""
        if run_id not in self._folders:
            try:
                self._folders[run_id] = _folder_of(self._client.get_run(run_id))
            except MlflowException:  # no such run: whoever asks says what it means
                return None
        folder = self._folders[run_id]
        return None if folder is None else folder / name


def _folder_of(run: Run) -> Path | None:
    address = urlparse(run.info.artifact_uri)
    return Path(url2pathname(address.path)) if address.scheme == "file" and not address.netloc else None


def _trial(run: Run) -> Trial:
    tags = run.data.tags
    return Trial(
        run_id=run.info.run_id,
        key=tags.get(KEY, ""),
        status=run.info.status,
        tags=tags,
        metrics=run.data.metrics,
        params=run.data.params,
        started_ms=run.info.start_time,
        ended_ms=run.info.end_time,
    )


def _flatten(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _flatten(value, f"{prefix}{name}.")
        elif value is not None:
            yield f"{prefix}{name}", value


def _trouble(error: Exception) -> Trouble | None:
    """Why a call did not get through; None if what it asked is at fault."""
    reason = " ".join(str(error).split())[:500]
    if isinstance(error, NoAnswerError):  # of a call within
        return error.why
    if isinstance(error, MlflowException):
        if "API request to " in reason:  # how MLflow tells of connections and of answers such as 503
            cause = reason.partition("failed with ")[2]
            return Trouble(reason=cause or reason, refused="too many 500 error" in reason)
        if error.error_code in _TRANSIENT:
            return Trouble(reason=reason, refused=outages.full(reason))
        return None
    return Trouble(reason=reason, refused=True) if isinstance(error, OSError) and outages.full(error) else None


def quiet() -> AbstractContextManager[None]:
    """No progress bars of MLflow in logs."""
    return outages.environment({"MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false"})
