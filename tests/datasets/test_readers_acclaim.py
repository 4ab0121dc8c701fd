"""The ASF/AMC reader against a written-out computation, and against damage of every kind."""

from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from posegrid.datasets.readers.acclaim import read_amc, read_asf

ASF = """# a comment
:version 1.10
:name tiny
:units
  mass 1.0
  length 0.45
  angle deg
:documentation
   free text
:root
   order TX TY TZ RX RY RZ
   axis XYZ
   position 0 0 0
   orientation 0 0 0
:bonedata
  begin
     id 1
     name hip
     direction 0.6 -0.8 0
     length 2
     axis 10 20 30 XYZ
  end
  begin
     id 2
     name thigh
     direction 0 -1 0
     length 7
     axis -15 40 20 XYZ
    dof rx ry rz
    limits (-160.0 20.0)
           (-70.0 70.0)
           (-60.0 70.0)
  end
  begin
     id 3
     name shin
     direction 0.28 -0.96 0
     length 6.5
     axis 5 -25 65 XYZ
    dof rx rz
    limits (-10.0 170.0)
           (-1 1)
  end
  begin
     id 4
     name chest
     direction 0 1 0
     length 3
     axis 0 0 0 XYZ
    dof ry
    limits (-10.0 170.0)
  end
:hierarchy
  begin
    root hip chest
    hip thigh
    thigh shin
  end
"""
METRES = 0.0254 / 0.45
WIDTH = {"root": 6, "chest": 1, "thigh": 3, "shin": 2}
VALUES = np.random.default_rng(4).uniform(-120, 120, (6, 12)).round(4)


def motion_text(values=VALUES, newline="\n") -> str:
    lines = ["#!OML:ASF tiny.asf", ":FULLY-SPECIFIED", ":DEGREES"]
    for frame, row in enumerate(values, start=1):
        lines.append(str(frame))
        column = 0
        for name, width in WIDTH.items():
            lines.append(" ".join([name, *(f"{value:g}" for value in row[column : column + width])]))
            column += width
    return newline.join([*lines, ""])


@pytest.fixture
def skeleton(tmp_path):
    return read_asf(written(tmp_path, ASF, "tiny.asf"))


def written(folder: Path, content: str, name: str = "take.amc") -> Path:
    file = folder / name
    file.write_bytes(content.encode())
    return file


def by_hand(row: np.ndarray) -> dict[str, np.ndarray]:
    """One frame, bone by bone; scipy's lower case means axes that stay."""

    def turned(before: Rotation, axis: list[float], angles: list[float]) -> Rotation:
        own = Rotation.from_euler("xyz", axis, degrees=True)
        return before * own * Rotation.from_euler("xyz", angles, degrees=True) * own.inv()

    root = Rotation.from_euler("xyz", row[3:6], degrees=True)
    chest = turned(root, [0, 0, 0], [0, row[6], 0])
    thigh = turned(root, [-15, 40, 20], [row[7], row[8], row[9]])
    shin = turned(thigh, [5, -25, 65], [row[10], 0, row[11]])
    at = {"root": row[:3] * METRES}
    at["chest"] = at["root"] + chest.apply([0, 3 * METRES, 0])
    at["hip"] = at["root"] + root.apply(np.array([1.2, -1.6, 0]) * METRES)
    at["thigh"] = at["hip"] + thigh.apply([0, -7 * METRES, 0])
    at["shin"] = at["thigh"] + shin.apply(np.array([0.28, -0.96, 0]) * 6.5 * METRES)
    return at


def test_positions_equal_a_bone_by_bone_computation(tmp_path, skeleton):
    motion = read_amc(written(tmp_path, motion_text()), skeleton)
    assert motion.positions.shape == (6, 5, 3)
    for frame, row in enumerate(VALUES):
        for name, position in by_hand(row).items():
            np.testing.assert_allclose(motion.positions[frame, motion.node(name)], position, atol=1e-3 * METRES)


def test_a_turn_worked_out_by_hand(tmp_path, skeleton):
    """The root turns by 90 degrees about z, then moves: the chest, above it before, lies at its -x side."""
    row = np.zeros((1, 12))
    row[0, [0, 5]] = 10.0, 90.0
    motion = read_amc(written(tmp_path, motion_text(row)), skeleton)
    chest = motion.positions[0, motion.node("chest")]
    np.testing.assert_allclose(chest, [(10 - 3) * METRES, 0, 0], atol=1e-12)


def test_line_ends_and_order_of_bones_do_not_matter(tmp_path, skeleton):
    plain = read_amc(written(tmp_path, motion_text()), skeleton)
    lines = motion_text().splitlines()
    mixed = "".join(line + ("\r\n" if index % 2 else "\n") for index, line in enumerate(lines))
    swapped = [[*lines[at : at + 2], lines[at + 3], lines[at + 2], lines[at + 4]] for at in range(3, len(lines), 5)]
    reordered = "\n".join([*lines[:3], *(line for block in swapped for line in block), ""])
    for content in (motion_text(newline="\r\n"), mixed, reordered):
        np.testing.assert_array_equal(read_amc(written(tmp_path, content), skeleton).positions, plain.positions)
    again = read_asf(written(tmp_path, ASF.replace("\n", "\r\n"), "tiny.asf"))
    assert again == skeleton


def test_cuts_are_refused_or_read_as_the_shorter_file(tmp_path, skeleton):
    """AMC files do not say how many frames they have: a cut between two frames leaves a whole, shorter file."""
    content = motion_text()
    whole = read_amc(written(tmp_path, content), skeleton).positions
    ends = [len("\n".join(content.split("\n")[: 3 + 5 * frames])) + 1 for frames in range(1, 6)]
    for position in [*np.random.default_rng(0).integers(0, len(content) - 1, 150).tolist(), *ends]:
        file = written(tmp_path, content[:position])
        if position in ends:
            shorter = read_amc(file, skeleton).positions
            np.testing.assert_array_equal(shorter, whole[: ends.index(position) + 1])
        else:
            with pytest.raises(ValueError, match=r"take\.amc, line \d+: .*Fetch the file again"):
                read_amc(file, skeleton)


@pytest.mark.parametrize(
    ("line", "new", "message"),
    [
        (10, "chest 1 2", r"line 11: 2 values for chest; the ASF file wants 1"),
        (10, "chest nan", r"line 11: 'nan' is no finite number"),
        (10, "chest 1e", r"line 11: '1e' is no finite number"),
        (10, "tail 3", r"line 11: bone 'tail'; it is not in the ASF file"),
        (10, "shin 3 3", r"line 13: bone 'shin'; it is not in the ASF file, or twice"),
        (8, "5", r"line 9: 5 after frame 1; expected frame 2"),
        (10, "", r"line 14: frame 2 lacks chest"),
        (2, ":RADIANS", "no frame 1 after :DEGREES"),
    ],
)
def test_damage_is_named(tmp_path, skeleton, line, new, message):
    lines = motion_text().splitlines()
    lines[line] = new
    with pytest.raises(ValueError, match=message):
        read_amc(written(tmp_path, "\n".join(lines) + "\n"), skeleton)


def test_last_frame_without_all_bones_is_named(tmp_path, skeleton):
    lines = motion_text().splitlines()[:-2]
    with pytest.raises(ValueError, match=r"frame 6 lacks shin, thigh; the file is cut in this frame"):
        read_amc(written(tmp_path, "\n".join(lines) + "\n"), skeleton)


def test_order_that_changes_is_refused(tmp_path, skeleton):
    lines = motion_text().splitlines()
    lines[10], lines[11] = lines[11], lines[10]
    with pytest.raises(ValueError, match="order of bones changes"):
        read_amc(written(tmp_path, "\n".join(lines) + "\n"), skeleton)


def test_skeleton_cuts_are_refused(tmp_path, skeleton):
    last = ASF.rindex("end")
    for position in np.random.default_rng(1).integers(0, last, 100):
        cut = ASF[:position]
        if "thigh shin" in cut and cut.endswith("\n"):
            continue  # all bones are placed: only the closing word is missing
        with pytest.raises(ValueError, match=r"tiny\.asf, line \d+: "):
            read_asf(written(tmp_path, cut, "tiny.asf"))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("angle deg", "angle rad", "expected positive length and deg"),
        ("length 0.45", "length x", "'x' is no finite number"),
        ("order TX TY TZ RX RY RZ", "order RX RY RZ TX TY TZ", "only TX TY TZ"),
        ("axis 10 20 30 XYZ", "axis 10 20 30 ZYX", 'the axis order "XYZ"'),
        ("direction 0 -1 0", "direction 0 -1", "three numbers"),
        ("dof rx rz", "dof rx l", "only rx, ry, rz"),
        ("    length 7\n", "", "a bone without length"),
        ("thigh shin", "thigh", "bones shin hang nowhere"),
        ("thigh shin", "foot shin", "foot has children but hangs nowhere"),
        ("hip thigh", "hip thigh chest", "chest is not described or hangs twice"),
        (":hierarchy", ":other", 'section ":hierarchy" is missing'),
    ],
)
def test_skeleton_damage_is_named(tmp_path, old, new, message):
    with pytest.raises(ValueError, match=message):
        read_asf(written(tmp_path, ASF.replace(old, new, 1), "tiny.asf"))
