"""Curves over time from which movements are composed.

Legend: F frames, C channels. Times in seconds, angles in radians.
"""

from dataclasses import dataclass

import numpy as np


def minimum_jerk(progress: np.ndarray) -> np.ndarray:
    """0 to 1 with zero speed and acceleration at both ends, the profile of human point-to-point movements.

    Flash and Hogan, "The coordination of arm movements", J. Neuroscience 1985. `progress` is clipped to [0, 1].
    """
    x = np.clip(progress, 0.0, 1.0)
    return x**3 * (10 - 15 * x + 6 * x**2)


def pulse(time: np.ndarray, start: float, rise: float, hold: float, fall: float) -> np.ndarray:
    """(F,) 0 before `start`, 1 during `hold`, 0 afterwards, with minimum-jerk flanks of `rise` and `fall` seconds."""
    return minimum_jerk((time - start) / rise) - minimum_jerk((time - start - rise - hold) / fall)


def wander(generator: np.random.Generator, time: np.ndarray, channels: int, fastest_hz: float) -> np.ndarray:
    """(F, C) smooth random variation of about unit variance: sinusoids of random frequency, phase and amplitude."""
    waves = 10
    frequency = generator.uniform(0.05, fastest_hz, (channels, waves))
    phase = generator.uniform(0, 2 * np.pi, (channels, waves))
    amplitude = generator.rayleigh(1 / np.sqrt(waves), (channels, waves))
    angle = 2 * np.pi * time[:, None, None] * frequency + phase
    return (amplitude * np.sin(angle)).sum(axis=-1)


def smoothed(values: np.ndarray, sigma_frames: float) -> np.ndarray:
    """(F,) Gaussian average along time, edge values repeated."""
    reach = int(np.ceil(3 * sigma_frames))
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma_frames) ** 2)
    padded = np.pad(values, reach, mode="edge")
    return np.convolve(padded, kernel / kernel.sum(), mode="valid")


def cyclic(phase: np.ndarray, knots: np.ndarray, values: np.ndarray, gain: float = 0.0) -> np.ndarray:
    """Shape-preserving cubic through (knots, values), repeated with period 1; `gain` is added with every period.

    knots: (K,) ascending in [0, 1). Slopes by Fritsch and Carlson (1980): no overshoot between knots.
    """
    cycle = np.floor(phase)
    x = np.concatenate([knots - 1, knots, knots + 1])
    y = np.concatenate([values - gain, values, values + gain])
    width, rise = np.diff(x), np.diff(y) / np.diff(x)
    left, right = 2 * width[1:] + width[:-1], width[1:] + 2 * width[:-1]
    same = rise[:-1] * rise[1:] > 0
    safe = np.where(same, rise[:-1], 1.0), np.where(same, rise[1:], 1.0)
    slope = np.zeros_like(x)
    slope[1:-1] = np.where(same, (left + right) / (left / safe[0] + right / safe[1]), 0.0)

    at = phase - cycle
    piece = np.clip(np.searchsorted(x, at, side="right") - 1, 0, len(x) - 2)
    h = width[piece]
    s = (at - x[piece]) / h
    return (
        y[piece] * (1 + 2 * s) * (1 - s) ** 2
        + y[piece + 1] * s**2 * (3 - 2 * s)
        + slope[piece] * h * s * (1 - s) ** 2
        - slope[piece + 1] * h * s**2 * (1 - s)
        + gain * cycle
    )


@dataclass(frozen=True)
class ClosedPath:
    """A closed curve on the floor, travelled more slowly where it bends."""

    points: np.ndarray
    """(P, 2) dense polygon, first point repeated at the end, metres."""
    lengths: np.ndarray
    """(P,) arc length at each point, metres."""
    efforts: np.ndarray
    """(P,) what has been travelled at each point: metres at full speed, more in bends."""

    @classmethod
    def through(cls, points: np.ndarray) -> "ClosedPath":
        """The closed path along dense, evenly drawn points (P, 2).

        Speed falls with the cube root of the radius of the bend, the power law of Lacquaniti, Terzuolo and Viviani
        (1983), for bends below one metre.
        """
        step = np.linalg.norm(np.roll(points, -1, axis=0) - points, axis=-1)
        first = (np.roll(points, -1, axis=0) - np.roll(points, 1, axis=0)) / 2
        second = np.roll(points, -1, axis=0) - 2 * points + np.roll(points, 1, axis=0)
        across = np.abs(first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0])
        curvature = across / np.linalg.norm(first, axis=-1) ** 3
        slower = np.maximum(curvature, 1.0) ** (1 / 3)
        closed = np.concatenate([points, points[:1]])
        return cls(closed, np.concatenate([[0.0], np.cumsum(step)]), np.concatenate([[0.0], np.cumsum(step * slower)]))

    def distance(self, effort: np.ndarray) -> np.ndarray:
        """(F,) arc length after `effort` (F,), metres; laps are counted."""
        laps, rest = np.divmod(effort, self.efforts[-1])
        return laps * self.lengths[-1] + np.interp(rest, self.efforts, self.lengths)

    def at(self, distance: np.ndarray) -> np.ndarray:
        """(F, 2) positions after `distance` (F,) metres along the path."""
        along = np.mod(distance, self.lengths[-1])
        return np.stack([np.interp(along, self.lengths, self.points[:, axis]) for axis in range(2)], axis=-1)

    def heading(self, distance: np.ndarray) -> np.ndarray:
        """(F,) direction of travel, radians, unwrapped."""
        ahead = self.at(distance + 0.05) - self.at(distance - 0.05)
        return np.unwrap(np.arctan2(ahead[:, 1], ahead[:, 0]))


def floor_path(generator: np.random.Generator, kind: str, radius: float) -> ClosedPath:
    """A "circle", "eight" or irregular "loop" that stays within about `radius` metres of the origin."""
    around = np.linspace(0, 2 * np.pi, 2000, endpoint=False)
    if kind == "eight":
        # lemniscate of Bernoulli, stretched sideways so that its bends are as wide as a person walks them
        across = np.stack([np.cos(around), 1.4 * np.sin(around) * np.cos(around)], axis=-1)
        points = radius * across / (1 + np.sin(around) ** 2)[:, None]
    else:
        bulge = 0.0 if kind == "circle" else 1.0
        phase = generator.uniform(0, 2 * np.pi, 2)
        wave = 0.07 * np.cos(2 * around + phase[0]) + 0.04 * np.cos(3 * around + phase[1])
        points = radius * (0.93 + bulge * wave)[:, None] * np.stack([np.cos(around), np.sin(around)], axis=-1)
    turn = generator.uniform(0, 2 * np.pi)
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    points = points @ rotation.T
    return ClosedPath.through(points if generator.random() < 0.5 else points[::-1])
