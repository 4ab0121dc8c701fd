"""What a submitted job carries, how its log is shown, and what the commands refuse. No cluster."""

import shutil
import socket
import zipfile
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from posegrid.experiments.cli import main
from posegrid.orchestration.launch import jobs as jobs_module
from posegrid.orchestration.launch.jobs import Jobs
from posegrid.orchestration.launch.tunnel import Head, free_port, head_of, tunnel
from posegrid.orchestration.launch.wheel import build_wheel, pack, working_tree

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    file = tmp_path / "posegrid-0.1.0-py3-none-any.whl"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("posegrid/models/mlp.py", "x = 1\n")
    return file


def test_a_job_carries_the_wheel_and_the_users_own_files(
    wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("here/mine/grid.toml", "here/mine/recipe.toml", "here/mine/notes.txt", "here/a.toml", "far/b.toml"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    monkeypatch.chdir(tmp_path / "here")
    far = str(tmp_path / "far/b.toml")
    placed = pack(wheel, ["mine/grid.toml", "./a.toml", far], tmp_path / "job")
    assert placed == {"mine/grid.toml": "mine/grid.toml", "./a.toml": "a.toml", far: "recipes2/b.toml"}
    carried = {str(file.relative_to(tmp_path / "job")) for file in (tmp_path / "job").rglob("*") if file.is_file()}
    assert carried == {"posegrid/models/mlp.py", "mine/grid.toml", "mine/recipe.toml", "a.toml", "recipes2/b.toml"}


def test_what_is_no_wheel_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.whl").write_text("no archive")
    with pytest.raises(ValueError, match=r"a\.whl is no wheel of posegrid .*--wheel.*Allowed.*leave --wheel out"):
        pack(tmp_path / "a.whl", [], tmp_path / "job")
    with zipfile.ZipFile(tmp_path / "b.whl", "w") as archive:
        archive.writestr("other/a.py", "")
    with pytest.raises(ValueError, match="it holds no posegrid"):
        pack(tmp_path / "b.whl", [], tmp_path / "job")


@pytest.mark.slow
def test_the_wheel_is_that_of_the_working_tree(tmp_path: Path) -> None:
    assert working_tree() == ROOT
    with zipfile.ZipFile(build_wheel(ROOT, tmp_path)) as archive:
        assert archive.read("posegrid/models/mlp.py") == (ROOT / "models/mlp.py").read_bytes()
        names = set(archive.namelist())
    assert "posegrid/orchestration/launch/mlflow_server.sh" in names
    assert "posegrid/experiments/recipes/mixste_27.toml" in names
    assert not any(name.startswith(("posegrid/tests", "tests")) for name in names)


def test_a_tree_that_cannot_be_built_is_refused(tmp_path: Path) -> None:
    for room in ("datasets", "models", "orchestration", "experiments"):
        (tmp_path / room).mkdir()
    (tmp_path / "pyproject.toml").write_text("[build-system]\nrequires = []\nbuild-backend = 'none_such'\n")
    with pytest.raises(ValueError, match=r"the wheel of .* cannot be built .*make wheel.*--wheel"):
        build_wheel(tmp_path, tmp_path / "out")


class Client:
    """Stands in for Ray's: a log that grows, a connection that breaks in the middle of it."""

    def __init__(self, status: str = "SUCCEEDED", code: int | None = 0) -> None:
        self.reads = 0
        self.ended = SimpleNamespace(
            status=SimpleNamespace(value=status, is_terminal=lambda: True), driver_exit_code=code, message="why"
        )

    def get_job_info(self, job: str) -> Any:
        if job != "known":
            raise RuntimeError(f"Job {job} does not exist")
        return self.ended

    def list_jobs(self) -> list[Any]:
        return [SimpleNamespace(submission_id="known")]

    async def tail_job_logs(self, job: str) -> AsyncIterator[str]:
        self.reads += 1
        yield "first line\nsec"
        if self.reads == 1:
            raise RuntimeError("WebSocket connection closed unexpectedly")
        yield "ond line\n"


def jobs(client: Client) -> Jobs:
    made = Jobs.__new__(Jobs)
    made._address, made._client = "http://here", client  # type: ignore[assignment]
    return made


def test_a_log_is_shown_once_although_the_connection_breaks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs_module.time, "sleep", lambda seconds: None)
    shown: list[str] = []
    client = Client()
    ended = jobs(client).follow("known", shown.append)
    assert "".join(shown) == "first line\nsecond line\n"
    assert client.reads == 2
    assert (ended.status, ended.exit_status) == ("SUCCEEDED", 0)


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [("SUCCEEDED", 0, 0), ("FAILED", 2, 2), ("FAILED", None, 1), ("FAILED", -9, 1), ("STOPPED", None, 1)],
)
def test_exit_status_follows_the_job(
    monkeypatch: pytest.MonkeyPatch, status: str, code: int | None, expected: int
) -> None:
    monkeypatch.setattr(jobs_module.time, "sleep", lambda seconds: None)
    assert jobs(Client(status, code)).follow("known", lambda text: None).exit_status == expected


def test_a_cluster_that_stays_away_ends_the_following(monkeypatch: pytest.MonkeyPatch) -> None:
    client = Client()
    asked = iter(["first question"])

    def gone(job: str) -> Any:
        if next(asked, None) is None:
            raise OSError("no route")

    monkeypatch.setattr(client, "get_job_info", gone)
    monkeypatch.setattr(client, "tail_job_logs", gone)
    clock = iter(range(0, 10_000, 50))
    monkeypatch.setattr(jobs_module, "time", SimpleNamespace(sleep=lambda s: None, monotonic=lambda: next(clock)))
    with pytest.raises(ConnectionError, match="has not answered for 120 s"):
        jobs(client).follow("known", lambda text: None)


def test_unknown_job_names_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"has no job lost .*--attach or --stop\. Known: known\. .*submit the command"):
        jobs(Client()).stop("lost")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "nothing was given to `posegrid submit`. Allowed: one of a command after --"),
        (["--attach", "a", "--stop", "b"], "--attach and --stop was given"),
        (["--attach", "a", "--", "grid", "demo"], "a command and --attach was given"),
        (["--cluster", "a.yaml", "--address", "b", "--", "grid"], "were both given. Allowed: one"),
        (["--address", "http://127.0.0.1:9", "--attach", "a"], "no Ray dashboard can be used at http://127.0.0.1:9"),
        (["--cluster", "none.yaml", "--", "grid", "demo"], "cluster file none.yaml is missing"),
        (["--cluster", "a", "--", "grid", "demo", "--address", "x"], "runs on the cluster already"),
    ],
)
def test_submit_refuses(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["submit", *arguments])
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


def test_ui_refuses_a_port_that_is_taken(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert free_port(port) != port
        with pytest.raises(SystemExit) as stopped:
            main(["ui", "--cluster", "none.yaml", "--port", str(port)])
    assert stopped.value.code == 2
    assert f"port {port} is taken. Choose another one with --port." in capsys.readouterr().err


def test_a_head_that_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    if shutil.which("ssh") is None:
        pytest.skip("ssh is not installed")
    head = Head(address="127.0.0.1", user="nobody", key="", options=("-p", "9"))
    wanted = r"no tunnel to nobody@127\.0\.0\.1 .*Allowed.*Check that the cluster is up"
    with pytest.raises(ValueError, match=wanted), tunnel(head, {free_port(): ("127.0.0.1", 1)}):
        pass
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ValueError, match=r"ssh is missing.*Install it"), tunnel(head, {}):
        pass


def test_a_file_that_is_no_cluster(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("cluster_name: x\nprovider: {type: local, head_ip: 127.0.0.1}\n")
    with pytest.raises(ValueError, match=r"the head of .*c\.yaml cannot be found .*--cluster.*ray up"):
        head_of(tmp_path / "c.yaml")
