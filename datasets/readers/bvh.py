"""Reader of BVH files: a tree of joints, then one line of channel values per frame.

Lengths keep the file's unit (BVH states none). An own reader rather than a package such as pybvh, with whose positions
it agrees: a file whose very last number is cut must be refused too, and faults must be named by file and line.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from posegrid.datasets.readers.kinematics import MocapMotion, euler_rotation, forward_kinematics
from posegrid.datasets.readers.text import damaged, numbers_of, read_lines

_CHANNEL = re.compile(r"^([XYZ])(position|rotation)$")


@dataclass
class _Tree:
    nodes: list[str] = field(default_factory=list)
    parents: list[int] = field(default_factory=list)
    offsets: list[list[float]] = field(default_factory=list)
    channels: list[list[str]] = field(default_factory=list)


def read_bvh(path: Path) -> tuple[MocapMotion, float]:
    """The motion of a file and its frames per second. End sites are nodes named "<joint> end".

    Raises ValueError naming file and line if the file is cut, malformed or holds values that are not finite.
    """
    lines = read_lines(path)
    motion_line = next((number for number, line in enumerate(lines) if line.strip() == "MOTION"), None)
    if motion_line is None:
        raise damaged(path, len(lines), 'the line "MOTION" is missing', "the file ends within its hierarchy")
    tree = _read_tree(path, lines[:motion_line])
    frames, frame_time = _read_header(path, lines, motion_line)
    columns = sum(len(channels) for channels in tree.channels)
    values = _read_frames(path, lines, motion_line + 3, frames, columns)
    return _motion_of(tree, values), _rate(frame_time)


def _read_tree(path: Path, lines: list[str]) -> _Tree:
    tree = _Tree()
    stack: list[int] = []
    pending: str | None = None
    for number, line in enumerate(lines, start=1):
        words = line.split()
        match words:
            case [] | ["HIERARCHY"]:
                continue
            case ["ROOT" | "JOINT", *name] if name and pending is None:
                pending = " ".join(name)
            case ["End", "Site"] if stack and pending is None:
                pending = f"{tree.nodes[stack[-1]]} end"
            case ["{"] if pending is not None:
                tree.nodes.append(pending)
                tree.parents.append(stack[-1] if stack else -1)
                tree.offsets.append([])
                tree.channels.append([])
                stack.append(len(tree.nodes) - 1)
                pending = None
            case ["}"] if stack and pending is None and tree.offsets[stack[-1]]:
                stack.pop()
            case ["}"] if stack and pending is None:
                raise damaged(path, number, f"{tree.nodes[stack[-1]]} has no OFFSET", "every joint needs one")
            case ["OFFSET", *offset] if stack and pending is None and not tree.offsets[stack[-1]] and len(offset) == 3:
                tree.offsets[stack[-1]] = numbers_of(path, number, offset)
            case ["CHANNELS", count, *channels] if (
                stack and pending is None and not tree.channels[stack[-1]] and count == str(len(channels))
            ):
                if not all(_CHANNEL.match(channel) for channel in channels) or len({*channels}) < len(channels):
                    expected = "expected X/Y/Zposition or -rotation, each once"
                    raise damaged(path, number, f"channels {' '.join(channels)}", expected)
                tree.channels[stack[-1]] = channels
            case _:
                raise damaged(path, number, f"cannot read {line.strip()[:60]!r}", "expected BVH hierarchy keywords")
    if stack or pending is not None or not tree.nodes:
        raise damaged(path, len(lines), "the hierarchy is not closed", "the file is cut or a brace is missing")
    if len(set(tree.nodes)) < len(tree.nodes):
        raise damaged(path, len(lines), "joint names repeat", "every joint needs a name of its own")
    return tree


def _read_header(path: Path, lines: list[str], motion_line: int) -> tuple[int, float]:
    header = [line.split(":") for line in lines[motion_line + 1 : motion_line + 3]]
    if len(header) < 2 or [part[0].strip() for part in header] != ["Frames", "Frame Time"]:
        raise damaged(path, motion_line + 2, "the frame count is missing", 'expected "Frames:" and "Frame Time:"')
    (frames,) = numbers_of(path, motion_line + 2, header[0][1].split() or [""])
    (frame_time,) = numbers_of(path, motion_line + 3, header[1][1].split() or [""])
    if frames < 1 or frames != int(frames) or frame_time <= 0:
        raise damaged(path, motion_line + 2, f"{frames:g} frames of {frame_time:g} s", "expected positive numbers")
    return int(frames), frame_time


def _read_frames(path: Path, lines: list[str], first: int, frames: int, columns: int) -> np.ndarray:
    rows = [(number, line) for number, line in enumerate(lines[first:], start=first + 1) if line.strip()]
    if len(rows) != frames:
        raise damaged(
            path, len(lines), f"{len(rows)} motion lines", f'"Frames:" promises {frames}; the file is cut or was edited'
        )
    try:
        values = np.loadtxt([line for _, line in rows], dtype=np.float64, comments=None, ndmin=2)
    except ValueError:
        values = np.empty((0, 0))
    if values.shape != (frames, columns) or not np.isfinite(values).all():
        # only now, to name the line and what is wrong with it
        for number, line in rows:
            words = line.split()
            if len(words) != columns:
                raise damaged(path, number, f"{len(words)} values", f"the hierarchy has {columns} channels")
            numbers_of(path, number, words)
    return values


def _motion_of(tree: _Tree, values: np.ndarray) -> MocapMotion:
    local = np.broadcast_to(np.eye(3), (len(values), len(tree.nodes), 3, 3)).copy()
    root = np.zeros((len(values), 3))
    column = 0
    for node, channels in enumerate(tree.channels):
        given = {channel: values[:, column + index] for index, channel in enumerate(channels)}
        column += len(channels)
        turns = [channel for channel in channels if channel.endswith("rotation")]
        if turns:
            degrees = np.stack([given[channel] for channel in turns], axis=-1)
            local[:, node] = euler_rotation(degrees, "".join(channel[0] for channel in turns))
        # translations of inner joints exist in some files but move nothing in those this project reads
        if tree.parents[node] < 0:
            for axis, letter in enumerate("XYZ"):
                root[:, axis] += given.get(f"{letter}position", 0.0)
    positions, rotations = forward_kinematics(
        tree.parents, np.array(tree.offsets), local, root, offset_turns_with="parent"
    )
    return MocapMotion(nodes=tuple(tree.nodes), positions=positions, rotations=rotations)


def _rate(frame_time: float) -> float:
    """Frames per second; files round the frame time, so a rate within 0.01 % of a whole number is that number."""
    rate = 1 / frame_time
    return float(round(rate)) if abs(rate - round(rate)) < 1e-4 * rate else rate
