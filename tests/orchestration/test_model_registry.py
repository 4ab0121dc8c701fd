"""Trained models as models of MLflow: what is logged, what it answers, what it needs, registered with an alias."""

import ast
import json
import sys
from pathlib import Path
from urllib.parse import urlparse
from urllib.request import url2pathname

import mlflow.pyfunc
import numpy as np
import pytest
import torch
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.models import get_model_info

from posegrid.datasets.keypoints.pose_files import read_poses
from posegrid.datasets.skeletons import COCO_17, H36M_17
from posegrid.experiments.cli import main
from posegrid.orchestration import checkpoint
from posegrid.orchestration.batches import shape_of
from posegrid.orchestration.model_registry import Packaged, package, register, requirements
from posegrid.orchestration.own_keypoints import lift
from posegrid.orchestration.served_model import ServedModel
from posegrid.orchestration.settings import Settings
from posegrid.orchestration.stage import log_model
from posegrid.orchestration.tracking import Tracking

WALK = Path(__file__).parents[2] / "datasets" / "examples" / "walk.csv"
DIFFUSION = {"name": "diffhpe", "conditioning": "keypoints", "channels": 8, "blocks": 2, "steps": 4}


def trained(tracking: Tracking, settings: Settings, key: str) -> str:
    """Run id of a model with random weights."""
    torch.manual_seed(3)
    shape = shape_of(H36M_17, settings.data)
    model = checkpoint.build(settings, shape)
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.1)
    run = tracking.open_trial(key, settings.name, "", {}, {})
    about = {"hash": "", "source": "toy", "skeleton": "h36m_17", "frame_rate": 25.0}
    log_model(tracking, run, settings, shape, model, about)
    tracking.finish(run, "FINISHED")
    return run


@pytest.fixture
def sampler(lifter_settings: Settings) -> Settings:
    """A tiny diffusion model of three hypotheses."""
    plain = lifter_settings.plain() | {"model": DIFFUSION, "name": "sampler"}
    plain["evaluation"] |= {"hypotheses": 3}
    return Settings.from_plain(plain, "test")


def request_of(file: Path, person: str, joints: tuple[str, ...]) -> np.ndarray:
    """(F, J, 3) of the example table, read by hand; joints without a row are NaN."""
    rows = [line.split(",") for line in file.read_text().splitlines()]
    head = rows[0]
    mine = [dict(zip(head, row, strict=True)) for row in rows[1:] if row[head.index("person")] == person]
    frames = sorted({int(row["frame"]) for row in mine})
    found = np.full((len(frames), len(joints), 3), np.nan)
    for row in mine:
        values = [float(row[name]) for name in ("x", "y", "confidence")]
        found[int(row["frame"]) - frames[0], joints.index(row["joint"])] = values
    return found


def contents_hold(tracking: Tracking, packaged: Packaged, settings: Settings) -> None:
    """What is logged pickles nothing, and its requirements name what its sources import."""
    client = MlflowClient(tracking_uri=tracking.uri)
    folder = Path(url2pathname(urlparse(client.get_logged_model(packaged.model_id).artifact_location).path))
    files = [file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()]
    assert not [file for file in files if file.endswith((".pkl", ".pickle", ".pyc"))]
    assert [file for file in files if file.endswith(".pt")] == ["artifacts/model.pt"]
    assert checkpoint.load_model(folder / "artifacts" / "model.pt")[1] == settings
    assert (folder / "requirements.txt").read_text().split() == requirements()
    # follow the imports of the sources that are carried along, from the module that the script imports
    outside, seen, left = set(), set(), ["posegrid.orchestration.served_model"]
    while left:
        module = left.pop()
        place = folder / "code" / module.replace(".", "/")
        file = place.with_suffix(".py")
        if module in seen or place.is_dir():
            continue
        seen.add(module)
        assert file.is_file(), f"{module} is not carried along"
        for node in ast.parse(file.read_text()).body:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                inner = [f"{node.module}.{alias.name}" for alias in node.names]
                names = [one for one in inner if (folder / "code" / one.replace(".", "/")).with_suffix(".py").is_file()]
                names = names or [str(node.module)]
            left += [name for name in names if name.startswith("posegrid.")]
            outside |= {name.split(".")[0] for name in names} - {"posegrid"}
    assert len(seen) > 30
    called = {"PIL": "pillow"}
    third_party = {called.get(name, name) for name in outside - set(sys.stdlib_module_names)}
    assert third_party <= {line.partition("==")[0] for line in requirements()}, third_party


def test_a_registered_model_answers_as_posegrid_lift(
    tracking: Tracking, sampler: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = trained(tracking, sampler, "served")
    packaged = package(tracking, run)
    assert packaged.made
    assert package(tracking, run) == type(packaged)(run_id=run, model_id=packaged.model_id, made=False)
    contents_hold(tracking, packaged, sampler)
    name = f"lifter {run[:6]}"
    assert register(tracking, packaged, name, ["champion"]) == "1"
    assert register(tracking, packaged, name, ["champion", "latest-good"]) == "1"
    assert tracking.registered_run(f"models:/{name}@latest-good") == run
    # nothing lies in the current directory, and MLflow's own address is as it was
    assert list(tmp_path.iterdir()) == []
    assert not mlflow.is_tracking_uri_set()

    mlflow.set_tracking_uri(tracking.uri)
    try:
        served = mlflow.pyfunc.load_model(f"models:/{name}@champion")
        metadata = get_model_info(f"models:/{name}@champion").metadata or {}
    finally:
        mlflow.set_tracking_uri(None)  # type: ignore[arg-type]
    keypoints = request_of(WALK, "ann", COCO_17.joints)
    assert np.isnan(keypoints).any(), "the example has joints that were not seen"
    facts = {"width": 640, "height": 480, "frame_rate": 25.0, "joints": "coco_17"}
    lift(f"models:/{name}@champion", WALK, tmp_path / "poses.parquet", tracking=tracking.uri)
    rows = read_poses(tmp_path / "poses.parquet", person="ann").rows
    answer = served.predict({"keypoints": keypoints}, params=facts)
    np.testing.assert_array_equal(answer["poses_mm"], rows.poses_mm)
    np.testing.assert_array_equal(answer["spread_mm"], rows.deviation_mm)
    np.testing.assert_array_equal(answer["visible"], rows.visible)
    assert (metadata["unit"], metadata["recipe"], metadata["joints"]) == ("mm", "sampler", list(H36M_17.joints))
    # MLflow's own example of the model is a request that it answers
    assert served.predict(served.input_example, params=facts | {"joints": ""})["poses_mm"].shape == (30, 17, 3)
    with pytest.raises(MlflowException, match="does not give height, frame_rate"):
        served.predict({"keypoints": keypoints}, params={"width": 100})


def test_names_that_mlflow_refuses(tracking: Tracking) -> None:
    packaged = Packaged(run_id="run", model_id="m-1", made=True)
    for name, alias in (("a/b", []), ("it's", []), ("", []), ("good", ["v1"])):
        with pytest.raises(ValueError, match=r"cannot be registered in .*they were set with --name.*choose others"):
            register(tracking, packaged, name, alias)


def test_requests_that_cannot_be_answered(tmp_path: Path, lifter_settings: Settings) -> None:
    shape = shape_of(H36M_17, lifter_settings.data)
    model = checkpoint.build(lifter_settings, shape)
    about = {"hash": "", "source": "toy", "skeleton": "h36m_17"}
    checkpoint.write(tmp_path / "model.pt", checkpoint.model_file(lifter_settings, shape, model.state_dict(), about))
    served = ServedModel.of_file(tmp_path / "model.pt")
    keypoints, facts = served.example()
    assert served.answer(keypoints[..., :2], facts).poses_mm.shape == (30, 17, 3)
    for array, wrong, message in (
        (keypoints, {"hight": 3}, r'parameter "hight" \(the request\) is unknown; did you mean "height"'),
        (keypoints[:, :16], {}, r"shape \(30, 16, 3\), joints = h36m_17. Expected are \(frames, 17, 2\)"),
        (keypoints[0], {}, r"Expected are \(frames, 17, 2\).*correct the array"),
        (np.full((5, 17, 2), np.nan), {}, "shows no joint in 5 frames"),
        (keypoints, {"least_confidence": 0.999}, "no confidence of 0.999 or more. Lower"),
        (keypoints, {"score": "windows"}, 'did you mean "window"'),
        (keypoints, {"joints": "h36m"}, "h36m_17"),
        (keypoints, {"width": -5}, "must be positive"),
    ):
        with pytest.raises(ValueError, match=message):
            served.answer(array, facts | wrong)


def test_the_commands(
    tracking: Tracking, lifter_settings: Settings, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Tracking, "existing", classmethod(lambda cls, uri: tracking))
    run = trained(tracking, lifter_settings, "commands")
    calls = (
        (["package", run], 0),
        (["register", "tiny", "--name", f"by {run[:6]}", "--alias", "champion", "--json"], 0),
        (["package", "nobody"], 2),
    )
    said = []
    for arguments, status in calls:
        with pytest.raises(SystemExit) as ended:
            main([*arguments, "--tracking", tracking.uri])
        assert (ended.value.code or 0) == status
        said.append(capsys.readouterr())
    address = said[0].out.split()[0]
    assert f"{address} logged in run {run}" in said[0].out
    assert f"mlflow models serve -m {address} -p 5001 --env-manager local" in said[0].out
    plain = json.loads(said[1].out)
    assert (plain["run"], plain["model"], plain["logged"], plain["version"]) == (run, address, False, "1")
    assert plain["registered"] == f"models:/by {run[:6]}@champion"
    assert 'RUN "nobody" is no trained run' in said[2].err
