"""The table format: written by hand, read back, and every kind of problem found in its row."""

import csv
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from posegrid.datasets.checks import keypoint_check
from posegrid.datasets.keypoints.keypoint_table import problems_of
from posegrid.datasets.prepare import prepare, source_module
from posegrid.datasets.readers.keypoint_columns import read_table
from posegrid.datasets.skeletons import H36M_17
from posegrid.experiments import checks

EXAMPLE = Path(__file__).parents[2] / "datasets" / "examples" / "walk.csv"
HEADER = ["sequence", "frame", "joint", "x", "y", "confidence"]
SIDECAR = 'skeleton = "h36m_17"\nwidth = 800\nheight = 600\nframe_rate = 30\n'


def made_up(frames=4):
    generator = np.random.default_rng(2)
    return generator.uniform(100, 500, (frames, 17, 2)).round(2), generator.uniform(0.2, 1, (frames, 17)).round(3)


def rows_of(points, scores, sequence="clip", first=0):
    return [
        [sequence, first + frame, H36M_17.joints[joint], *points[frame, joint].tolist(), float(scores[frame, joint])]
        for frame, joint in np.ndindex(scores.shape)
    ]


def write(folder, rows, header=HEADER, sidecar=SIDECAR, name="mine.csv"):
    file = folder / name
    if name.endswith(".csv"):
        with file.open("w", newline="") as stream:
            csv.writer(stream).writerows([header, *rows])
    else:
        columns = list(zip(*rows, strict=True))
        pa.parquet.write_table(pa.table(dict(zip(header, map(list, columns), strict=True))), file)
    if sidecar is not None:
        file.with_suffix(".toml").write_text(sidecar)
    return file


def read(raw, **options):
    source = source_module("keypoints")
    config = source.Config(**options)
    found = [source.read_recording(config, recording) for recording in source.list_recordings(config, raw)]
    return {sequence.name: sequence for sequences in found for sequence in sequences}


@pytest.mark.parametrize("name", ["mine.csv", "mine.parquet"])
def test_table_in_any_order_reads_back(tmp_path, name):
    points, scores = made_up()
    rows = rows_of(points, scores)
    np.random.default_rng(0).shuffle(rows)
    rows = [[sequence, int(frame), joint, *map(float, rest)] for sequence, frame, joint, *rest in rows]
    (found,) = read(write(tmp_path, rows, name=name)).values()
    wanted = np.stack([points[..., 0] / 400 - 1, (points[..., 1] - 300) / 400], axis=-1)
    np.testing.assert_allclose(found.keypoints, wanted, atol=1e-6)
    np.testing.assert_allclose(found.confidence, scores, atol=1e-6)
    assert (found.name, found.width, found.height, found.frame_rate) == ("person_1/clip/own", 800, 600, 30.0)
    assert found.poses is None


def test_missing_rows_and_empty_cells_are_filled(tmp_path):
    points, scores = made_up(5)
    rows = rows_of(points, scores, first=10)
    rows[2 * 17 + 3][3:] = ["", "", 0]
    del rows[17 : 2 * 17]
    (found,) = read(write(tmp_path, rows)).values()
    assert len(found.keypoints) == 5
    assert np.argwhere(found.confidence == 0).tolist() == [[1, joint] for joint in range(17)] + [[2, 3]]
    x = (found.keypoints[..., 0] + 1) * 400
    np.testing.assert_allclose(x[1, 0], (points[0, 0, 0] + points[2, 0, 0]) / 2, atol=1e-3)
    np.testing.assert_allclose(
        x[[1, 2], 3], points[0, 3, 0] + (points[3, 3, 0] - points[0, 3, 0]) * np.array([1 / 3, 2 / 3]), atol=1e-3
    )


def test_people_videos_and_what_differs_for_one(tmp_path):
    points, scores = made_up()
    rows = [[*row, who] for who in ("ann", 7) for row in rows_of(points, scores)]
    rows += [[*row, "ann"] for row in rows_of(points / 2, scores, "short", first=3)]
    sidecar = SIDECAR + "[sequences.short]\nwidth = 400\nframe_rate = 12.5\n"
    found = read(write(tmp_path, rows, [*HEADER, "person"], sidecar))
    assert sorted(found) == ["ann/clip/own", "ann/short/own", "person_7/clip/own"]
    short = found["ann/short/own"]
    assert (short.width, short.height, short.frame_rate) == (400, 600, 12.5)
    np.testing.assert_allclose(short.keypoints[..., 0], points[..., 0] / 400 - 1, atol=1e-6)


def test_poses_are_kept_and_frames_without_them_cut_out(tmp_path):
    points, scores = made_up(6)
    poses = np.random.default_rng(4).normal([0, 0, 5], 0.3, size=(6, 17, 3)).round(4)
    rows = [[*row, *pose] for row, pose in zip(rows_of(points, scores), poses.reshape(-1, 3).tolist(), strict=True)]
    header = [*HEADER, "X", "Y", "Z"]
    file = write(tmp_path, rows, header)
    (whole,) = read(file).values()
    np.testing.assert_allclose(whole.poses, poses, atol=1e-6)
    rows[2 * 17 + 5][6:] = ["", "", ""]
    parts = read(write(tmp_path, rows, header))
    assert [(name, len(part.poses)) for name, part in parts.items()] == [
        ("person_1/clip part 1/own", 2), ("person_1/clip part 2/own", 3),
    ]  # fmt: skip
    np.testing.assert_allclose(parts["person_1/clip part 2/own"].poses, poses[3:], atol=1e-6)
    store = prepare("keypoints", file, tmp_path / "store")
    assert store.poses.shape == (5, 17, 3)
    for row in rows:
        row[6:] = ["", "", ""]
    with pytest.raises(ValueError, match="no frame with X, Y, Z of all joints"):
        read(write(tmp_path, rows, header))


def test_options_stand_in_for_a_sidecar(tmp_path):
    points, scores = made_up()
    file = write(tmp_path, rows_of(points, scores), sidecar=None)
    with pytest.raises(ValueError, match=r"skeleton is not known.*mine\.toml"):
        read(file)
    (found,) = read(file, joints="h36m_17", width=800, height=600, frame_rate=30.0).values()
    assert found.width == 800
    file.with_suffix(".json").write_text(
        json.dumps({"skeleton": "h36m_17", "width": 900, "height": 600, "frame_rate": 30})
    )
    (found,) = read(tmp_path).values()
    assert found.width == 900


def problems(tmp_path, change, header=HEADER, rows=None):
    points, scores = made_up()
    rows = rows_of(points, scores) if rows is None else rows
    change(rows)
    return [(found.row, found.text, found.fatal) for found in problems_of(read_table(write(tmp_path, rows, header)))]


@pytest.mark.parametrize(
    ("change", "row", "text", "fatal"),
    [
        (lambda rows: rows[4].__setitem__(2, "LHipp"), 5, "no joint 'LHipp' (1 rows); did you mean 'LHip'?", True),
        (lambda rows: rows[4].__setitem__(5, 1.5), 5, "clip, frame 0, LHip: confidence 1.5 not in [0, 1]", True),
        (lambda rows: rows[4].__setitem__(5, ""), 5, "confidence nan not in [0, 1]", True),
        (lambda rows: rows[20].__setitem__(3, "inf"), 21, "clip, frame 1, RFoot: x, y = [inf", True),
        (lambda rows: rows[20].__setitem__(4, ""), 21, "at confidence 0", True),
        (lambda rows: rows.append(list(rows[20])), 69, "clip, frame 1, RFoot stands in row 21 already", True),
        (lambda rows: rows[4].__setitem__(1, -1), 5, "negative frame number", True),
        (lambda rows: rows.__delitem__(slice(17, 51)), 18, "the 2 frames before it are missing", False),
        (lambda rows: rows[9].__setitem__(3, 801.5), 10, "lies outside the image of 800 x 600", False),
        (lambda rows: rows[9].__setitem__(4, -0.5), 10, "lies outside the image of 800 x 600", False),
    ],
)
def test_each_problem_is_found_in_its_row(tmp_path, change, row, text, fatal):
    found = problems(tmp_path, change)
    assert [entry for entry in found if entry[0] == row and text in entry[1] and entry[2] == fatal], found
    assert len([entry for entry in found if entry[2]]) == fatal
    if fatal:
        with pytest.raises(ValueError, match=rf"rows that cannot be used: row {row}: .*posegrid check keypoints"):
            read(tmp_path)
    else:
        assert read(tmp_path)


def test_sound_table_has_no_problems(tmp_path):
    assert problems(tmp_path, lambda rows: None) == []


def test_two_spellings_of_a_joint_are_a_repetition(tmp_path):
    found = problems(tmp_path, lambda rows: rows.append([*rows[3][:2], "right_ankle", *rows[3][3:]]))
    assert [(row, fatal) for row, _, fatal in found] == [(69, True)]


def test_long_lists_are_cut_and_counted(tmp_path):
    def outside(rows):
        for row in rows:
            row[3] = 900

    found = problems(tmp_path, outside)
    assert len(found) == 21
    assert found[-1] == (None, "... and 48 more rows like these", False)


@pytest.mark.parametrize(
    ("rows", "header", "sidecar", "message"),
    [
        ([["a", 0, "Hip", 1, 2]], HEADER[:-1], SIDECAR, "has the columns sequence, frame, joint, x, y; expected"),
        ([["a", 0, "Hip", 1, 2, 1, 3]], [*HEADER, "X"], SIDECAR, "expected each of .*Y, Z"),
        ([["a", 0, "Hip", 1, 2, 1, 3]], [*HEADER, "persom"], SIDECAR, 'column "persom".*did you mean "person"'),
        ([["a", 0, "Hip", 1, 2, 1, 3]], [*HEADER, "x"], SIDECAR, "once"),
        ([["a", 0.5, "Hip", 1, 2, 1]], HEADER, SIDECAR, r"cannot be read as a table.*0\.5"),
        ([["a", 0, "Hip", "1,5", 2, 1]], HEADER, SIDECAR, "cannot be read as a table.*decimal point"),
        ([["a", 0, "Hip", 1, 2, 1], ["a", "", "Hip", 1, 2, 1]], HEADER, SIDECAR, "row 2 has no frame"),
        ([["", 0, "Hip", 1, 2, 1]], HEADER, SIDECAR, "row 1 has no sequence"),
        ([["a", 0, "Hip", 1, 2, 1], ["a", 1]], HEADER, SIDECAR, "cannot be read as a table.*Expected 6 columns"),
        ([], HEADER, SIDECAR, "has a header and no rows"),
        ([["a", 0, "Hip", 1, 2, 1]], HEADER, "width = 800", "skeleton is not known"),
        ([["a", 0, "Hip", 1, 2, 1]], HEADER, 'skeleton = "coco"', "skeleton 'coco' is unknown"),
        ([["a", 0, "Hip", 1, 2, 1]], HEADER, "widht = 800", '"widht".*mine.toml.*did you mean "width"'),
        ([["a", 0, "Hip", 1, 2, 1]], HEADER, "width = ", "mine.toml cannot be read"),
        ([["a", 0, "Hip", 1, 2, 1]], HEADER, 'width = "wide"', "mine.toml, key width = 'wide'"),
        ([["a", 0, "Hip", 1, 2, 1]], HEADER, SIDECAR + "[sequences.a]\nframe_rate = 0", "frame_rate = 0.0 of a must"),
        ([["a", 0, "Hip", 1, 2, 1]], HEADER, SIDECAR + "[sequences.b]\nwidth = 1", 'sequence "b".*is unknown'),
    ],
)
def test_broken_tables_are_refused(tmp_path, rows, header, sidecar, message):
    with pytest.raises(ValueError, match=message):
        read(write(tmp_path, rows, header, sidecar))


@pytest.mark.parametrize(
    "content", [b"", b"\x00\xff\x00", b"PAR1" + b"\x00" * 40 + b"PAR1", b"sequence,frame\n\xff\xfe,1\n"]
)
@pytest.mark.parametrize("name", ["mine.csv", "mine.parquet"])
def test_damaged_tables_are_refused(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    (tmp_path / "mine.toml").write_text(SIDECAR)
    with pytest.raises(ValueError, match=r"mine\."):
        read(tmp_path)


def test_example_is_as_documented(tmp_path):
    found = read(EXAMPLE)
    assert {name: sequence.keypoints.shape for name, sequence in found.items()} == {
        "ann/walk/own": (12, 17, 2), "ben/walk/own": (12, 17, 2),
    }  # fmt: skip
    unseen = {name: np.flatnonzero((sequence.confidence == 0).any(axis=1)).tolist() for name, sequence in found.items()}
    assert unseen == {"ann/walk/own": [3, 4, 5], "ben/walk/own": [5, 6]}
    lines = []
    checks.check("keypoints", str(EXAMPLE), lines.append)
    assert any("row 219" in line and "the 2 frames before it are missing" in line for line in lines)
    assert [line.split()[:6] for line in lines if line.startswith("  walk")] == [
        ["walk", "ann", "12", "0", "17", "1.5%"], ["walk", "ben", "12", "0", "17", "16.7%"],
    ]  # fmt: skip


def test_check_lists_errors_and_fails(tmp_path, capsys):
    points, scores = made_up()
    rows = rows_of(points, scores)
    rows[4][2] = "LHipp"
    file = write(tmp_path, rows)
    (tmp_path / "cut.json").write_text("{")
    lines = []
    with pytest.raises(ValueError, match=f"2 errors in {tmp_path}"):
        checks.check("keypoints", str(tmp_path), lines.append)
    said = capsys.readouterr().out.splitlines()  # also where --json hides the other lines
    assert any("error: row 5" in line for line in said)
    assert any("error:" in line and "cut.json" in line for line in said)
    assert str(file) in lines


def test_check_tells_of_gaps_and_stray_joints_in_other_formats(tmp_path):
    points = np.random.default_rng(1).uniform(50, 300, (9, 17, 2))
    points[4, 0] = -20, 30
    entries = [
        {
            "image_id": frame,
            "keypoints": [value for x, y in points[frame].tolist() for value in (x, y, 0.9)],
            "score": 1,
        }
        for frame in (0, 1, 4, 8)
    ]
    for entry in entries:
        entry["keypoints"][3 * 16 + 2] = 0
    (tmp_path / "clip.json").write_text(json.dumps(entries))
    lines = [line for line, _ in keypoint_check.look_at(tmp_path / "clip.json")]
    text = "\n".join(lines)
    assert "not seen in the frames 2 to 3" in text
    assert "not seen in the frames 5 to 7" in text
    assert "never seen: RFoot" in text
    assert "1 joints outside the image, the first is Nose in frame 4 at (-20, 30)" in text
    assert "size unknown" in text
