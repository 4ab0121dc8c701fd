"""Noise schedules, diffusion processes and samplers."""
