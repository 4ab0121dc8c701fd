"""Networks and losses: torch only, no files, no devices, no Ray, no MLflow."""
