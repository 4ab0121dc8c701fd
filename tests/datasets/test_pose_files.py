"""Pose files: what is written is read back, in pieces and by frames; nothing half-written stays."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from posegrid.datasets.keypoints.pose_files import PoseRows, is_pose_file, pose_writer, read_about, read_poses
from posegrid.datasets.skeletons import H36M_17


def rows(first: int, count: int, seed: int = 0, several: int = 3) -> PoseRows:
    generator = np.random.default_rng([seed, first])
    keypoints = generator.uniform(0, 500, (count, 17, 2)).astype(np.float32)
    keypoints[0, 2] = np.nan
    truth = generator.normal(0, 300, (count, 17, 3)).astype(np.float32)
    truth[-1, 5] = np.nan
    return PoseRows(
        frame=np.arange(first, first + count),
        time_s=np.arange(first, first + count) / 25,
        keypoints_px=keypoints,
        poses_mm=generator.normal(0, 300, (count, 17, 3)).astype(np.float32),
        deviation_mm=generator.uniform(0, 9, (count, 17)).astype(np.float32),
        truth_mm=truth,
        hypotheses_mm=generator.normal(0, 300, (count, several, 17, 3)).astype(np.float32),
    )


def written(file: Path) -> dict[str, list[PoseRows]]:
    pieces = {"ann": [rows(10, 7), rows(17, 5)], "bob": [rows(0, 4, 1)]}
    with pose_writer(file, H36M_17) as writer:
        for person, parts in pieces.items():
            for part in parts:
                writer.add("walk", person, part)
        writer.about = {
            "clips": [
                {"video": "walk", "person": person, "first": int(parts[0].frame[0]), "width": 640, "height": 480}
                | {"frames": sum(map(len, parts)), "frame_rate": 25.0}
                for person, parts in pieces.items()
            ]
        }
    return pieces


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    pieces = written(tmp_path / "poses.parquet")
    assert [file.name for file in tmp_path.iterdir()] == ["poses.parquet"]
    clip = read_poses(tmp_path / "poses.parquet")
    assert (clip.person, clip.width, clip.frame_rate, clip.skeleton) == ("ann", 640, 25.0, H36M_17)
    for name in ("frame", "time_s", "keypoints_px", "poses_mm", "deviation_mm", "truth_mm", "hypotheses_mm"):
        both = np.concatenate([getattr(part, name) for part in pieces["ann"]])
        np.testing.assert_array_equal(getattr(clip.rows, name), both, err_msg=name)
    assert not clip.rows.visible[0, 2]
    part = read_poses(tmp_path / "poses.parquet", "walk", "ann", 15, 4)
    np.testing.assert_array_equal(part.rows.frame, [15, 16, 17, 18])
    np.testing.assert_array_equal(part.rows.poses_mm, clip.rows.poses_mm[5:9])


def test_other_tools_read_units_and_columns(tmp_path: Path) -> None:
    written(tmp_path / "poses.parquet")
    about = json.loads(pq.read_metadata(tmp_path / "poses.parquet").metadata[b"posegrid"])
    assert about == read_about(tmp_path / "poses.parquet")
    assert (about["unit"], about["root"], about["hypotheses_kept"]) == ("millimetre", "Hip", 3)
    assert about["frame"].startswith("camera axes")
    table = pq.read_table(tmp_path / "poses.parquet")
    assert (table.schema.metadata[b"unit"], table.schema.metadata[b"root"]) == (b"millimetre", b"Hip")
    assert table.column_names[:5] == ["video", "person", "frame", "time_s", "visible_joints"]
    assert table["RKnee_x_px"].null_count == 3  # one a piece
    assert table["visible_joints"].to_pylist()[:2] == [16, 17]
    names = table.column_names
    assert len({name.lower() for name in names}) == len(names) == 5 + 17 * (2 + 3 + 1 + 3) + 1


def test_an_unfinished_file_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyError), pose_writer(tmp_path / "poses.parquet", H36M_17) as writer:
        writer.add("walk", {"ann": "ann"}[str(writer.add("walk", "ann", rows(0, 4)))], rows(4, 4))
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match="cannot be written"), pose_writer(tmp_path, H36M_17) as writer:
        writer.add("walk", "ann", rows(0, 4))
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="cannot be written"), pose_writer(tmp_path / "file" / "poses", H36M_17):
        pass


def test_what_does_not_exist_is_named(tmp_path: Path) -> None:
    file = tmp_path / "poses.parquet"
    written(file)
    with pytest.raises(ValueError, match=r"no video run.*walk \(ann\), walk \(bob\)"):
        read_poses(file, "run")
    with pytest.raises(ValueError, match="has the frames 10 to 21, none of them from 90 on"):
        read_poses(file, first=90)
    pq.write_table(pa.table({"frame": [1]}), tmp_path / "other.parquet")
    with pytest.raises(ValueError, match="holds no lifted poses"):
        read_poses(tmp_path / "other.parquet")
    (tmp_path / "text.parquet").write_text("no")
    with pytest.raises(ValueError, match="cannot be read as Parquet"):
        read_about(tmp_path / "text.parquet")
    assert [is_pose_file(tmp_path / f"{name}.parquet") for name in ("poses", "other", "text")] == [True, False, False]
