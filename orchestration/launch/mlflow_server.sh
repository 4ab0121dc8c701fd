#!/usr/bin/env bash
# Keep an MLflow server running on the head node: SQLite and artifacts under MLFLOW_DIR, artifacts served to all nodes.
# Safe to repeat. It listens on every address of the head: workers log to the private one, tunnels end at localhost. It
# has no login, so the security group must keep everybody else out.
set -euo pipefail
folder=${MLFLOW_DIR:-$HOME/mlflow} port=${MLFLOW_PORT:-5000}
mkdir -p "$folder/artifacts"
export MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false # eight processes that nothing here uses

healthy() { curl -fsS -m 3 -o /dev/null "http://127.0.0.1:$port/health" 2>/dev/null; }

# The keeper holds the lock as long as it lives, so there is at most one, and it starts the server again if it dies.
setsid nohup flock -n "$folder/lock" bash -c '
  while true; do
    mlflow server --host 0.0.0.0 --port "$2" --workers 1 --serve-artifacts \
      --backend-store-uri "sqlite:///$1/mlflow.db" --artifacts-destination "$1/artifacts"
    sleep 2
  done' keeper "$folder" "$port" >>"$folder/server.log" 2>&1 </dev/null &

for _ in $(seq 240); do
  if healthy; then
    echo "MLflow answers at http://127.0.0.1:$port"
    exit 0
  fi
  sleep 0.5
done
tail -20 "$folder/server.log"
exit 1
