# What every command on every node of a cluster runs with: sourced at the top of ~/.bashrc, which also `ray start`, `ray
# exec` and `ray down` read. The mode of the token must be set on all nodes, else workers start without it.
export PATH="$HOME/venv/bin:$PATH"
export RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0
export MLFLOW_DISABLE_TELEMETRY=true MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT=true
# Ray's numbers for Prometheus are told to everybody, without a token: off, at ports that cannot be
export RAY_enable_metrics_collection=0 AUTOSCALER_METRIC_PORT=-1 DASHBOARD_METRIC_PORT=-1
if [ -f "$HOME/.ray/auth_token" ]; then
  # MLflow's login is made from the token, so that whoever holds the one holds the other
  MLFLOW_TRACKING_USERNAME=posegrid
  MLFLOW_TRACKING_PASSWORD=$(sha256sum <"$HOME/.ray/auth_token" | cut -c1-32)
  export MLFLOW_TRACKING_USERNAME MLFLOW_TRACKING_PASSWORD
fi
if [ -f "$HOME/ray_bootstrap_config.yaml" ]; then # only the head has this file; workers get the address when Ray starts
  MLFLOW_TRACKING_URI=http://$(hostname -I | cut -d' ' -f1):5000
  export MLFLOW_TRACKING_URI
fi
