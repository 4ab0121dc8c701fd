"""Reader of Acclaim motion capture: the skeleton in an ASF file, the motion in AMC files.

Each bone turns by C R C^-1 (C from its `axis` entry, R from its degrees of freedom) against the bone it hangs on, and
its own end lies at `direction` times `length` in that turned frame. Positions come in metres. An own reader, because no
maintained package was found that reads these files and refuses cut ones.
"""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from posegrid.datasets.readers.kinematics import MocapMotion, euler_rotation, forward_kinematics
from posegrid.datasets.readers.text import damaged, numbers_of, read_lines

_INCH = 0.0254
_FREEDOMS = ("rx", "ry", "rz")
_ROOT_ORDER = ("TX", "TY", "TZ", "RX", "RY", "RZ")


@dataclass(frozen=True, kw_only=True)
class Bone:
    """One bone of an ASF file."""

    name: str
    parent: int
    """Index of the bone it hangs on; 0 is the root."""
    offset: tuple[float, ...]
    """From its start to its end in the zero pose, metres."""
    axis: tuple[float, ...]
    """Angles of its own axes in the zero pose about x, y and z, degrees."""
    freedoms: tuple[str, ...]
    """Which of rx, ry, rz the motion file gives, in that order."""


@dataclass(frozen=True, kw_only=True)
class AcclaimSkeleton:
    """An ASF file: the root and the bones, parents before children."""

    metres: float
    """One length unit of skeleton and motion files, metres."""
    bones: tuple[Bone, ...]


@dataclass
class _Draft:
    line: int
    entries: dict[str, list[str]] = field(default_factory=dict)


def read_asf(path: Path) -> AcclaimSkeleton:
    """The skeleton of a file. Raises ValueError naming file and line for what is missing or malformed."""
    lines = read_lines(path)
    sections: dict[str, list[tuple[int, list[str]]]] = {}
    name = ""
    for number, line in enumerate(lines, start=1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        if words[0].startswith(":"):
            name = words[0][1:]
            sections[name] = []
        else:
            sections.setdefault(name, []).append((number, words))
    for needed in ("units", "root", "bonedata", "hierarchy"):
        if not sections.get(needed):
            raise damaged(path, len(lines), f'section ":{needed}" is missing', "the file is cut or no ASF file")
    metres = _read_units(path, sections["units"])
    _check_root(path, sections["root"])
    drafts = _read_drafts(path, sections["bonedata"])
    return AcclaimSkeleton(metres=metres, bones=_ordered(path, metres, drafts, sections["hierarchy"]))


def _read_units(path: Path, section: list[tuple[int, list[str]]]) -> float:
    units = {words[0]: (number, words[1:]) for number, words in section}
    number, words = units.get("length", (section[0][0], ["1.0"]))
    (length,) = numbers_of(path, number, words[:1] or [""])
    angle = units.get("angle", (number, ["deg"]))
    if length <= 0 or angle[1] != ["deg"]:
        raise damaged(
            path, number, f"length {length:g}, angle {' '.join(angle[1])}", "expected positive length and deg"
        )
    # a unit of CMU's files is (1 / length) inches
    return _INCH / length


def _check_root(path: Path, section: list[tuple[int, list[str]]]) -> None:
    wanted = {"order": list(_ROOT_ORDER), "axis": ["XYZ"], "position": ["0"] * 3, "orientation": ["0"] * 3}
    for number, words in section:
        if words[0] in wanted and [word.upper() for word in words[1:]] != wanted[words[0]]:
            raise damaged(path, number, " ".join(words), f"only {' '.join(wanted[words[0]])} is supported here")


def _read_drafts(path: Path, section: list[tuple[int, list[str]]]) -> list[_Draft]:
    drafts: list[_Draft] = []
    is_open = False
    for number, words in section:
        if words == ["begin"] and not is_open:
            drafts.append(_Draft(number))
            is_open = True
        elif words == ["end"] and is_open:
            is_open = False
        elif is_open:
            drafts[-1].entries.setdefault(words[0], words[1:])
        else:
            raise damaged(path, number, " ".join(words), 'expected "begin" or "end" of a bone')
    if is_open:
        raise damaged(path, drafts[-1].line, "a bone without end", "the file is cut")
    for draft in drafts:
        missing = [key for key in ("name", "direction", "length", "axis") if not draft.entries.get(key)]
        if missing:
            raise damaged(path, draft.line, f"a bone without {', '.join(missing)}", "all four entries are needed")
    return drafts


def _ordered(path: Path, metres: float, drafts: list[_Draft], section: list[tuple[int, list[str]]]) -> tuple[Bone, ...]:
    by_name = {draft.entries["name"][0]: draft for draft in drafts}
    root = Bone(name="root", parent=-1, offset=(0.0, 0.0, 0.0), axis=(0.0, 0.0, 0.0), freedoms=_FREEDOMS)
    bones, index = [root], {"root": 0}
    for number, words in section:
        if words in (["begin"], ["end"]):
            continue
        if words[0] not in index:
            raise damaged(path, number, f"bone {words[0]} has children but hangs nowhere", "list parents first")
        for name in words[1:]:
            if name not in by_name or name in index:
                raise damaged(path, number, f"bone {name} is not described or hangs twice", "list each bone once")
            index[name] = len(bones)
            bones.append(_bone(path, metres, by_name[name], index[words[0]]))
    loose = sorted(set(by_name) - set(index))
    if loose:
        raise damaged(path, section[-1][0], f"bones {', '.join(loose)} hang nowhere", "the hierarchy is cut")
    return tuple(bones)


def _bone(path: Path, metres: float, draft: _Draft, parent: int) -> Bone:
    entries = draft.entries
    direction = np.array(numbers_of(path, draft.line, entries["direction"]))
    (length,) = numbers_of(path, draft.line, entries["length"][:1])
    axis = numbers_of(path, draft.line, entries["axis"][:3])
    freedoms = tuple(entries.get("dof", []))
    if len(direction) != 3 or len(axis) != 3 or entries["axis"][3:] != ["XYZ"]:
        raise damaged(path, draft.line, "direction or axis", 'expected three numbers each, and the axis order "XYZ"')
    if not set(freedoms) <= set(_FREEDOMS) or list(freedoms) != sorted(freedoms):
        raise damaged(path, draft.line, f"dof {' '.join(freedoms)}", "only rx, ry, rz in this order are supported here")
    offset = direction * length * metres
    return Bone(
        name=entries["name"][0], parent=parent, offset=tuple(offset.tolist()), axis=tuple(axis), freedoms=freedoms
    )  # fmt: skip


def read_amc(path: Path, skeleton: AcclaimSkeleton) -> MocapMotion:
    """The motion of a file, metres; each node is the end of the bone of that name, "root" the root.

    A file cut between two frames cannot be told from a shorter recording and is read as one. Raises ValueError naming
    file and line for anything else: missing bones, cut or not finite numbers, frames that do not follow one another.
    """
    lines = read_lines(path)
    first = next((number for number, line in enumerate(lines) if line.strip() == "1"), None)
    head = {line.strip() for line in lines[:first] if line.strip().startswith(":")}
    if first is None or ":DEGREES" not in head:
        raise damaged(path, first or len(lines), "no frame 1 after :DEGREES", "the file is cut or no AMC file")
    width = {bone.name: len(bone.freedoms) for bone in skeleton.bones if bone.freedoms} | {"root": 6}
    values = _read_frames(path, lines, first, width)
    return _motion_of(skeleton, values)


def _read_frames(path: Path, lines: list[str], first: int, width: dict[str, int]) -> dict[str, np.ndarray]:
    """(F, K) values of each bone. All frames list the bones in the order of the first one."""
    order = [line.split()[0] for line in lines[first + 1 : first + 1 + len(width)] if line.strip()]
    heads = np.cumsum([1] + [1 + width.get(name, 0) for name in order])
    words = " ".join(lines[first:]).split()
    table = np.array(words[: len(words) - len(words) % heads[-1]]).reshape(-1, heads[-1])
    numeric = np.ones(heads[-1], dtype=bool)
    numeric[heads[:-1]] = False
    try:
        values = table[:, numeric].astype(np.float64)
    except ValueError:
        values = np.full((1, 1), np.nan)
    whole = (
        len(words) % heads[-1] == 0
        and sorted(order) == sorted(width)
        and (table[:, ~numeric] == np.array(order)).all()
        and np.isfinite(values).all()
        and (values[:, 0] == np.arange(1, len(values) + 1)).all()
    )
    if not whole:
        raise _first_fault(path, lines, first, width)
    ends = np.cumsum([1] + [width[name] for name in order])
    return {name: values[:, ends[place] : ends[place + 1]] for place, name in enumerate(order)}


def _first_fault(path: Path, lines: list[str], first: int, width: dict[str, int]) -> ValueError:
    """Line by line to the first fault; only run when there is one."""
    frame, seen = 0, dict(width)
    for number, line in enumerate(lines[first:], start=first + 1):
        words = line.split()
        if len(words) == 1:
            missing = sorted(set(width) - set(seen))
            if missing:
                return damaged(path, number, f"frame {frame} lacks {', '.join(missing)}", "every frame lists all bones")
            if words != [str(frame + 1)]:
                return damaged(path, number, f"{words[0]} after frame {frame}", f"expected frame {frame + 1}")
            frame, seen = frame + 1, {}
        elif words:
            name = words[0]
            if name not in width or name in seen:
                return damaged(path, number, f"bone {name!r}", "it is not in the ASF file, or twice in a frame")
            if len(words) - 1 != width[name]:
                return damaged(path, number, f"{len(words) - 1} values for {name}", f"the ASF file wants {width[name]}")
            try:
                numbers_of(path, number, words[1:])
            except ValueError as error:
                return error
            seen[name] = 1
    missing = sorted(set(width) - set(seen))
    if missing:
        return damaged(path, len(lines), f"frame {frame} lacks {', '.join(missing)}", "the file is cut in this frame")
    return damaged(path, first + 1, "the order of bones changes between frames", "it must stay the same")


def _motion_of(skeleton: AcclaimSkeleton, values: dict[str, np.ndarray]) -> MocapMotion:
    root = values["root"]
    local = np.empty((len(root), len(skeleton.bones), 3, 3))
    for node, bone in enumerate(skeleton.bones):
        given = root[:, 3:] if node == 0 else values.get(bone.name, root[:, :0])
        degrees = np.zeros((len(root), 3))
        degrees[:, [_FREEDOMS.index(freedom) for freedom in bone.freedoms]] = given
        own = _fixed_axes(np.array(bone.axis))
        local[:, node] = own @ _fixed_axes(degrees) @ own.T
    positions, rotations = forward_kinematics(
        [bone.parent for bone in skeleton.bones],
        np.array([bone.offset for bone in skeleton.bones]),
        local,
        root[:, :3] * skeleton.metres,
        offset_turns_with="node",
    )
    return MocapMotion(nodes=tuple(bone.name for bone in skeleton.bones), positions=positions, rotations=rotations)


def _fixed_axes(degrees: np.ndarray) -> np.ndarray:
    """Acclaim's order XYZ: about x, then y, then z, axes that stay in place."""
    return euler_rotation(degrees[..., ::-1], "ZYX")
