"""The Human3.6M source on made-up files of exactly the published layout."""

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from h36m_files import ACTIONS, CPN_DATA, GT, GT_DATA, POSE_DATA, POSES, SUBJECTS, write
from scipy.spatial.transform import Rotation

from posegrid.datasets import cameras
from posegrid.datasets.skeletons import H36M_32_TO_17
from posegrid.datasets.sources import h36m


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    return write(tmp_path_factory.mktemp("h36m"), save=np.savez_compressed)


def changed(poses=None, cpn=None) -> dict:
    """Copies of the made-up data with some recordings replaced: {(subject, name): value}."""

    def copy(data, replaced):
        return {
            subject: {name: (replaced or {}).get((subject, name), value) for name, value in takes.items()}
            for subject, takes in data.items()
        }

    return {"poses": copy(POSE_DATA, poses), "cpn": copy(CPN_DATA, cpn)}


def test_recordings_splits_and_actions(raw):
    config = h36m.Config()
    recordings = h36m.list_recordings(config, raw)
    assert len(recordings) == 7 * 30
    assert {recording.action for recording in recordings} == set(ACTIONS)
    protocol = h36m.protocol(config, recordings)
    split = {f"{r.subject}/{r.name}": protocol.split_of(r.subject, r.name) for r in recordings}
    assert split["S11/Directions"] == "unused"
    assert split["S11/Directions 1"] == split["S9/Directions"] == "test"
    held_out = [name for name, found in split.items() if found == "held_out"]
    assert sorted(held_out) == sorted(protocol.held_out)
    assert len(held_out) == 15
    assert {name.split("/")[1].split(" ")[0] for name in held_out} == set(ACTIONS), "every action once"
    assert [sum(name.startswith(f"{subject}/") for name in held_out) for subject in SUBJECTS[:5]] == [3] * 5
    assert all(" " in name for name in held_out), "second takes"
    everything = h36m.protocol(h36m.Config(hold_out=False), recordings)
    assert everything == h36m.PROTOCOL
    assert not everything.held_out


@pytest.mark.parametrize("keypoints", ["cpn", "gt"])
def test_sequences_equal_an_independent_computation(raw, keypoints):
    config = h36m.Config(keypoints=keypoints)
    recordings = h36m.list_recordings(config, raw)
    for recording in [recordings[0], recordings[100], recordings[-1]]:
        world = POSE_DATA[recording.subject][recording.name]
        views = (CPN_DATA if keypoints == "cpn" else GT_DATA)[recording.subject][recording.name]
        sequences = h36m.read_recording(config, pickle.loads(pickle.dumps(recording)))
        assert tuple(sequence.camera for sequence in sequences) == cameras.H36M_CAMERA_IDS
        for sequence, view in zip(sequences, views, strict=True):
            plain = sequence.camera_parameters
            turn = Rotation.from_quat(plain["orientation"], scalar_first=True)
            kept = world[:, H36M_32_TO_17].astype(np.float64) - plain["translation"]
            expected = turn.inv().apply(kept.reshape(-1, 3)).reshape(-1, 17, 3)
            np.testing.assert_allclose(sequence.poses, expected, atol=1e-5)
            pixels = view[: len(world)].astype(np.float64)
            screen = pixels / plain["width"] * 2 - [1, plain["height"] / plain["width"]]
            np.testing.assert_allclose(sequence.keypoints, screen, atol=1e-6)
            assert (sequence.confidence == 1).all()
            assert sequence.frame_rate == 50.0
            assert (sequence.width, sequence.height) == (plain["width"], plain["height"])


def test_ground_truth_keypoints_are_the_projected_poses(raw):
    """The invariant of the real files: projecting the 3D file gives the 2D file, up to float32."""
    config = h36m.Config(keypoints="gt")
    for recording in h36m.list_recordings(config, raw)[::25]:
        for sequence in h36m.read_recording(config, recording):
            camera = cameras.Camera.from_plain(sequence.camera_parameters)
            np.testing.assert_allclose(sequence.keypoints, cameras.project(sequence.poses, camera), atol=3e-6)


def test_archives_are_read_once_and_again_when_they_change(tmp_path):
    write(tmp_path)
    config = h36m.Config()
    recordings = h36m.list_recordings(config, tmp_path)
    before = h36m._loaded.cache_info().misses
    first = h36m.read_recording(config, recordings[5])
    assert h36m._loaded.cache_info().misses == before
    twice = {(recordings[5].subject, recordings[5].name): POSE_DATA[recordings[5].subject][recordings[5].name] * 2}
    write(tmp_path, **changed(poses=twice))
    os.utime(tmp_path / POSES, ns=(0, 10**18))
    assert (h36m.read_recording(config, recordings[5])[0].poses != first[0].poses).any()


def test_missing_files_say_where_they_come_from(tmp_path):
    with pytest.raises(ValueError, match=r"data_3d_h36m\.npz is missing in the raw folder.*vision\.imar\.ro"):
        h36m.list_recordings(h36m.Config(), tmp_path)
    with pytest.raises(ValueError, match="raw folder None"):
        h36m.list_recordings(h36m.Config(), None)
    write(tmp_path)
    (tmp_path / GT).unlink()
    h36m.list_recordings(h36m.Config(), tmp_path)
    with pytest.raises(ValueError, match=r"data_2d_h36m_gt\.npz is missing"):
        h36m.list_recordings(h36m.Config(keypoints="gt"), tmp_path)


def test_missing_subjects_and_recordings_are_named(tmp_path):
    write(tmp_path, poses={subject: POSE_DATA[subject] for subject in SUBJECTS[:-1]})
    with pytest.raises(ValueError, match="lacks the subjects S11"):
        h36m.list_recordings(h36m.Config(), tmp_path)
    fewer = dict(CPN_DATA)
    fewer["S7"] = {name: views for name, views in CPN_DATA["S7"].items() if name != "Photo"}
    fewer["S11"] = {name: views for name, views in CPN_DATA["S11"].items() if name != "Directions"}
    write(tmp_path, cpn=fewer)
    os.utime(tmp_path / POSES, ns=(0, 10**18))
    with pytest.raises(ValueError, match=r"lacks 1 recordings .* such as S7/Photo"):
        h36m.list_recordings(h36m.Config(), tmp_path)


def read_changed(folder: Path, **replaced):
    write(folder, **changed(**replaced))
    config = h36m.Config()
    (recording,) = [r for r in h36m.list_recordings(config, folder) if (r.subject, r.name) == ("S6", "Photo")]
    return h36m.read_recording(config, recording)


def test_wrong_arrays_are_named(tmp_path):
    name, world = ("S6", "Photo"), POSE_DATA["S6"]["Photo"]
    views = CPN_DATA["S6"]["Photo"]
    broken = world.copy()
    broken[2, 5, 1] = np.nan
    cases = [
        ({"poses": {name: broken}}, r"S6/Photo holds 1 NaN or infinite values, the first at frame 2, joint 5"),
        ({"poses": {name: world[:, :17]}}, r"Photo is float32 \(\d+, 17, 3\), expected floats of shape \(frames, 32"),
        ({"poses": {name: world[:0]}}, r"expected floats of shape"),
        ({"poses": {name: "text"}}, r"S6/Photo is str"),
        ({"cpn": {name: [*views[:2], views[2][: len(world) - 1], views[3]]}},
         r"S6/Photo, camera 58860488 has \d+ frames, fewer than the \d+"),
        ({"cpn": {name: views[:3]}}, "no list of 4 cameras but list"),
        ({"cpn": {name: [view[:, :16] for view in views]}}, r"camera 54138969 is float32 \(\d+, 16, 2\)"),
        ({"cpn": {name: [np.full_like(view, np.inf) for view in views]}}, "NaN or infinite"),
    ]  # fmt: skip
    for number, (replaced, message) in enumerate(cases):
        folder = tmp_path / str(number)
        folder.mkdir()
        with pytest.raises(ValueError, match=message):
            read_changed(folder, **replaced)


def test_other_keypoint_orders_are_refused(tmp_path):
    write(tmp_path, symmetry=[[1, 3, 5, 7, 9, 11, 13, 15], [2, 4, 6, 8, 10, 12, 14, 16]])
    with pytest.raises(ValueError, match=r"not in Human3\.6M's order"):
        h36m.list_recordings(h36m.Config(), tmp_path)


def test_cut_and_harmful_files_are_refused(tmp_path):
    write(tmp_path)
    content = (tmp_path / POSES).read_bytes()
    (tmp_path / POSES).write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=r"data_3d_h36m\.npz is damaged or cut"):
        h36m.list_recordings(h36m.Config(), tmp_path)

    class Harmful:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)

    np.savez_compressed(tmp_path / POSES, positions_3d={**POSE_DATA, "S12": Harmful()})
    with pytest.raises(ValueError, match="Nothing was run"):
        h36m.list_recordings(h36m.Config(), tmp_path)
    assert not (tmp_path / "ran").exists()


def test_unknown_keypoints_are_refused():
    with pytest.raises(ValueError, match="Known: cpn, gt"):
        h36m.Config(keypoints="sh")
