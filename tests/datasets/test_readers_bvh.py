"""The BVH reader against a written-out computation, and against damage of every kind."""

from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from posegrid.datasets.readers.bvh import read_bvh

HIERARCHY = """HIERARCHY
ROOT hip
{
  OFFSET 1 2 3
  CHANNELS 6 Xposition Yposition Zposition Zrotation Yrotation Xrotation
  JOINT knee
  {
    OFFSET 0 -4 0.5
    CHANNELS 3 Zrotation Xrotation Yrotation
    JOINT foot
    {
      OFFSET 0.25 -3 0
      CHANNELS 3 Yrotation Zrotation Xrotation
      End Site
      {
        OFFSET 0 0 1.5
      }
    }
  }
  JOINT rib
  {
    OFFSET 0 2 0
    CHANNELS 3 Zrotation Xrotation Yrotation
    End Site
    {
      OFFSET 0 1 0
    }
  }
}
"""
VALUES = np.random.default_rng(2).uniform(-170, 170, (7, 15)).round(4)


def text(values=VALUES, newline="\n", frame_time="0.00833333") -> str:
    rows = [" ".join(f"{value:g}" for value in row) for row in values]
    return newline.join(
        [*HIERARCHY.splitlines(), "MOTION", f"Frames: {len(values)}", f"Frame Time: {frame_time}", *rows, ""]
    )


def written(folder: Path, content: str) -> Path:
    file = folder / "take.bvh"
    file.write_bytes(content.encode())
    return file


def by_hand(row: np.ndarray) -> dict[str, np.ndarray]:
    """One frame, joint by joint; scipy's upper case means axes that turn along."""
    hip = Rotation.from_euler("ZYX", row[3:6], degrees=True)
    knee = hip * Rotation.from_euler("ZXY", row[6:9], degrees=True)
    foot = knee * Rotation.from_euler("YZX", row[9:12], degrees=True)
    rib = hip * Rotation.from_euler("ZXY", row[12:15], degrees=True)
    at = {"hip": row[:3] + np.array([1, 2, 3])}
    at["knee"] = at["hip"] + hip.apply([0, -4, 0.5])
    at["foot"] = at["knee"] + knee.apply([0.25, -3, 0])
    at["foot end"] = at["foot"] + foot.apply([0, 0, 1.5])
    at["rib"] = at["hip"] + hip.apply([0, 2, 0])
    at["rib end"] = at["rib"] + rib.apply([0, 1, 0])
    return at


def test_positions_equal_a_joint_by_joint_computation(tmp_path):
    motion, rate = read_bvh(written(tmp_path, text()))
    assert rate == 120.0
    assert motion.nodes == ("hip", "knee", "foot", "foot end", "rib", "rib end")
    for frame, row in enumerate(np.loadtxt(text().splitlines()[-7:])):
        for name, position in by_hand(row).items():
            np.testing.assert_allclose(motion.positions[frame, motion.node(name)], position, atol=1e-9)


def test_a_turn_worked_out_by_hand(tmp_path):
    """The root turns by 90 degrees about z: what hung below now points along +x."""
    row = np.zeros((1, 15))
    row[0, 3] = 90.0
    motion, _ = read_bvh(written(tmp_path, text(row)))
    np.testing.assert_allclose(motion.positions[0, motion.node("knee")], [1 + 4, 2, 3 + 0.5], atol=1e-12)
    np.testing.assert_allclose(motion.rotations[0, 0], [[0, -1, 0], [1, 0, 0], [0, 0, 1]], atol=1e-12)


def test_line_ends_may_be_mixed(tmp_path):
    plain, _ = read_bvh(written(tmp_path, text()))
    lines = text().splitlines()
    mixed = "".join(line + ("\r\n" if index % 3 else "\n") for index, line in enumerate(lines))
    for content in (text(newline="\r\n"), mixed, text().replace("Frames: ", "Frames:\t")):
        again, _ = read_bvh(written(tmp_path, content))
        np.testing.assert_array_equal(again.positions, plain.positions)


def test_frame_rate_that_is_not_whole(tmp_path):
    _, rate = read_bvh(written(tmp_path, text(frame_time="0.0333667")))
    assert rate == pytest.approx(29.97, abs=1e-3)


def test_every_cut_is_refused(tmp_path):
    """A BVH file says how many frames it has, so no cut can pass."""
    whole = text()
    for position in np.random.default_rng(0).integers(0, len(whole) - 1, 150):
        with pytest.raises(ValueError, match=r"take\.bvh, line \d+: .*Fetch the file again"):
            read_bvh(written(tmp_path, whole[:position]))
    with pytest.raises(ValueError, match="the last line has no end"):
        read_bvh(written(tmp_path, whole[:-1]))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("Frames: 7", "Frames: 8", r"7 motion lines; \"Frames:\" promises 8"),
        ("Frames: 7", "Frames: 6", "promises 6"),
        ("Frames: 7", "Frames: x", r"line 31: 'x' is no finite number"),
        ("Frame Time: 0.00833333", "Frame Time: 0", "expected positive"),
        ("CHANNELS 3 Yrotation", "CHANNELS 4 Yrotation", "line 13: cannot read 'CHANNELS 4"),
        ("CHANNELS 3 Yrotation", "CHANNELS 3 Wrotation", "line 13: channels Wrotation"),
        ("OFFSET 0 -4 0.5", "OFFSET 0 -4 nan", "line 8: 'nan' is no finite number"),
        ("JOINT rib", "JOINT knee", "joint names repeat"),
        ("MOTION", "", '"MOTION" is missing'),
    ],
)
def test_damage_is_named(tmp_path, old, new, message):
    with pytest.raises(ValueError, match=message):
        read_bvh(written(tmp_path, text().replace(old, new, 1)))


@pytest.mark.parametrize("word", ["nan", "inf", "1.2.3", "1,5"])
def test_bad_number_in_the_motion_is_named(tmp_path, word):
    lines = text().splitlines()
    lines[-3] = " ".join([*lines[-3].split()[:-1], word])
    with pytest.raises(ValueError, match=f"line {len(lines) - 2}: '{word}' is no finite number"):
        read_bvh(written(tmp_path, "\n".join(lines) + "\n"))


def test_short_and_long_lines_are_named(tmp_path):
    lines = text().splitlines()
    first, second = lines[-4].split(), lines[-3].split()
    # the total is right, the lines are not
    lines[-4], lines[-3] = " ".join([*first, second[0]]), " ".join(second[1:])
    with pytest.raises(ValueError, match=f"line {len(lines) - 3}: 16 values; the hierarchy has 15"):
        read_bvh(written(tmp_path, "\n".join(lines) + "\n"))


def test_files_that_are_no_text(tmp_path):
    file = tmp_path / "take.bvh"
    file.write_bytes(b"\x89PNG\r\n\xff\xfe")
    with pytest.raises(ValueError, match="is not text"):
        read_bvh(file)
    file.write_bytes(b"")
    with pytest.raises(ValueError, match="empty"):
        read_bvh(file)
    with pytest.raises(ValueError, match="cannot be read"):
        read_bvh(tmp_path / "none.bvh")
