#!/usr/bin/env bash
# Keep an MLflow server running on the head node, its artifacts served to all nodes. Safe to repeat; with the argument
# "stop" it ends the server.
#   MLFLOW_DIR                  where database, artifacts and log are (~/mlflow)
#   MLFLOW_BACKEND              database address, such as postgresql://... (SQLite under MLFLOW_DIR)
#   MLFLOW_ARTIFACTS            folder or address of the artifacts, such as s3://... (under MLFLOW_DIR)
#   MLFLOW_HOST, MLFLOW_PORT    where it listens (the first address of this machine, which is the cluster's; 5000)
#   MLFLOW_TRACKING_USERNAME, MLFLOW_TRACKING_PASSWORD    its only login; without a password it lets everybody in
set -euo pipefail
folder=${MLFLOW_DIR:-$HOME/mlflow} port=${MLFLOW_PORT:-5000}
host=${MLFLOW_HOST:-$(hostname -I | cut -d' ' -f1)}
if [ "${1:-}" = stop ]; then
  if [ -f "$folder/group" ]; then
    kill -- "-$(cat "$folder/group")" 2>/dev/null || true
    rm -f "$folder/group"
  fi
  exit 0
fi
umask 077
mkdir -p "$folder/artifacts"
export MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false # eight processes that nothing here uses

arguments=(--host "$host" --port "$port" --workers 1 --serve-artifacts
  --backend-store-uri "${MLFLOW_BACKEND:-sqlite:///$folder/mlflow.db}"
  --artifacts-destination "${MLFLOW_ARTIFACTS:-$folder/artifacts}")
if [ -n "${MLFLOW_TRACKING_PASSWORD:-}" ]; then
  cat >"$folder/login.ini" <<END
[mlflow]
default_permission = NO_PERMISSIONS
database_uri = sqlite:///$folder/login.db
authorization_function = mlflow.server.auth:authenticate_request_basic_auth
auth_cache_ttl_seconds = 60
END
  export MLFLOW_AUTH_CONFIG_PATH="$folder/login.ini"
  export MLFLOW_AUTH_ADMIN_USERNAME="$MLFLOW_TRACKING_USERNAME" MLFLOW_AUTH_ADMIN_PASSWORD="$MLFLOW_TRACKING_PASSWORD"
  MLFLOW_FLASK_SERVER_SECRET_KEY=$(head -c 32 /dev/urandom | sha256sum | cut -c1-64)
  export MLFLOW_FLASK_SERVER_SECRET_KEY
  arguments+=(--app-name basic-auth)
fi

healthy() { curl -fsS -m 3 -o /dev/null "http://$host:$port/health" 2>/dev/null; }

# The keeper holds the lock as long as it lives, so there is at most one, and it starts the server again if it dies. The
# database of logins holds one, made anew at each start: a new password is taken over.
setsid nohup flock -n "$folder/lock" bash -c '
  cut -d" " -f5 "/proc/$$/stat" >"$0/group"
  while true; do
    rm -f "$0/login.db"
    mlflow server "$@"
    sleep 2
  done' "$folder" "${arguments[@]}" >>"$folder/server.log" 2>&1 </dev/null &

for _ in $(seq 240); do
  if healthy; then
    echo "MLflow answers at http://$host:$port"
    exit 0
  fi
  sleep 0.5
done
tail -20 "$folder/server.log"
exit 1
