"""MLflow's own pages for the results of this machine."""

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from posegrid.orchestration.tracking import sqlite_uri


def serve_ui(home: Path, port: int, say: Callable[[str], None]) -> None:
    """Run the MLflow server for a local home on localhost until it is interrupted.

    Raises ValueError if there are no results or the port is taken.
    """
    database = home / "mlflow.db"
    if not database.is_file():
        raise ValueError(f"no results under {home} (mlflow.db is missing). Run a study first, or pass --home.")
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", port)) == 0:
            raise ValueError(f"port {port} is taken. Choose another one with --port.")
    say(f"MLflow UI: http://127.0.0.1:{port}   (Ctrl-C ends it)")
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}  # saves eight processes
    with contextlib.suppress(KeyboardInterrupt):
        subprocess.run([*command, "--backend-store-uri", sqlite_uri(database)], env=environment, check=False)
