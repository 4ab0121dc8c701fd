"""`ray up cluster.yaml` on mocked EC2 whose instances boot: from an idle head over scale-up and the loss of a spot
worker to scale-down and `ray down`.

    make test-cloud

One after another on the same cluster, so the order of the tests matters. Needs what test_on_premises.py needs, and
moto.
"""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import toy
from cluster.cloud import KEY, REGION, Cloud
from cluster.hosts import Hosts, missing
from cluster.laptop import Site, before_ray_start, until

pytestmark = pytest.mark.cloud

LIFTER = toy.LIFTER_RECIPE + "epochs = 60\n"
GRID = """
title = "two nodes"
train = ["none", "leg_run"]
test = ["none"]
[[members]]
recipe = "lifter.toml"
label = "lifter"
"""
NODE = ["--cpus-per-worker", "8"]
"""A training takes a whole node, so that two at a time need two."""


@pytest.fixture(scope="module")
def cloud_and_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Cloud, Site]]:
    """The mocked cloud, and the cluster on it after `ray up`: a head and nothing else."""
    if reason := missing():
        if "POSEGRID_CLUSTER_TESTS" in os.environ:
            pytest.fail(f"{reason}, but the environment asks for these tests")
        pytest.skip(reason)
    pytest.importorskip("moto.server")
    folder = tmp_path_factory.mktemp("cloud")
    (folder / "shared").mkdir()
    toy.write_toy(folder / "shared" / "store")
    shared = [Path(sys.prefix), Path(sys.base_prefix)]
    profiles = ["posegrid-head", "posegrid-worker"]
    with Hosts(6, shared=shared, written=[folder / "shared"], on=False) as hosts, Cloud(hosts, profiles) as cloud:
        made = Site(hosts, folder)
        made.environment |= cloud.environment
        made.prepare("cluster.yaml", lambda config: own(config, cloud))
        (made.clone / "lifter.toml").write_text(LIFTER)
        (made.clone / "grid.toml").write_text(GRID)
        began = time.monotonic()
        up = made.run("ray", "up", "-y", str(made.file), timeout=900)
        assert up.returncode == 0, up.stdout[-4000:] + "\n".join(cloud.troubles)
        told("ray up", time.monotonic() - began)
        yield cloud, made
        assert cloud.troubles == []


def own(config: dict, cloud: Cloud) -> None:
    """What is changed in the shipped file besides key and source of packages."""
    config["provider"] |= {"region": REGION, "availability_zone": f"{REGION}a", "use_internal_ips": True}
    config["idle_timeout_minutes"] = 1
    for kind in config["available_node_types"].values():
        kind["node_config"] |= {"KeyName": KEY, "SubnetIds": [cloud.subnet], "SecurityGroupIds": [cloud.group]}
    variables = " ".join(f"{name}={value}" for name, value in cloud.environment.items())
    before_ray_start(config, "head", f"export {variables};", "--object-store-memory=100000000")
    before_ray_start(config, "worker", "", "--object-store-memory=100000000")


def told(what: str, seconds: float) -> None:
    """Times for whoever runs this with -s."""
    print(f"    {what}: {seconds:.1f} s", flush=True)


def kinds(cloud: Cloud, *states: str) -> list[str]:
    """Node types of the instances in these states."""
    tags = [{tag["Key"]: tag["Value"] for tag in one.get("Tags", [])} for one in cloud.instances(*states)]
    return sorted(tag.get("ray-user-node-type", "?") for tag in tags)


def test_only_the_head_costs_money_while_nothing_runs(cloud_and_site: tuple[Cloud, Site]) -> None:
    cloud, site = cloud_and_site
    assert kinds(cloud, "pending", "running") == ["head"]
    (head,) = cloud.instances("running")
    assert head["IamInstanceProfile"]["Arn"].endswith("/posegrid-head")
    assert [group["GroupId"] for group in head["SecurityGroups"]] == [cloud.group]
    assert site.alive() == 1


def test_more_than_the_file_allows_is_refused_before_anything_is_started(cloud_and_site: tuple[Cloud, Site]) -> None:
    cloud, site = cloud_and_site
    words = ["--data", str(site.shared / "store"), "--storage", str(site.shared / "state"), "--gpus-per-worker", "1"]
    done = site.submit("--", "grid", "grid.toml", *words, "--workers", "9", "--set", "training.batch=18")
    assert done.returncode == 2, done.stdout
    refusal = done.stdout.partition("error: ")[2]
    assert "9 workers x 1 GPUs = 9, but the cluster at" in refusal
    assert "has 8 at its largest (0 now)" in refusal
    assert kinds(cloud, "pending", "running") == ["head"]


def test_a_study_starts_its_workers_and_outlives_one(cloud_and_site: tuple[Cloud, Site]) -> None:
    cloud, site = cloud_and_site
    words = ["grid", "grid.toml", "--study", "spot", "--data", str(site.shared / "store"), *NODE]
    began = time.monotonic()
    process = subprocess.Popen(
        [*site.command("submit", "--cluster", str(site.file)), "--", *words, "--storage", str(site.shared / "state")],
        cwd=site.clone,
        env=site.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    said, lost, most = [], "", 0
    assert process.stdout is not None
    for line in process.stdout:
        said.append(line)
        running = [one for one in cloud.instances("running") if "gpu_spot" in str(one["Tags"])]
        most = max(most, len(running))
        if "epoch" in line and not lost:
            told("from command to first epoch, workers started in between", time.monotonic() - began)
            training = [one for one in running if site_trains(site, one["PrivateIpAddress"])]
            if training:
                lost = training[0]["InstanceId"]
                cloud.interrupt(lost)
    log = "".join(said)
    assert process.wait(900) == 0, log[-6000:]
    told("the grid, with a worker lost", time.monotonic() - began)
    assert "asking the autoscaler for the first" in log
    assert "8 stages side by side once it has grown" in log
    assert lost
    assert most == 2
    assert kinds(cloud, "pending", "running").count("gpu_spot") >= 1
    assert len(cloud.instances("terminated")) >= 1


def site_trains(site: Site, address: str) -> bool:
    """Whether a Ray Train worker runs on the host with that address."""
    index = next(number for number, host in enumerate(site.hosts.all) if host.address == address)
    with contextlib.suppress(RuntimeError, subprocess.TimeoutExpired):
        return "RayTrainWorker" in site.hosts.run(index, "pgrep -fa '^ray::RayTrainWorker'", check=False)
    return False


def test_idle_workers_go(cloud_and_site: tuple[Cloud, Site]) -> None:
    cloud, _ = cloud_and_site
    seconds = until(lambda: kinds(cloud, "pending", "running") == ["head"], 600, "only the head runs")
    told("idle workers were gone after", seconds)


def test_ray_down_leaves_nothing_running_and_the_results_on_a_stopped_disk(cloud_and_site: tuple[Cloud, Site]) -> None:
    cloud, site = cloud_and_site
    began = time.monotonic()
    down = site.run("ray", "down", "-y", str(site.file), timeout=600)
    assert down.returncode == 0, down.stdout
    told("ray down", time.monotonic() - began)
    assert kinds(cloud, "pending", "running", "stopping") == []
    # the mock does not say which instances are spot, so Ray stops those as well; on EC2 they are ended
    assert set(kinds(cloud, "stopped")) == {"head", "gpu_spot"}
    began = time.monotonic()
    up = site.run("ray", "up", "-y", str(site.file), timeout=900)
    assert up.returncode == 0, up.stdout[-4000:]
    told("ray up again", time.monotonic() - began)
    assert len(cloud.instances("running")) == 1
    words = ["--", "grid", "grid.toml", "--study", "spot", "--data", str(site.shared / "store"), *NODE]
    done = site.submit(*words, "--storage", str(site.shared / "state"))
    assert done.returncode == 0, done.stdout
    assert "2 stages, 2 done, 0 to run" in done.stdout
    site.run("ray", "down", "-y", str(site.file), timeout=600)
    assert cloud.instances("pending", "running") == []
