"""A study that logs to a tracking server, as on a cluster: artifacts travel through the server."""

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import toy

from posegrid.experiments.cli import main
from posegrid.orchestration.tracking import Tracking, sqlite_uri

RECIPE = """
[model]
name = "{name}"
{options}
[data]
frames = 9
[training]
epochs = 1
batch = 8
lr = 1e-3
[evaluation]
hypotheses = 1
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of an MLflow server on localhost."""
    folder = tmp_path_factory.mktemp("server")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", sqlite_uri(folder / "mlflow.db"), "--artifacts-destination", str(folder / "a")]
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}"
    for _ in range(240):
        try:
            urllib.request.urlopen(address + "/health", timeout=1).close()
            break
        except OSError:
            time.sleep(0.5)
    yield address
    process.terminate()
    process.wait()


def test_chain_through_a_server(server: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lifter, wrapper = tmp_path / "lifter.toml", tmp_path / "wrapper.toml"
    lifter.write_text(RECIPE.format(name="mlp", options="width = 16"))
    options = 'conditioning = "lifter"\nchannels = 8\nblocks = 1\nsteps = 2'
    wrapper.write_text(RECIPE.format(name="diffhpe", options=options) + f'[conditioner]\nrecipe = "{lifter}"\n')
    toy.write_toy(tmp_path / "store")
    command = ["train", str(wrapper), "--data", str(tmp_path / "store"), "--launch", "local", "--study", "s"]
    with pytest.raises(SystemExit) as stopped:
        main([*command, "--tracking", server, "--storage", str(tmp_path / "state")])
    assert not stopped.value.code
    assert f"in the MLflow UI at {server}" in capsys.readouterr().out
    tracking = Tracking(server)
    trials = {trial.tags["mlflow.runName"]: trial for trial in tracking.trials().values()}
    assert set(trials) == {"lifter on none", "wrapper on none"}
    with tracking.fetched(trials["wrapper on none"].run_id, "model/model.pt") as file:
        assert file.stat().st_size > 1000
    assert "report/report.html" in tracking.artifacts(tracking.study("s"), "report")
    assert not (Path.cwd() / "mlruns").exists()
