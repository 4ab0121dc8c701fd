"""A cluster of test hosts, brought up by `ray up` from a shipped file, and the laptop that drives it."""

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml
from cluster.hosts import Hosts

from posegrid.orchestration.launch.wheel import build_wheel

ROOT = Path(__file__).resolve().parents[2]
LIMITS = "--num-cpus=1 --object-store-memory=100000000"
"""Every host sees the whole machine, so Ray is told how much of it is the host's."""
NOTICE = "RAY_health_check_period_ms=2000 RAY_health_check_timeout_ms=8000 RAY_health_check_failure_threshold=3"
"""A power cut is noticed after half a minute instead of one. Sooner, and a busy machine looks like a cut one."""


class Site:
    """Hosts, the first ones (`nodes`) those of a cluster, and a folder that all share like a network file system."""

    def __init__(self, hosts: Hosts, folder: Path, nodes: int = 3) -> None:
        self.hosts = hosts
        self.nodes = nodes
        self.shared = folder / "shared"
        self.clone = folder / "clone"
        self.file = self.clone / "mine.yaml"
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "MLFLOW_"))},
            "HOME": str(folder / "home"),
            "TMPDIR": str(folder / "tmp"),
            "RAY_AUTH_MODE": "token",
            "RAY_USAGE_STATS_ENABLED": "0",
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        }
        for name in ("home", "tmp"):
            (folder / name).mkdir()

    def command(self, *words: str) -> list[str]:
        """A posegrid command on the laptop."""
        return [sys.executable, "-m", "posegrid.experiments.cli", *words]

    def run(self, *words: str, timeout: float = 600) -> subprocess.CompletedProcess[str]:
        """Run a program on the laptop to its end, in the folder of the clone."""
        return subprocess.run(
            words,
            cwd=self.clone,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout,
            check=False,
        )

    def submit(self, *words: str, timeout: float = 900) -> subprocess.CompletedProcess[str]:
        """`posegrid submit --cluster FILE WORDS`, to its end."""
        return self.run(*self.command("submit", "--cluster", str(self.file), *words), timeout=timeout)

    def prepare(self, shipped: str, own: Callable[[dict], None]) -> None:
        """What a user does before `ray up`: clone, wheel, token, and what he changes in the file by `own`.

        Besides, the packages come from this environment, and Ray is told the limits of a host.
        """
        self.clone.mkdir()
        shutil.copytree(ROOT / "clusters", self.clone / "clusters")
        (self.clone / "orchestration/launch").mkdir(parents=True)
        shutil.copy(ROOT / "orchestration/launch/mlflow_server.sh", self.clone / "orchestration/launch")
        build_wheel(ROOT, self.clone / "dist")
        shutil.copy(ROOT / "constraints.txt", self.clone / "dist")
        token = ["ray", "get-auth-token", "--generate"]
        subprocess.run(token, env=self.environment, umask=0o077, check=True, capture_output=True, timeout=120)
        config = yaml.safe_load((ROOT / shipped).read_text())
        config["auth"] = {"ssh_user": "root", "ssh_private_key": str(self.hosts.key)}
        config["setup_commands"][:3] = install_commands()
        own(config)
        self.file.write_text(yaml.safe_dump(config))

    def alive(self) -> int:
        """Nodes that Ray counts as alive, asked on the head; 0 if it does not answer."""
        code = "import ray; ray.init('auto', log_to_driver=False); print('alive', sum(n['Alive'] for n in ray.nodes()))"
        with contextlib.suppress(RuntimeError, subprocess.TimeoutExpired):
            said = self.hosts.run(0, f'timeout 40 python -c "{code}"', timeout=60)
            return int(said.rsplit("alive", 1)[1])
        return 0

    @contextmanager
    def ui(self, port: int, dashboard: int) -> Iterator[subprocess.Popen[str]]:
        """`posegrid ui --cluster` for the time of a block, ended as Ctrl-C does."""
        words = self.command("ui", "--cluster", str(self.file), "--port", str(port), "--dashboard-port", str(dashboard))
        process = subprocess.Popen(
            words, cwd=self.clone, env=self.environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
        )
        try:
            assert process.stdout is not None
            for line in process.stdout:
                if "Ctrl-C" in line:
                    break
            yield process
        finally:
            process.send_signal(2)
            process.wait(20)


def before_ray_start(config: dict, kind: str, variables: str, options: str) -> None:
    """Put variables and options into the command that starts Ray on "head" or "worker" nodes."""
    commands = config[f"{kind}_start_ray_commands"]
    assert "ray start --" in commands[-1]
    commands[-1] = commands[-1].replace("ray start --", f"{variables} ray start {options} --")


def install_commands() -> list[str]:
    """Instead of what downloads packages: an environment that sees this one's, and the wheel installed in it."""
    packages = next(path for path in sys.path if path.endswith("site-packages"))
    programs = " ".join(f"{sys.prefix}/bin/{name}" for name in ("ray", "mlflow"))
    copied = 'sed "1s|.*|#!$HOME/venv/bin/python|" $file > ~/venv/bin/$(basename $file)'
    make = (
        f"test -x ~/venv/bin/python || {{ {sys.executable} -m venv --without-pip ~/venv && "
        f"echo {packages} > $(echo ~/venv/lib/python3*/site-packages)/packages.pth && "
        f"for file in {programs}; do {copied}; done && chmod +x ~/venv/bin/ray ~/venv/bin/mlflow; }}"
    )
    pip = f"{sys.executable} -m pip --python ~/venv/bin/python install -q --no-index"
    return [make, f"{pip} --no-deps --force-reinstall ~/posegrid/dist/posegrid-*.whl"]


def until(true: Callable[[], bool], seconds: float, what: str) -> float:
    """Wait; returns how long it took."""
    began = time.monotonic()
    while not true():
        if time.monotonic() - began > seconds:
            raise AssertionError(f"not within {seconds:g} s: {what}")
        time.sleep(1)
    return time.monotonic() - began
