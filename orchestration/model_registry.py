"""Trained models as models of MLflow: logged in their runs, loaded, served and registered by MLflow's own tools.

Beside `tracking.py` the only place that knows MLflow. Logging is a step of its own and never part of a training: it
reads `model/model.pt` of a finished run. What is logged is that file, read with weights only, a script of a few lines
(MLflow's "models from code": nothing is pickled) and posegrid's sources, so that `mlflow models serve` needs no
installation of posegrid.
"""

import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import mlflow
import mlflow.pyfunc
import numpy as np
from mlflow import MlflowClient
from mlflow.entities import LoggedModel, LoggedModelOutput
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.models import Model, ModelSignature
from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema, TensorSpec

from posegrid.orchestration.preflight import source_digest
from posegrid.orchestration.served_model import KEYPOINTS, NUMBERS, ServedModel
from posegrid.orchestration.tracking import MODEL_ARTIFACT, Tracking, quiet

PACKAGED = "posegrid.packaged"
"""Tag of a logged model: digest of its file and of the sources that it carries; equal ones are not logged again."""
_ROOMS = ("datasets", "models", "orchestration")
_NEEDED = ("mlflow", "torch", "numpy", "pyarrow", "pillow", "requests", "filelock")
"""What the sources import when they answer a request (tests/orchestration/test_model_registry.py holds it)."""
_TYPES = {bool: "boolean", int: "long", float: "double", str: "string"}
_SCRIPT = '''"""How MLflow builds the model: its file becomes a posegrid model, requests go through `answer`."""

import numpy as np
from mlflow.exceptions import MlflowException
from mlflow.models import set_model
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE
from mlflow.pyfunc import PythonModel
from posegrid.orchestration.served_model import KEYPOINTS, ServedModel


class Lifter(PythonModel):
    def load_context(self, context):
        self._model = ServedModel.of_file(context.artifacts["model"])

    # a dict of arrays; named so, MLflow checks it by the signature and asks for no other type
    def predict(self, context, model_input: np.ndarray, params=None):
        try:
            answer = self._model.answer(model_input[KEYPOINTS], params)
        except ValueError as error:
            raise MlflowException(str(error), error_code=INVALID_PARAMETER_VALUE) from None
        found = {"poses_mm": answer.poses_mm, "visible": answer.visible}
        return found if answer.spread_mm is None else {**found, "spread_mm": answer.spread_mm}


set_model(Lifter())
'''


@dataclass(frozen=True, kw_only=True)
class Packaged:
    """A model of MLflow in a run."""

    run_id: str
    model_id: str
    """MLflow's identifier of the logged model."""
    made: bool
    """Whether this call logged it, False if it was there."""

    @property
    def address(self) -> str:
        """As `mlflow models serve -m` and `mlflow.pyfunc.load_model` take it."""
        return f"models:/{self.model_id}"


def package(tracking: Tracking, run_id: str) -> Packaged:
    """Log the trained model of a run as a model of MLflow, once for the same file and sources.

    Raises ValueError if the run holds no model file, or a model that reads pictures.
    """
    client = _client(tracking)
    with tracking.fetched(run_id, MODEL_ARTIFACT) as file:
        served = ServedModel.of_file(file)
        identity = f"{served.found.digest[:16]}-{source_digest()}"
        for model in _logged(client, run_id):
            if model.tags.get(PACKAGED) == identity:
                return Packaged(run_id=run_id, model_id=model.model_id, made=False)
        example, parameters = served.example()
        served.answer(example, parameters)  # what it cannot answer is not logged
        about = served.about()
        model = client.create_logged_model(
            tracking.experiment_id,
            name="".join(sign if sign.isalnum() or sign in "-_" else "-" for sign in about["recipe"]),
            source_run_id=run_id,
            tags={PACKAGED: identity, "mlflow.flavor": "python_function"},
            params={"model": str(about["model"]), "protocol": str(about["protocol"])},
            model_type="lifter",
        )
        with tempfile.TemporaryDirectory(prefix="posegrid-") as scratch, _only(tracking):
            folder = Path(scratch)
            script, code = folder / "lifter.py", folder / "posegrid"
            script.write_text(_SCRIPT)
            _copy_sources(code)
            mlflow.pyfunc.save_model(
                path=str(folder / "logged"),
                python_model=str(script),
                artifacts={"model": str(file)},
                code_paths=[str(code)],
                signature=_signature(served),
                input_example=({KEYPOINTS: example}, parameters),
                pip_requirements=requirements(),
                metadata=about,
                mlflow_model=Model(run_id=run_id, model_id=model.model_id),
            )
            client.log_model_artifacts(model.model_id, str(folder / "logged"))
    client.finalize_logged_model(model.model_id, "READY")
    client.log_outputs(run_id, [LoggedModelOutput(model.model_id, 0)])
    return Packaged(run_id=run_id, model_id=model.model_id, made=True)


def register(tracking: Tracking, packaged: Packaged, name: str, aliases: list[str] | None = None) -> str:
    """Register a logged model; the version that is registered already stays the one. Returns the number of the version.

    aliases: names such as "champion", which then point to this version. Raises ValueError for names that MLflow
    refuses.
    """
    client = _client(tracking)
    try:
        if not name or set(name) & set("/:'\""):
            raise MlflowException("the name has a sign that is not allowed")
        try:
            client.create_registered_model(name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        had = [one for one in client.search_model_versions(f"name = '{name}'") if one.source == packaged.address]
        with _only(tracking):
            found = (had or [_version(client, name, packaged)])[0]
        for alias in aliases or []:
            client.set_registered_model_alias(name, alias, found.version)
    except MlflowException as error:
        reason = next(iter(str(error).splitlines()), "")
        raise ValueError(
            f'"{name}" with the aliases {aliases or "(none)"} cannot be registered in {tracking.uri} ({reason}); they '
            "were set with --name and --alias. Allowed are names without / : and quotes, and aliases of letters, "
            'digits, _ and - that are no version ("v1") and not "latest": choose others.'
        ) from None
    return str(found.version)


def _version(client: MlflowClient, name: str, packaged: Packaged) -> ModelVersion:
    return client.create_model_version(name, packaged.address, run_id=packaged.run_id, model_id=packaged.model_id)


def requirements() -> list[str]:
    """Packages that a served model needs, with the versions that are installed here."""
    return [f"{package}=={version(package).partition('+')[0]}" for package in _NEEDED]


def _logged(client: MlflowClient, run_id: str) -> Iterator[LoggedModel]:
    outputs = client.get_run(run_id).outputs
    for output in () if outputs is None else outputs.model_outputs:
        try:
            yield client.get_logged_model(output.model_id)
        except MlflowException:  # deleted by hand
            continue


def _signature(served: ServedModel) -> ModelSignature:
    joints = len(served.about()["joints"])
    outputs: list[ColSpec | TensorSpec] = [TensorSpec(np.dtype("float32"), (-1, joints, 3), "poses_mm")]
    outputs.append(TensorSpec(np.dtype("bool"), (-1, joints), "visible"))
    if served.found.model.chain is not None:
        outputs.append(TensorSpec(np.dtype("float32"), (-1, joints), "spread_mm"))
    parameters = [ParamSpec(name, _TYPES[type(value)], value) for name, (value, _) in NUMBERS.items()]
    # frames, joints, x and y or x, y and confidence
    keypoints = TensorSpec(np.dtype("float64"), (-1, -1, -1), KEYPOINTS)
    return ModelSignature(Schema([keypoints]), Schema(outputs), ParamSchema(parameters))


def _copy_sources(target: Path) -> None:
    """The rooms that answer requests, where they are imported from, without what starts clusters."""
    skipped = shutil.ignore_patterns("__pycache__", "launch", "examples", "*.md")
    here = Path(__file__).resolve().parents[1]
    for room in _ROOMS:
        shutil.copytree(here / room, target / room, ignore=skipped)


def _client(tracking: Tracking) -> MlflowClient:
    return MlflowClient(tracking_uri=tracking.uri, registry_uri=tracking.uri)


@contextmanager
def _only(tracking: Tracking) -> Iterator[None]:
    """MLflow's functions that take no address look at this store and not into the current directory, without hints."""
    chatty, variable = logging.getLogger("mlflow"), "MLFLOW_TRACKING_URI"
    before, level = os.environ.get(variable), chatty.level
    address = mlflow.get_tracking_uri() if mlflow.is_tracking_uri_set() else None
    chatty.setLevel(logging.ERROR)
    mlflow.set_tracking_uri(tracking.uri)
    try:
        with quiet():
            yield
    finally:
        mlflow.set_tracking_uri(address)  # type: ignore[arg-type]
        os.environ.pop(variable, None)
        if before is not None:
            os.environ[variable] = before
        chatty.setLevel(level)
