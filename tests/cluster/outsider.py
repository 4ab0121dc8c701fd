"""Run on a host outside the cluster: python outsider.py ADDRESS:PORT... Prints as JSON what each port gives to those
without a token.

Every port is asked in the two languages that a cluster speaks: HTTP, a number of paths, and gRPC, a method of each of
Ray's services. {"10.0.0.4:6379": ["GET /: 200, 17 bytes", "gRPC ray.rpc.NodeInfoGcsService/GetAllNodeInfo: UNKNOWN"]}
"""

import json
import sys
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import grpc

PATHS = (
    "/",
    "/metrics",
    "/nodes?view=summary",
    "/api/jobs/",
    "/api/version",
    "/api/cluster_status",
    "/api/v0/actors",
    "/api/local_raylet_healthz",
    "/ajax-api/2.0/mlflow/experiments/search?max_results=1",
    "/api/2.0/mlflow/experiments/search?max_results=1",
    "/api/2.0/mlflow-artifacts/artifacts",
    "/api/2.0/mlflow/users/list",
)
METHODS = (
    "ray.rpc.NodeInfoGcsService/GetAllNodeInfo",
    "ray.rpc.InternalKVGcsService/InternalKVKeys",
    "ray.rpc.JobInfoGcsService/GetAllJobInfo",
    "ray.rpc.ActorInfoGcsService/GetAllActorInfo",
    "ray.rpc.autoscaler.AutoscalerStateService/GetClusterStatus",
    "ray.rpc.NodeManagerService/GetNodeStats",
    "ray.rpc.NodeManagerService/GetResourceLoad",
    "ray.rpc.ObjectManagerService/FreeObjects",
    "ray.rpc.CoreWorkerService/GetCoreWorkerStats",
    "ray.rpc.RuntimeEnvService/GetRuntimeEnvsInfo",
    "ray.rpc.ReporterService/GetTraceback",
    "ray.rpc.LogService/ListLogs",
    "ray.rpc.RayletDriver/ClusterInfo",
)


def by_http(place: str) -> list[str]:
    """Answers to plain requests."""
    given = []
    for path in PATHS:
        try:
            with urllib.request.urlopen(f"http://{place}{path}", timeout=5) as answer:
                given.append(f"GET {path}: {answer.status}, {len(answer.read())} bytes")
        except urllib.error.HTTPError as refused:
            given.append(f"GET {path}: {refused.code}")
        except Exception as error:  # a port that speaks another language
            given.append(f"GET {path}: {type(error).__name__}")
            break
    return given


def by_grpc(place: str) -> list[str]:
    """Answers to one method of each service."""
    given = []
    with grpc.insecure_channel(place) as channel:
        for method in METHODS:
            try:
                answer = channel.unary_unary(f"/{method}")(b"", timeout=5)
                given.append(f"gRPC {method}: OK, {len(answer)} bytes")
            except grpc.RpcError as error:
                given.append(f"gRPC {method}: {error.code().name}")
                if error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
                    break
    return given


if __name__ == "__main__":
    with ThreadPoolExecutor(8) as pool:
        answers = pool.map(lambda place: by_http(place) + by_grpc(place), sys.argv[1:])
    print(json.dumps(dict(zip(sys.argv[1:], answers, strict=True))))
