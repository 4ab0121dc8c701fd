"""`ray up` for real: three test hosts become a cluster from the shipped file, and a study on it survives a power cut.

    make test-cluster

One after another on the same cluster, so the order of the tests matters. Needs root and the programs that `hosts.py`
names.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import toy
from cluster.hosts import Hosts, missing
from cluster.laptop import LIMITS, NOTICE, Site, before_ray_start, until

from posegrid.orchestration.launch.tunnel import free_port
from posegrid.orchestration.tracking import Tracking, sqlite_uri

pytestmark = pytest.mark.cluster

EPOCHS = 20
GRID = """
title = "three hosts"
train = ["none", "leg_run", "arm_leg"]
test = ["none", "leg_run"]
[[members]]
recipe = "mine/lifter.toml"
label = "lifter"
"""
SEARCH = """
title = "three trials"
recipe = "mine/lifter.toml"
trials = 3
method = "random"
replicates = [0]
[space."training.lr"]
kind = "log"
low = 1e-4
high = 1e-2
"""
OPEN = ("/health", "/version", "/api/healthz", "/api/gcs_healthz", "/api/local_raylet_healthz")
"""What may be told to anybody: that something is there and well."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The cluster, up. The fourth host is outside of it."""
    if reason := missing():
        if "POSEGRID_CLUSTER_TESTS" in os.environ:
            pytest.fail(f"{reason}, but the environment asks for these tests")
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("site")
    (folder / "shared").mkdir()
    toy.write_toy(folder / "shared" / "store")
    shared = [Path(sys.prefix), Path(sys.base_prefix)]
    with Hosts(4, shared=shared, written=[folder / "shared"]) as hosts:
        made = Site(hosts, folder)
        made.prepare("clusters/on_premises.yaml", lambda config: own(config, made))
        began = time.monotonic()
        up = made.run("ray", "up", "-y", str(made.file), timeout=900)
        assert up.returncode == 0, up.stdout[-4000:]
        told("ray up", time.monotonic() - began)
        told("both workers joined, after", until(lambda: made.alive() == made.nodes, 900, "all nodes"))
        yield made


def own(config: dict, site: Site) -> None:
    """What is changed in the shipped file besides key and source of packages."""
    head, *workers = (host.address for host in site.hosts.all[: site.nodes])
    config["provider"] |= {"head_ip": head, "worker_ips": workers}
    for kind in ("head", "worker"):
        before_ray_start(config, kind, NOTICE, LIMITS)


@pytest.fixture(scope="module")
def grid(site: Site) -> str:
    """A grid of the laptop's own, with its recipe beside it."""
    folder = site.clone / "mine"
    folder.mkdir()
    (folder / "lifter.toml").write_text(toy.LIFTER_RECIPE + f"epochs = {EPOCHS}\n")
    (folder / "grid.toml").write_text(GRID)
    return "mine/grid.toml"


@pytest.fixture(scope="module")
def wheel(site: Site) -> str:
    return str(next((site.clone / "dist").glob("posegrid-*.whl")))


def told(what: str, seconds: float) -> None:
    """Times for whoever runs this with -s."""
    print(f"    {what}: {seconds:.1f} s", flush=True)


def everywhere(site: Site) -> list[str]:
    """Options of a study on this cluster."""
    return ["--data", str(site.shared / "store"), "--storage", str(site.shared / "state")]


def training(site: Site, index: int) -> int:
    """Ray Train workers on a host."""
    return int(site.hosts.run(index, "pgrep -fc '^ray::RayTrainWorker' || true", check=False).strip() or 0)


def test_every_node_runs_the_installed_wheel(site: Site) -> None:
    for index in range(site.nodes):
        ask = "import os, posegrid.models.mlp as m; print(os.path.relpath(m.__file__, os.path.expanduser('~')))"
        where = site.hosts.run(index, f'python -c "{ask}"')
        assert where.startswith("venv/lib/python"), where
        assert "token" in site.hosts.run(index, "echo $RAY_AUTH_MODE")


def test_setup_is_checked_on_every_node(site: Site, wheel: str) -> None:
    began = time.monotonic()
    done = site.submit("--wheel", wheel, "--", "check", "setup", "--workers", "3", *everywhere(site))
    assert done.returncode == 0, done.stdout
    assert "Ray: 3 node(s), 3 CPU cores, 0 GPUs; 1 trainings of 3 worker(s) side by side" in done.stdout
    assert "preflight: 3 node(s) share versions, storage, tracking store and data" in done.stdout
    told("check setup as a job", time.monotonic() - began)
    told("preflight of it", float(re.findall(r"and data; ([\d.]+) s", done.stdout)[0]))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--workers", "4"], "4 workers x 1 CPU cores = 4, but the cluster at .* has 3;"),
        (["--storage", "/srv/state"], "the storage /srv/state is not the same on all nodes"),
        (["--tracking", "http://127.0.0.1:9"], "tracking server http://127.0.0.1:9 does not answer"),
        (["--cpus-per-worker", "2"], "room for 0: a worker cannot be shared by nodes"),
    ],
)
def test_what_cannot_run_is_refused_in_seconds(site: Site, wheel: str, words: list[str], message: str) -> None:
    began = time.monotonic()
    done = site.submit("--wheel", wheel, "--", "check", "setup", *everywhere(site), *words)
    assert done.returncode == 2, done.stdout
    assert re.search(message, done.stdout), done.stdout
    told(f"refusal of {' '.join(words)}, as a job", time.monotonic() - began)


def test_other_data_on_one_node_is_refused(site: Site, wheel: str) -> None:
    """The same path, another store behind it."""
    for index in range(3):
        site.hosts.run(index, f"cp -r {site.shared}/store /srv/store")
    site.hosts.run(2, 'sed -i \'s/"content_hash": "../"content_hash": "00/\' /srv/store/store.json')
    words = ["--data", "/srv/store", "--storage", str(site.shared / "state")]
    done = site.submit("--wheel", wheel, "--", "train", "demo_lifter", *words)
    assert done.returncode == 2, done.stdout
    assert f"{site.hosts.all[2].name} ({site.hosts.all[2].address}): the store at /srv/store has hash 00" in done.stdout
    assert site.hosts.all[1].name not in done.stdout


def test_a_submitted_grid_survives_a_power_cut(site: Site, grid: str) -> None:
    """The host comes back later, and takes part again. What was built is sent: the wheel of this working tree."""
    words = site.command("submit", "--cluster", str(site.file), "--", "grid", grid, "--study", "cut")
    began = time.monotonic()
    process = subprocess.Popen(
        [*words, *everywhere(site)],
        cwd=site.clone,
        env=site.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    said, victim, cut_at, back = [], 0, 0.0, False
    used: set[int] = set()
    assert process.stdout is not None
    for line in process.stdout:
        said.append(line)
        if "epoch" in line and not used:
            told("from command to first epoch", time.monotonic() - began)
        if "epoch" in line and not victim:
            used |= {index for index in range(3) if training(site, index)}
            victim = next((index for index in (1, 2) if len(used) > 1 and training(site, index)), 0)
            if victim:
                site.hosts.unplug(victim)
                site.hosts.kill(victim)
                cut_at = time.monotonic()
        elif victim and not back and time.monotonic() - cut_at > 20:
            site.hosts.start(victim)
            back = True
    log = "".join(said)
    assert process.wait(600) == 0, log[-6000:]
    told("the grid with a power cut", time.monotonic() - began)
    assert victim, log
    assert len(used) > 1, "trainings lay on several hosts"
    assert "building the wheel of" in log
    assert "preflight: 3 node(s)" in log
    assert "SUCCEEDED" in log
    if not back:
        site.hosts.start(victim)
    told("the lost node was back after", until(lambda: site.alive() == site.nodes, 900, "three nodes again"))


def login(site: Site) -> dict[str, str]:
    said = site.hosts.run(0, "echo $MLFLOW_TRACKING_USERNAME $MLFLOW_TRACKING_PASSWORD").split()
    return dict(zip(("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"), said, strict=True))


def status(address: str, **headers: str) -> int:
    """HTTP status of an address."""
    try:
        with urllib.request.urlopen(urllib.request.Request(address, headers=headers), timeout=10) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_results_are_complete_and_equal_to_an_undisturbed_run(
    site: Site, grid: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, value in login(site).items():
        monkeypatch.setenv(name, value)
    alone = site.command("grid", grid, "--study", "alone", "--launch", "local")
    done = site.run(*alone, "--data", str(site.shared / "store"), "--home", str(tmp_path))
    assert done.returncode == 0, done.stdout
    expected = curves(Tracking(sqlite_uri(tmp_path / "mlflow.db")))
    port, dashboard = free_port(), free_port()
    with site.ui(port, dashboard):
        found = curves(Tracking(f"http://127.0.0.1:{port}"))
        trials = Tracking(f"http://127.0.0.1:{port}").trials().values()
        assert {trial.status for trial in trials} == {"FINISHED"}
        assert set(Tracking(f"http://127.0.0.1:{port}").artifacts(next(iter(trials)).run_id, "model")) == {
            "model/model.pt"
        }
    names = {f"lifter on {pattern}" for pattern in ("none", "leg_run", "arm_leg")}
    assert set(found) == set(expected) == names
    for name, (points, tests) in found.items():
        assert [step for step, _ in points] == list(range(EPOCHS)), name
        # other hosts compute with other numbers of threads: sums differ in their last digits
        np.testing.assert_allclose([loss for _, loss in points], [loss for _, loss in expected[name][0]], rtol=1e-4)
        assert tests.keys() == expected[name][1].keys(), name
        np.testing.assert_allclose(list(tests.values()), [expected[name][1][key] for key in tests], rtol=1e-3)
        assert any("leg_run/mpjpe_mm" in metric for metric in tests)


def curves(tracking: Tracking) -> dict[str, tuple[list[tuple[int, float]], dict[str, float]]]:
    """Trial name -> its loss at each step, its test metrics."""
    found = {}
    for trial in tracking.trials().values():
        history = tracking._client.get_metric_history(trial.run_id, "train/loss")
        tests = {name: value for name, value in trial.metrics.items() if name.startswith("test ")}
        found[trial.tags["mlflow.runName"]] = ([(point.step, point.value) for point in history], tests)
    return found


def test_a_submitted_search(site: Site, grid: str, wheel: str) -> None:
    (site.clone / grid).with_name("search.toml").write_text(SEARCH)
    began = time.monotonic()
    words = ["--", "search", "mine/search.toml", "--study", "searched", "--set", "training.epochs=4"]
    done = site.submit("--wheel", wheel, *words, *everywhere(site))
    assert done.returncode == 0, done.stdout
    told("a search of 3 trials and a replicate", time.monotonic() - began)
    done = site.submit("--wheel", wheel, *words, *everywhere(site))
    assert done.returncode == 0, done.stdout
    assert done.stdout.count(" 0 to run") == 2
    assert "epoch 1/" not in done.stdout


def test_repeating_the_command_trains_nothing(site: Site, grid: str, wheel: str) -> None:
    done = site.submit("--wheel", wheel, "--", "grid", grid, "--study", "cut", *everywhere(site))
    assert done.returncode == 0, done.stdout
    assert "3 stages, 3 done, 0 to run" in done.stdout


def test_ui_through_the_tunnel_and_only_with_the_secrets(site: Site) -> None:
    port, dashboard = free_port(), free_port()
    user = login(site)
    basic = b64encode(f"{user['MLFLOW_TRACKING_USERNAME']}:{user['MLFLOW_TRACKING_PASSWORD']}".encode()).decode()
    token = (Path(site.environment["HOME"]) / ".ray/auth_token").read_text().strip()
    with site.ui(port, dashboard) as process:
        assert status(f"http://127.0.0.1:{port}/") == 401
        assert status(f"http://127.0.0.1:{port}/", Authorization=f"Basic {basic}") == 200
        assert status(f"http://127.0.0.1:{dashboard}/api/jobs/") == 401
        assert status(f"http://127.0.0.1:{dashboard}/api/jobs/", Authorization=f"Bearer {token}") == 200
    assert process.returncode == 0
    assert free_port(port) == port
    children = subprocess.run(["pgrep", "-f", f"127.0.0.1:{port}:"], capture_output=True, text=True, check=False)
    assert not children.stdout


def test_a_job_goes_on_without_the_laptop(site: Site, grid: str, wheel: str) -> None:
    """Left with Ctrl-C, then followed again to its end; another one is left at once and stopped."""
    words = ["--wheel", wheel, "--", "grid", grid, "--study", "left", "--set", "training.epochs=3"]
    process = subprocess.Popen(
        [*site.command("submit", "--cluster", str(site.file)), *words, *everywhere(site)],
        cwd=site.clone,
        env=site.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    said = next(line for line in process.stdout if "submitted" in line)
    job = said.split()[-1]
    next(line for line in process.stdout if "study left" in line)
    process.send_signal(signal.SIGINT)
    rest = process.stdout.read()
    assert process.wait(30) == 130
    assert f"posegrid submit --cluster {site.file} --attach {job}" in rest
    done = site.submit("--attach", job)
    assert done.returncode == 0, done.stdout
    assert "study left: 3 stages" in done.stdout  # the log from its beginning
    assert f"job {job}: SUCCEEDED" in done.stdout
    left = site.submit("--detach", *words[:-1], "training.epochs=4", *everywhere(site)).stdout
    job = re.findall(r"job (\S+) runs", left)[0]
    assert site.submit("--stop", job).returncode == 0
    stopped = site.submit("--attach", job)
    assert (stopped.returncode, "STOPPED" in stopped.stdout) == (1, True), stopped.stdout


def test_nothing_is_given_to_a_host_outside(site: Site) -> None:
    """All ports that listen on more than localhost, sshd aside, asked without token; then Ray with a wrong one."""
    places = []
    for index in range(site.nodes):
        listening = site.hosts.run(index, "ss -ltnH | awk '{print $4}'").split()
        ports = {place.rsplit(":", 1)[1] for place in listening if not place.startswith(("127.", "[::1]"))} - {"22"}
        assert ports, "a node listens"
        places += [f"{site.hosts.all[index].address}:{port}" for port in sorted(ports, key=int)]
    (site.shared / "outsider.py").write_text((Path(__file__).parent / "outsider.py").read_text())
    said = site.hosts.run(3, f"{sys.executable} {site.shared}/outsider.py {' '.join(places)}", timeout=900)
    answers = json.loads(said)
    assert answers.keys() == set(places)
    gave = [
        f"{place} {answer}"
        for place, given in answers.items()
        for answer in given
        if (": 200" in answer or ": OK" in answer) and not any(f"GET {path}:" in answer for path in OPEN)
    ]
    assert gave == []
    refused = [answer for given in answers.values() for answer in given if ": 401" in answer or "UNAUTH" in answer]
    assert len(refused) > 10, answers
    head = site.hosts.all[0].address
    for mode in ("RAY_AUTH_MODE=disabled", "RAY_AUTH_MODE=token RAY_AUTH_TOKEN=0123456789abcdef0123456789abcdef"):
        code = f"import ray; ray.init('{head}:6379'); print('INSIDE', len(ray.nodes()))"
        tried = f'{mode} timeout 30 {sys.executable} -c "{code}" 2>&1; echo ended $?'
        outcome = site.hosts.run(3, tried, timeout=90)
        assert "INSIDE" not in outcome
        assert "ended 0" not in outcome


def test_ray_down_leaves_nothing(site: Site) -> None:
    down = site.run("ray", "down", "-y", str(site.file), timeout=300)
    assert down.returncode == 0, down.stdout

    def left() -> list[str]:
        """What still runs of Ray, on any host."""
        listed = [
            site.hosts.run(index, "pgrep -fa 'raylet|gcs_server|^ray::|dashboard' || true")
            for index in range(site.nodes)
        ]
        return [line for text in listed for line in text.splitlines() if "pgrep" not in line]

    told("after `ray down`, Ray was gone everywhere after", until(lambda: not left(), 240, f"no Ray: {left()}"))
    # results can still be read; they go with
    assert "200" in site.hosts.run(
        0, "curl -s -o /dev/null -w '%{http_code}' http://$(hostname -I | tr -d ' '):5000/health"
    )
    site.hosts.run(0, "bash ~/posegrid/mlflow_server.sh stop")
    until(lambda: not site.hosts.run(0, "pgrep -fa 'mlflow server' | grep -v pgrep || true"), 20, "no MLflow")
