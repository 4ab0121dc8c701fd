"""Checks of a store: each mistake is made on purpose in one sequence and must be found, named and placed."""

import tracemalloc
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from people import PROTOCOL, J, people, person, stored

from posegrid.datasets.cameras import h36m_cameras
from posegrid.datasets.checks import measures
from posegrid.datasets.checks.findings import FAILED, OK, SKIPPED, WARNING, Finding, table
from posegrid.datasets.checks.integrity import check_store, splits_table
from posegrid.datasets.checks.measures import measure, percentile
from posegrid.datasets.skeletons import H36M_17
from posegrid.datasets.store import Store


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return stored(tmp_path_factory.mktemp("people"), people())


def changed(store: Store, **columns: Callable[[np.ndarray], None]) -> Store:
    """The store with columns changed in memory: files with such mistakes are not to be had from the writer."""
    arrays = {}
    for name, change in columns.items():
        arrays[name] = getattr(store, name).copy()
        change(arrays[name])
    return replace(store, **arrays)


def row(findings: list[Finding], check: str) -> Finding:
    [found] = [finding for finding in findings if finding.check == check]
    return found


def statuses(findings: list[Finding]) -> set[str]:
    return {finding.status for finding in findings}


CAMERA_ROW = f"reprojection, camera {h36m_cameras()['S1'][0].id}"


def test_good_store_passes_everything_with_the_right_numbers(store: Store) -> None:
    found = check_store(store)
    assert statuses(found) == {OK}, "\n".join(table(found))
    # |noise| of two axes with sigma 3: Rayleigh, median 3 sqrt(2 ln 2), 95th percentile 3 sqrt(2 ln 20)
    shown = row(found, CAMERA_ROW).measured
    assert shown.startswith("median ")
    middle, far = float(shown.split()[1]), float(shown.split()[5])
    assert middle == pytest.approx(3 * np.sqrt(2 * np.log(2)), rel=0.05)
    assert far == pytest.approx(3 * np.sqrt(2 * np.log(20)), rel=0.05)
    assert "RHip-RKnee 0.450, RShoulder-RElbow 0.280 m" in row(found, "bone lengths").measured
    assert row(found, "order and offsets").measured == "5 sequences, 700 frames"


def test_measures_equal_a_plain_computation(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pieces of 16 frames give what one look at the whole sequence gives, also across their borders."""
    sequence = person("C", "long", 201, 3)
    sequence.poses[31:34] = sequence.poses[30]  # frozen over a border of pieces, 3 frames equal the one before
    sequence.poses[112, J["LWrist"]] += [0.4, 0, 0]  # first frame of a piece
    store = stored(tmp_path, [sequence])
    monkeypatch.setattr(measures, "PIECE", 16)
    found = measure(store, store.sequences[0])
    speed = np.linalg.norm(np.diff(sequence.poses.astype(float), axis=0), axis=-1) * 50
    assert found.speed.value == pytest.approx(speed.max(), rel=1e-5)
    assert (found.speed.frame - 1, found.speed.joint) == np.unravel_index(speed.argmax(), speed.shape)
    assert found.jumps == int((speed > 12).any(axis=1).sum()) == 2
    assert found.frozen["poses"] == (3, 33)
    child, parent = np.array(H36M_17.bones).T
    lengths = np.linalg.norm(sequence.poses[:, child].astype(float) - sequence.poses[:, parent], axis=-1)
    np.testing.assert_allclose(found.bone_means, lengths.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(found.bone_deviations, lengths.std(axis=0), atol=1e-6)
    depths = sequence.poses[..., 2]
    assert (-found.depth[0].value, found.depth[1].value) == (depths.min(), depths.max())
    assert depths[found.depth[1].frame, found.depth[1].joint] == depths.max()
    camera = h36m_cameras()["S1"][0]
    pixels = (sequence.keypoints + np.array([1.0, camera.height / camera.width])) * camera.width / 2
    wanted = sequence.poses[..., :2].astype(float) / sequence.poses[..., 2:] * camera.focal_px + camera.centre_px
    apart = np.linalg.norm(pixels - wanted, axis=-1)
    assert found.distances.sum() == apart.size
    assert percentile(found.distances, 0.5) == pytest.approx(np.median(apart), rel=0.02)
    assert found.median_distance == percentile(found.distances, 0.5)
    assert percentile(found.distances, 0.95) == pytest.approx(np.percentile(apart, 95), rel=0.03)
    assert found.distance.value == pytest.approx(apart.max(), rel=1e-4)
    assert (found.distance.frame, found.distance.joint) == np.unravel_index(apart.argmax(), apart.shape)


def in_sequence(store: Store, index: int, frame: int) -> int:
    return store.sequences[index].offset + frame


def test_values_that_are_not_finite(store: Store) -> None:
    def change(poses: np.ndarray) -> None:
        poses[in_sequence(store, 2, 7), J["LKnee"], 1] = np.nan

    found = check_store(changed(store, poses_if_any=change))
    bad = row(found, "finite values")
    assert (bad.status, bad.place) == (FAILED, "B/turn 1/54138969, poses, frame 7, LKnee")
    # the rest is still measured, without that frame
    assert [finding.check for finding in found if finding.status == FAILED] == ["finite values"]


@pytest.mark.parametrize("factor", [1000, 100, 39.37, 3.281, 0.001])
def test_other_units(store: Store, factor: float) -> None:
    def change(poses: np.ndarray) -> None:
        poses *= factor

    bad = row(check_store(changed(store, poses_if_any=change)), "unit")
    assert bad.status == FAILED
    # size of this person by hand: median of bone by middle of its range
    assert factor * 0.8 < float(bad.measured.split()[1]) < factor * 1.2


def test_one_bone_too_long_is_a_warning_with_its_place(store: Store) -> None:
    def change(poses: np.ndarray) -> None:
        rows = slice(in_sequence(store, 1, 0), in_sequence(store, 2, 0))
        poses[rows, J["RWrist"]] += 0.5 * np.array([0, 1, 0], np.float32)

    found = check_store(changed(store, poses_if_any=change))
    bad = row(found, "bone RElbow-RWrist")
    assert bad.status == WARNING
    assert bad.place == "A/turn 2/54138969: 0.750 m"
    assert "outside in 1 sequences" in bad.measured
    sides = row(found, "left and right")
    assert sides.status == WARNING
    assert "at most 100.0%" in sides.measured  # 0.75 and 0.25: half a metre by their mean
    assert sides.place == "A/turn 2/54138969, LElbow-LWrist"


def test_bones_that_change_over_time(store: Store) -> None:
    def change(poses: np.ndarray) -> None:
        rows = slice(in_sequence(store, 3, 0), in_sequence(store, 4, 0), 2)
        poses[rows, J["LFoot"], 1] += 0.15

    bad = row(check_store(changed(store, poses_if_any=change)), "bones over time")
    assert (bad.status, bad.place) == (WARNING, "B/turn 2/54138969, LKnee-LFoot")
    # half of the frames 0.45, half 0.60: deviation 0.075 of 0.525
    assert f"at most {0.075 / 0.525:.1%}" in bad.measured


def test_depth(store: Store) -> None:
    def near(poses: np.ndarray) -> None:
        poses[in_sequence(store, 1, 5), J["LWrist"], 2] = 0.2

    def behind(poses: np.ndarray) -> None:
        poses[in_sequence(store, 4, 9), J["Hip"], 2] = -0.1

    bad = row(check_store(changed(store, poses_if_any=near)), "depth")
    assert (bad.status, bad.place) == (WARNING, "A/turn 2/54138969, frame 5, LWrist")
    bad = row(check_store(changed(store, poses_if_any=behind)), "depth")
    assert (bad.status, bad.place) == (FAILED, "C/turn 1/54138969, frame 9, Hip")


def test_frames_that_are_never_scored_do_not_count(store: Store) -> None:
    def behind(poses: np.ndarray) -> None:
        poses[in_sequence(store, 4, 9)] = -1e6

    def invalid(valid: np.ndarray) -> None:
        valid[in_sequence(store, 4, 9)] = False

    assert statuses(check_store(changed(store, poses_if_any=behind, valid=invalid))) == {OK}
    assert FAILED in statuses(check_store(changed(store, poses_if_any=behind)))


def test_jump_of_a_single_frame(store: Store) -> None:
    def change(poses: np.ndarray) -> None:
        poses[in_sequence(store, 0, 60), J["LShoulder"], 0] += 1.0

    bad = row(check_store(changed(store, poses_if_any=change)), "jumps")
    assert bad.status == WARNING
    assert "2 frames of 1 sequences" in bad.measured
    assert bad.place in [f"A/turn 1/54138969, frame {frame}, LShoulder" for frame in (60, 61)]


def test_frozen_stretches(store: Store) -> None:
    def change(values: np.ndarray) -> None:
        start = in_sequence(store, 3, 20)
        values[start + 1 : start + 31] = values[start]

    found = check_store(changed(store, poses_if_any=change, keypoints=change))
    for column in ("poses", "keypoints"):
        bad = row(found, f"frozen {column}")
        assert (bad.status, bad.place) == (WARNING, "B/turn 2/54138969, frames 20-50")
        assert bad.measured.startswith("longest 0.60 s, 1 sequences")


def test_nobody_is_seen_is_no_frozen_stretch(store: Store) -> None:
    def nothing(values: np.ndarray) -> None:
        values[in_sequence(store, 3, 20) : in_sequence(store, 3, 80)] = 0

    found = check_store(changed(store, keypoints=nothing, confidence=nothing))
    assert row(found, "frozen keypoints").status == OK


def test_confidence_out_of_range(store: Store) -> None:
    def change(confidence: np.ndarray) -> None:
        confidence[in_sequence(store, 2, 3), J["Head"]] = 87.5

    bad = row(check_store(changed(store, confidence=change)), "confidence")
    assert (bad.status, bad.place) == (FAILED, "B/turn 1/54138969, frame 3, Head")
    assert bad.measured == "0.9 to 87.5"


def test_keypoints_outside_the_image(store: Store) -> None:
    def pixels(keypoints: np.ndarray) -> None:
        keypoints *= 500

    def far(keypoints: np.ndarray) -> None:
        keypoints[in_sequence(store, 0, 11), J["RFoot"]] = [9, 0]

    assert row(check_store(changed(store, keypoints=pixels)), "2D in the image").status == FAILED
    bad = row(check_store(changed(store, keypoints=far)), "2D in the image")
    assert (bad.status, bad.place) == (WARNING, "A/turn 1/54138969, frame 11, RFoot")
    assert "farthest 4000 px" in bad.measured


def test_wrong_camera_and_mirrored_order(store: Store) -> None:
    def mirrored(keypoints: np.ndarray) -> None:
        keypoints[..., 0] *= -1
        keypoints[..., 0] += 0.5

    bad = row(check_store(changed(store, keypoints=mirrored)), CAMERA_ROW)
    assert bad.status == FAILED
    assert "median" in bad.place


def test_each_camera_has_its_row_and_many_are_summed_up(tmp_path) -> None:
    cameras = [
        replace(sequence, camera=f"view {number:02d}", recording=f"{sequence.recording} {number}")
        for number in range(12)
        for sequence in people(1.0 + 30 * (number == 11))[:2]
    ]
    found = [row for row in check_store(stored(tmp_path, cameras)) if row.check.startswith("reprojection")]
    assert [row.status for row in found] == [WARNING] + [OK] * 8
    assert (found[0].check, found[1].check) == ("reprojection, camera view 11", "reprojection, camera view 00")
    assert found[-1].measured == "4 other cameras, 4 of them ok"
    # each row is of its own camera's keypoints: sigma 31 and 1
    assert float(found[0].measured.split()[1]) == pytest.approx(31 * np.sqrt(2 * np.log(2)), rel=0.05)
    assert float(found[1].measured.split()[1]) == pytest.approx(np.sqrt(2 * np.log(2)), rel=0.05)


def test_shifted_keypoints_are_a_warning(store: Store) -> None:
    def later(keypoints: np.ndarray) -> None:
        keypoints[..., 0] += 0.05  # 25 px of an image 1000 px wide

    bad = row(check_store(changed(store, keypoints=later)), CAMERA_ROW)
    assert bad.status == WARNING


@pytest.mark.parametrize(("spread", "status"), [(0.0, OK), (2.0, FAILED)])
@pytest.mark.parametrize("said", ["gt", "projected"])
def test_projected_keypoints_must_fit_to_a_pixel(tmp_path, spread: float, status: str, said: str) -> None:
    store = stored(tmp_path, people(spread), replace(PROTOCOL, keypoints=said))
    found = check_store(store)
    assert row(found, CAMERA_ROW).status == status
    assert statuses(found) - {status} <= {OK}


def test_unusable_camera(store: Store) -> None:
    for text, expected in (('{"focal": 1}', "keys"), ("[", "line 1"), ('{"width": 1}', "keys")):
        sequences = (replace(store.sequences[0], camera_parameters=text), *store.sequences[1:])
        bad = row(check_store(replace(store, sequences=sequences)), "reprojection")
        assert bad.status == FAILED
        assert expected in bad.measured
        assert bad.place == "A/turn 1/54138969"
    sequences = (replace(store.sequences[0], width=640), *store.sequences[1:])
    assert "1000 x 1002" in row(check_store(replace(store, sequences=sequences)), "reprojection").measured


def test_store_without_cameras_or_poses_says_what_is_skipped(tmp_path) -> None:
    without = [replace(sequence, camera_parameters={}) for sequence in people()]
    found = row(check_store(stored(tmp_path / "a", without)), "reprojection")
    assert (found.status, found.measured) == (SKIPPED, "no sequence has camera parameters")
    alone = [replace(sequence, poses=None) for sequence in people()]
    found = check_store(stored(tmp_path / "b", alone))
    skipped = {finding.check: finding.measured for finding in found if finding.status == SKIPPED}
    assert {"unit", "bone lengths", "depth", "jumps", "reprojection"} <= set(skipped)
    assert set(skipped.values()) == {"the store has keypoints only"}
    assert statuses(found) == {OK, SKIPPED}
    mixed = [*without[:1], *people()[1:]]
    found = check_store(stored(tmp_path / "c", mixed))
    assert row(found, "reprojection").measured == "1 sequences without camera parameters"


def test_table_of_sequences(store: Store) -> None:
    first, second, *rest = store.sequences
    for sequences, expected in (
        ((first, replace(second, offset=second.offset + 1), *rest), "expected row 120"),
        ((first, replace(second, frames=0), *rest), "0 frames"),
        (store.sequences[:-1], "the frame table 700"),
        ((first, replace(second, recording=first.recording), *rest), "2 times"),
        ((first, replace(second, split="dev"), *rest), '"dev"'),
    ):
        found = check_store(replace(store, sequences=tuple(sequences)))
        assert row(found, "order and offsets").status == FAILED
        assert expected in row(found, "order and offsets").measured
        assert "depth" not in {finding.check for finding in found}
    for change, check, status in (
        ({"frame_rate": 0.0}, "frame rate", FAILED),
        ({"frame_rate": float("nan")}, "frame rate", FAILED),
        ({"frame_rate": 1000.0}, "frame rate", WARNING),
        ({"width": 0}, "image size", FAILED),
    ):
        found = check_store(replace(store, sequences=(first, replace(second, **change), *rest)))
        assert (row(found, check).status, row(found, check).place) == (status, second.name)


def test_leakage_and_twins(store: Store) -> None:
    first, second, *rest = store.sequences
    leaked = (replace(first, split="test"), second, *rest)
    bad = row(check_store(replace(store, sequences=leaked)), "subjects of the split")
    assert (bad.status, bad.place) == (FAILED, "A")
    same = (first, replace(second, sha256=first.sha256), *rest)
    bad = row(check_store(replace(store, sequences=same)), "identical sequences")
    assert (bad.status, bad.place) == (WARNING, "A/turn 1/54138969 = A/turn 2/54138969")
    across = (first, second, *rest[:-1], replace(rest[-1], sha256=first.sha256))
    bad = row(check_store(replace(store, sequences=across)), "identical sequences")
    assert (bad.status, bad.place) == (FAILED, "A/turn 1/54138969 = C/turn 1/54138969")


def test_published_counts(tmp_path, store: Store) -> None:
    found = check_store(stored(tmp_path, people(), source="h36m_martinez"))
    train = row(found, "published frames, train + held_out")
    assert (train.status, train.allowed) == (WARNING, "1,559,752")
    assert train.measured.startswith("540: a part")
    assert row(found, "published frames, test").allowed == "543,344"
    assert not [finding for finding in check_store(store) if finding.check.startswith("published")]


def test_tables_are_text(store: Store) -> None:
    lines = table(check_store(store))
    assert lines[0].split() == ["check", "result", "measured", "allowed", "worst", "place"]
    assert max(map(len, lines)) <= 160
    assert splits_table(store)[1].split() == ["train", "2", "3", "390", "0.1"]
    assert [line.split()[0] for line in splits_table(store)] == ["split", "train", "held_out", "test"]


def test_memory_does_not_grow_with_a_sequence(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measures, "PIECE", 256)
    peaks = []
    for frames in (1024, 8192):
        store = stored(tmp_path / str(frames), [person("C", "long", frames, 1)])
        measure(store, store.sequences[0])
        tracemalloc.start()
        measure(store, store.sequences[0])
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0], peaks
    assert peaks[0] < 256 * 17 * 8 * 100
