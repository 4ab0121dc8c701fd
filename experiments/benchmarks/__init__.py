"""Measurements of speed and memory: scripts, no assertions."""
