"""Turns a configuration into runs: settings, loop, evaluation, checkpoints, tracking."""
