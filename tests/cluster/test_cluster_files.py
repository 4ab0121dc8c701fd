"""The shipped cluster files against Ray's schema, AWS's, Kubernetes', and our own rules. Nothing is started."""

import copy
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
AWS, LOCAL, KUBERAY = ROOT / "cluster.yaml", ROOT / "clusters/on_premises.yaml", ROOT / "clusters/kuberay.yaml"
RAY_UP = pytest.mark.parametrize("file", [AWS, LOCAL], ids=lambda file: file.name)


def read(file: Path) -> dict[str, Any]:
    return yaml.safe_load(file.read_text())


def problems(config: dict[str, Any]) -> str:
    """What Ray says against a file; empty if nothing."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    try:
        validate_config(prepare_config(copy.deepcopy(config)))
    except Exception as error:  # jsonschema's, ValueError
        return str(error)
    return ""


@RAY_UP
def test_passes_rays_schema(file: Path) -> None:
    assert not problems(read(file))


def test_rays_schema_would_notice() -> None:
    config = read(AWS)
    config["available_node_types"]["gpu_spot"]["min_worker"] = 1
    assert "min_worker" in problems(config)


def run_instances(node_config: dict[str, Any]) -> str:
    """What AWS's own description of RunInstances says against a node type; empty if nothing."""
    import botocore.session
    from botocore.validate import ParamValidator

    shape = botocore.session.get_session().get_service_model("ec2").operation_model("RunInstances").input_shape
    given = {key: value for key, value in node_config.items() if key != "SubnetIds"}  # Ray's own key
    return ParamValidator().validate({**given, "MinCount": 1, "MaxCount": 1}, shape).generate_report()


def test_aws_knows_the_parameters() -> None:
    pytest.importorskip("botocore")
    kinds = read(AWS)["available_node_types"]
    assert [run_instances(kind["node_config"]) for kind in kinds.values()] == ["", ""]
    assert "InstanceTyp" in run_instances({**kinds["head"]["node_config"], "InstanceTyp": "m6i.xlarge"})


def test_aws_node_types() -> None:
    config = read(AWS)
    kinds = config["available_node_types"]
    head, spot = kinds["head"], kinds["gpu_spot"]
    assert set(config["provider"]) <= {"type", "region", "availability_zone", "cache_stopped_nodes"}
    assert head["resources"] == {"CPU": 0, "GPU": 0, "trial_slot": 64}
    assert "InstanceMarketOptions" not in head["node_config"]
    assert spot["node_config"]["InstanceMarketOptions"]["MarketType"] == "spot"
    assert spot["resources"]["GPU"] == 1
    assert spot["min_workers"] == 0 < spot["max_workers"] <= config["max_workers"]
    assert config["idle_timeout_minutes"] > 0
    for kind in kinds.values():
        node = kind["node_config"]
        assert {"ImageId", "SecurityGroupIds", "IamInstanceProfile", "SubnetIds"} <= node.keys()
        assert node["MetadataOptions"]["HttpTokens"] == "required"
        assert all(disk["Ebs"]["Encrypted"] for disk in node["BlockDeviceMappings"])
    assert head["node_config"]["IamInstanceProfile"] != spot["node_config"]["IamInstanceProfile"]


@RAY_UP
def test_commands_of_the_head_and_the_workers(file: Path) -> None:
    config = read(file)
    head, workers = (config[f"{kind}_start_ray_commands"] for kind in ("head", "worker"))
    assert "mlflow_server.sh" in head[0]
    assert head.index("ray stop") < len(head) - 1
    for option in ("--autoscaling-config=~/ray_bootstrap_config.yaml", "--dashboard-host=127.0.0.1", "--port=6379"):
        assert option in head[-1]
    assert "--address=$RAY_HEAD_IP:6379" in workers[-1]
    assert "MLFLOW_TRACKING_URI=http://$RAY_HEAD_IP:5000" in workers[-1]
    # Ray's second autoscaler loses workers of this provider; on a cloud it is the better one
    assert ("RAY_enable_autoscaler_v2=0" in head[-1]) == (config["provider"]["type"] == "local")
    # slots for trials' drivers: told by the node type on a cloud, by the command elsewhere
    assert ("trial_slot" in head[-1]) == (config["provider"]["type"] == "local")


@RAY_UP
def test_mounts_exist_and_bring_token_and_environment(file: Path) -> None:
    mounts = read(file)["file_mounts"]
    assert mounts.pop("~/.ray/auth_token") == "~/.ray/auth_token"
    assert mounts.pop("~/posegrid/dist") == "dist"  # made by `make wheel`
    assert set(mounts) == {"~/posegrid/environment.sh", "~/posegrid/mlflow_server.sh"}
    for source in mounts.values():
        assert (ROOT / source).is_file()
        subprocess.run(["bash", "-n", str(ROOT / source)], check=True)
    assert any("source ~/posegrid/environment.sh" in command for command in read(file)["setup_commands"])
    assert "RAY_AUTH_MODE=token" in (ROOT / "clusters/environment.sh").read_text()


@RAY_UP
def test_every_node_installs_the_wheel_with_pinned_packages(file: Path) -> None:
    setup = read(file)["setup_commands"]
    assert "python3.11 -m venv" in setup[0]
    assert "-c ~/posegrid/dist/constraints.txt" in setup[1]
    assert "--no-deps --force-reinstall ~/posegrid/dist/posegrid-*.whl" in setup[2]
    pins = (ROOT / "constraints.txt").read_text().splitlines()
    assert any(pin.startswith("ray==") for pin in pins)
    assert any(pin.startswith("torch==") for pin in pins)


def test_both_files_set_nodes_up_alike() -> None:
    """What the test hosts run with the one is what users of the other run."""
    cloud, own = read(AWS), read(LOCAL)
    for key in ("file_mounts", "setup_commands", "worker_start_ray_commands"):
        assert cloud[key] == own[key]
    extra = " --resources='{\"trial_slot\": 64}'"
    assert extra in own["head_start_ray_commands"][-1]
    same = own["head_start_ray_commands"][-1].replace(" RAY_enable_autoscaler_v2=0", "").replace(extra, "")
    assert [*own["head_start_ray_commands"][:-1], same] == cloud["head_start_ray_commands"]


def test_login_of_mlflow_is_the_same_on_nodes_and_laptop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from posegrid.orchestration.launch.cluster import mlflow_login

    token = tmp_path / ".ray" / "auth_token"
    token.parent.mkdir()
    token.write_text("not a real token\n")
    command = "source clusters/environment.sh; echo $MLFLOW_TRACKING_USERNAME $MLFLOW_TRACKING_PASSWORD"
    environment = {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}
    said = subprocess.run(
        ["bash", "-c", command], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(token))
    assert tuple(said.stdout.split()) == mlflow_login()
    assert len(mlflow_login()[1]) == 32
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "none"))
    with pytest.raises(ValueError, match=r"there is no token in .*none.*Allowed.*Copy it"):
        mlflow_login()


def test_kuberay_passes_rays_own_reading() -> None:
    from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr

    cluster = next(one for one in yaml.safe_load_all(KUBERAY.read_text()) if one["kind"] == "RayCluster")
    cluster["metadata"]["namespace"] = "default"
    read = _derive_autoscaling_config_from_ray_cr(cluster)
    assert read["available_node_types"]["headgroup"]["resources"] | {"memory": 0} == {
        "CPU": 0,
        "GPU": 0,
        "memory": 0,
        "trial_slot": 64,
    }
    workers = read["available_node_types"]["gpu"]
    assert (workers["min_workers"], workers["max_workers"]) == (0, 8)
    assert workers["resources"]["GPU"] == 1
    assert read["idle_timeout_minutes"] == 10


def test_kuberay_objects_pass_kubernetes_schemas() -> None:
    validate = pytest.importorskip("kubernetes_validate").validate
    objects = list(yaml.safe_load_all(KUBERAY.read_text()))
    cluster = next(one for one in objects if one["kind"] == "RayCluster")
    groups = [cluster["spec"]["headGroupSpec"], *cluster["spec"]["workerGroupSpecs"]]
    pods = [{"apiVersion": "v1", "kind": "Pod", **group["template"]} for group in groups]
    for one in [*pods, *(one for one in objects if one is not cluster)]:
        validate(one, "1.32", strict=True)
    for pod in pods:
        names = {variable["name"] for variable in pod["spec"]["containers"][0]["env"]}
        assert {"RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_PASSWORD"} <= names
