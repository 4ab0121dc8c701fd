"""Text formats of motion capture, which have no checksums: Acclaim, BVH, camera calibrations of Skeletool.

The judges' parsers split files into words, nothing more; numbers must look like numbers.
"""

import re
from pathlib import Path
from typing import Any

import numpy as np
from fuzzing.damage import words
from fuzzing.formats import Format, Values, as_rewritten
from mpi_inf_3dhp_files import CALIBRATION

from posegrid.datasets.readers.acclaim import read_amc, read_asf
from posegrid.datasets.readers.bvh import read_bvh
from posegrid.datasets.readers.mpi_inf_3dhp_files import read_calibration

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)


def number(word: str) -> float:
    """Raises ValueError unless the word is a finite decimal number."""
    if not _NUMBER.fullmatch(word) or not np.isfinite(float(word)):
        raise ValueError(f"{word!r} is no number")
    return float(word)


def numbers(found: list[str]) -> list[float]:
    return [number(word) for word in found]


# -- Acclaim: bones are (name, direction, length, axis, degrees of freedom) -------------------------------------------

_BONES: list[tuple[str, list[float], float, list[float], list[str]]] = [
    ("hip", [0.6, -0.8, 0.0], 2.0, [10.0, 20.0, 30.0], []),
    ("thigh", [0.0, -1.0, 0.0], 7.0, [-15.0, 40.0, 20.0], ["rx", "ry", "rz"]),
    ("shin", [0.28, -0.96, 0.0], 6.5, [5.0, -25.0, 65.0], ["rx", "rz"]),
    ("chest", [0.0, 1.0, 0.0], 3.0, [0.0, 0.0, 0.0], ["ry"]),
]
_ROOT = [["order", "TX", "TY", "TZ", "RX", "RY", "RZ"], ["axis", "XYZ"], ["position", "0", "0", "0"]]
_ROOT += [["orientation", "0", "0", "0"]]


def _acclaim() -> dict[str, Any]:
    values = np.random.default_rng(4).uniform(-120, 120, (6, 12)).round(4).tolist()
    parts = {"root": slice(0, 6), "chest": slice(6, 7), "thigh": slice(7, 10), "shin": slice(10, 12)}
    return {
        "length": 0.45,
        "root": _ROOT,
        "bones": _BONES,
        "children": [["root", "hip", "chest"], ["hip", "thigh"], ["thigh", "shin"]],
        "frames": [{name: row[part] for name, part in parts.items()} for row in values],
    }


def _write_acclaim(folder: Path, content: dict[str, Any]) -> None:
    lines = ["# made up", ":version 1.10", ":name tiny", ":units", "  mass 1.0", f"  length {content['length']!r}"]
    lines += ["  angle deg", ":documentation", "   free text", ":root", *(" ".join(line) for line in content["root"])]
    lines += [":bonedata"]
    for index, (name, direction, length, axis, freedoms) in enumerate(content["bones"]):
        lines += ["  begin", f"    id {index + 1}", f"    name {name}", f"    direction {_text(direction)}"]
        lines += [f"    length {length!r}", f"    axis {_text(axis)} XYZ"]
        lines += [f"    dof {' '.join(freedoms)}", "    limits (-160.0 20.0)"] if freedoms else []
        lines += ["  end"]
    lines += [":hierarchy", "  begin", *(" ".join(line) for line in content["children"]), "  end", ""]
    (folder / "tiny.asf").write_text("\n".join(lines))
    lines = ["#!OML:ASF tiny.asf", ":FULLY-SPECIFIED", ":DEGREES"]
    for index, frame in enumerate(content["frames"]):
        lines += [str(index + 1), *(f"{name} {_text(values)}" for name, values in frame.items())]
    (folder / "take.amc").write_text("\n".join([*lines, ""]))


def _text(values: list[float]) -> str:
    return " ".join(map(repr, values))


def _parse_acclaim(folder: Path) -> dict[str, Any]:
    sections: dict[str, list[list[str]]] = {}
    section: list[list[str]] = []
    for line in (folder / "tiny.asf").read_text().splitlines():
        if line.startswith(":") or line.strip().startswith(":"):
            section = sections[line.split()[0]] = []
        elif line.split() and not line.split()[0].startswith("#"):
            section.append(line.split())
    units = {line[0]: line[1:] for line in sections[":units"]}
    if units.get("angle", ["deg"]) != ["deg"]:
        raise ValueError("angles are not degrees")
    bones, entries = [], dict[str, list[str]]()
    for line in sections[":bonedata"]:
        if line == ["begin"]:
            entries = {}
        elif line == ["end"]:
            axis = entries["axis"]
            if len(entries["direction"]) != 3 or axis[3:] != ["XYZ"]:
                raise ValueError("a bone is not described")
            length = number(entries["length"][0])
            freedoms = entries.get("dof", [])
            bones.append((entries["name"][0], numbers(entries["direction"]), length, numbers(axis[:3]), freedoms))
        else:
            entries.setdefault(line[0], line[1:])
    children = [line for line in sections[":hierarchy"] if line not in (["begin"], ["end"])]
    return {
        "length": number(units.get("length", ["1.0"])[0]),
        "root": sections[":root"],
        "bones": bones,
        "children": children,
        "frames": _parse_amc(folder / "take.amc"),
    }


def _parse_amc(file: Path) -> list[dict[str, list[float]]]:
    frames: list[dict[str, list[float]]] = []
    lines = [line.split() for line in file.read_text().splitlines()]
    for line in lines[lines.index(["1"]) :]:
        if len(line) == 1:
            if line != [str(len(frames) + 1)]:
                raise ValueError(f"frame {line[0]} after frame {len(frames)}")
            frames.append({})
        elif line:
            if line[0] in frames[-1]:
                raise ValueError(f"{line[0]} stands twice in frame {len(frames)}")
            frames[-1][line[0]] = numbers(line[1:])
    if [":DEGREES"] not in lines[: lines.index(["1"])] or len({frozenset(frame) for frame in frames}) > 1:
        raise ValueError("not in degrees, or frames without some bones")
    return frames


def _read_acclaim(folder: Path) -> Values:
    return vars(read_amc(folder / "take.amc", read_asf(folder / "tiny.asf")))


# -- BVH: nodes are (name, offset, channels, children) ----------------------------------------------------------------


def _bvh() -> dict[str, Any]:
    turns = ["Zrotation", "Xrotation", "Yrotation"]
    foot = ("foot", [0.25, -3.0, 0.0], ["Yrotation", "Zrotation", "Xrotation"], [(None, [0.0, 0.0, 1.5], [], [])])
    knee = ("knee", [0.0, -4.0, 0.5], turns, [foot])
    rib = ("rib", [0.0, 2.0, 0.0], turns, [(None, [0.0, 1.0, 0.0], [], [])])
    places = ["Xposition", "Yposition", "Zposition", "Zrotation", "Yrotation", "Xrotation"]
    values = np.random.default_rng(2).uniform(-170, 170, (7, 15)).round(4).tolist()
    return {"root": ("hip", [1.0, 2.0, 3.0], places, [knee, rib]), "time": 0.00833333, "rows": values}


def _write_bvh(folder: Path, content: dict[str, Any]) -> None:
    def node(entry: Any, kind: str) -> list[str]:
        name, offset, channels, children = entry
        lines = [f"{kind} {name}" if name else "End Site", "{", f"  OFFSET {_text(offset)}"]
        lines += [f"  CHANNELS {len(channels)} {' '.join(channels)}"] if channels else []
        return [*lines, *(line for child in children for line in node(child, "JOINT")), "}"]

    rows = [_text(row) for row in content["rows"]]
    head = ["MOTION", f"Frames: {len(rows)}", f"Frame Time: {content['time']!r}"]
    (folder / "take.bvh").write_text("\n".join(["HIERARCHY", *node(content["root"], "ROOT"), *head, *rows, ""]))


def _parse_bvh(folder: Path) -> dict[str, Any]:
    tree, _, motion = (folder / "take.bvh").read_text().partition("\nMOTION")
    found = tree.split()
    if found.pop(0) != "HIERARCHY" or found.pop(0) != "ROOT":
        raise ValueError("no hierarchy")
    root = _parse_node(found)
    lines = motion.splitlines()[1:]
    rows = [numbers(line.split()) for line in lines[2:] if line.strip()]
    if len(rows) != number(lines[0].split(":")[1].strip()) or len({len(row) for row in rows}) != 1 or found:
        raise ValueError("rows, or what follows the tree, do not fit")
    return {"root": root, "time": number(lines[1].split(":")[1].strip()), "rows": rows}


def _parse_node(found: list[str]) -> Any:
    """From the name on; takes its words away."""
    brace = found.index("{")
    name = " ".join(found[:brace])
    del found[: brace + 1]
    offset, channels, children = [0.0, 0.0, 0.0], list[str](), []
    while (word := found.pop(0)) != "}":
        if word == "OFFSET":
            offset = numbers([found.pop(0) for _ in range(3)])
        elif word == "CHANNELS":
            channels = [found.pop(0) for _ in range(int(found.pop(0)))]
        elif word == "JOINT" or (word == "End" and found[0] == "Site"):
            child = _parse_node(found)
            children.append(child if word == "JOINT" else (None, *child[1:]))
        else:
            raise ValueError(f"the word {word!r}")
    return name, offset, channels, children


def _read_bvh(folder: Path) -> Values:
    motion, rate = read_bvh(folder / "take.bvh")
    return {**vars(motion), "rate": rate}


# -- calibrations -----------------------------------------------------------------------------------------------------


def _parse_calibration(folder: Path) -> str:
    """The same, with what is not read left out and every number written anew."""
    lines = ["Skeletool Camera Calibration File V1.0"]
    for line in (folder / "camera.calibration").read_text().splitlines()[1:]:
        found = line.split()
        if found[:1] == ["name"]:
            lines.append(f"name {found[1]}")
        elif found[:1] in (["size"], ["radial"], ["intrinsic"]):
            values = numbers(found[1:])
            whole = found[0] == "size" and [round(value) for value in values]
            lines.append(f"{found[0]} {' '.join(map(repr, whole or values))}")
    return "\n".join([*lines, ""])


def _write_calibration(folder: Path, text: str) -> None:
    (folder / "camera.calibration").write_text(text)


def _read_calibration(folder: Path) -> Values:
    cameras = read_calibration(folder / "camera.calibration")
    return {name: camera.to_plain() for name, camera in cameras.items()}


FORMATS = (
    Format(
        name="Acclaim ASF",
        content=_acclaim,
        write=_write_acclaim,
        damaged=("tiny.asf",),
        read=_read_acclaim,
        judge=as_rewritten(_parse_acclaim, _write_acclaim, _read_acclaim),
        mistype=words("tiny.asf"),
    ),
    Format(
        name="Acclaim AMC",
        content=_acclaim,
        write=_write_acclaim,
        damaged=("take.amc",),
        read=_read_acclaim,
        judge=as_rewritten(_parse_acclaim, _write_acclaim, _read_acclaim),
        mistype=words("take.amc"),
    ),
    Format(
        name="BVH",
        content=_bvh,
        write=_write_bvh,
        damaged=("take.bvh",),
        read=_read_bvh,
        judge=as_rewritten(_parse_bvh, _write_bvh, _read_bvh),
        mistype=words("take.bvh"),
    ),
    Format(
        name="Skeletool calibration",
        content=lambda: CALIBRATION,
        write=_write_calibration,
        damaged=("camera.calibration",),
        read=_read_calibration,
        judge=as_rewritten(_parse_calibration, _write_calibration, _read_calibration),
        mistype=words("camera.calibration"),
    ),
)
