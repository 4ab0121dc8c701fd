"""Generated motion: bodies keep their bones, joints their limits, feet the floor, and everything is seen."""

import pickle

import numpy as np
import pytest

from posegrid.datasets.cameras import Camera, camera_to_world, inside_image, project
from posegrid.datasets.skeletons import H36M_17
from posegrid.datasets.sources import synthetic
from posegrid.datasets.synthesis.actions import ACTIONS, perform
from posegrid.datasets.synthesis.body import two_bones
from posegrid.datasets.synthesis.curves import ClosedPath, cyclic, floor_path, minimum_jerk
from posegrid.datasets.synthesis.movement import draw_person

J = {name: index for index, name in enumerate(H36M_17.joints)}
ALL_ACTIONS = sorted(ACTIONS)


def made(action: str, seed: int, height: float = 1.75, frames: int = 400):
    generator = np.random.default_rng([seed, 11])
    person = draw_person(generator, height)
    return person, perform(action, person, generator, frames, 50.0)


def flexion(world: np.ndarray, start: str, middle: str, end: str) -> np.ndarray:
    """(F,) degrees by which a limb is bent in its middle joint; 0 is straight."""
    first, second = world[:, J[middle]] - world[:, J[start]], world[:, J[end]] - world[:, J[middle]]
    cosine = np.sum(first * second, axis=-1) / np.linalg.norm(first, axis=-1) / np.linalg.norm(second, axis=-1)
    return np.degrees(np.arccos(np.clip(cosine, -1, 1)))


@pytest.mark.parametrize("action", ALL_ACTIONS)
@pytest.mark.parametrize("seed", range(3))
def test_bodies_are_sound(action, seed):
    person, world = made(action, seed)
    assert np.isfinite(world).all()

    lengths = np.stack([np.linalg.norm(world[:, child] - world[:, parent], axis=-1) for child, parent in H36M_17.bones])
    np.testing.assert_allclose(lengths, lengths[:, :1].repeat(len(world), 1), atol=1e-9)
    of = dict(zip([child for child, _ in H36M_17.bones], lengths[:, 0], strict=True))
    for left, right in zip(H36M_17.left, H36M_17.right, strict=True):
        assert of[left] == pytest.approx(of[right], abs=1e-9)

    for side in "LR":
        knee = flexion(world, f"{side}Hip", f"{side}Knee", f"{side}Foot")
        elbow = flexion(world, f"{side}Shoulder", f"{side}Elbow", f"{side}Wrist")
        assert knee.max() <= 150.001
        assert elbow.max() <= 150.001
        assert knee.min() > 3, "knees never snap straight"

    assert world[..., 2].min() >= person.body.ankle_height - 1e-6, "nothing is below the floor"
    lowest = world[:, [J["LFoot"], J["RFoot"]], 2].min(axis=1)
    assert lowest.max() < person.body.ankle_height + (0.25 if action == "run" else 0.05), "somebody hovers"


@pytest.mark.parametrize("action", ALL_ACTIONS)
def test_knees_bend_forwards(action):
    _, world = made(action, 1)
    for side in "LR":
        middle = (world[:, J[f"{side}Hip"]] + world[:, J[f"{side}Foot"]]) / 2
        across = world[:, J["LHip"], :2] - world[:, J["RHip"], :2]
        forward = np.stack([across[:, 1], -across[:, 0]], axis=-1)
        bent = np.sum((world[:, J[f"{side}Knee"], :2] - middle[:, :2]) * forward, axis=-1)
        assert bent.min() > -0.01


@pytest.mark.parametrize("action", ALL_ACTIONS)
def test_movements_are_smooth(action):
    """Accelerations stay in the range of living bodies: no jump and no snapping limb in any frame."""
    _, world = made(action, 2)
    acceleration = np.linalg.norm(np.diff(world, 2, axis=0), axis=-1) * 50**2
    assert acceleration.max() < 120
    assert acceleration[:, [J["Hip"], J["Thorax"], J["Head"]]].max() < 25


def test_standing_feet_do_not_slide():
    person, world = made("walk", 4)
    foot = world[:, J["RFoot"]]
    speed = np.linalg.norm(np.diff(foot[:, :2], axis=0), axis=-1) * 50
    down = foot[1:, 2] < person.body.ankle_height + 0.015
    assert down.mean() > 0.35
    assert np.percentile(speed[down], 90) < 0.12
    assert speed.max() > 2


def test_people_differ():
    """Same action and random numbers, other people: proportions and movement differ."""
    heights = [made("walk", 3, height)[1][:, J["Head"], 2].mean() for height in (1.55, 1.7, 1.9)]
    assert heights == sorted(heights)
    people = [draw_person(np.random.default_rng(seed), 1.7) for seed in range(4)]
    assert len({person.cadence for person in people}) == 4
    assert len({person.body.thigh / sum(person.body.trunk) for person in people}) == 4


def test_action_shows_in_the_motion():
    hips = {action: made(action, 5)[1][:, J["Hip"]] for action in ALL_ACTIONS}
    travelled = {
        action: np.linalg.norm(np.diff(path[:, :2], axis=0), axis=-1).sum() / 8 for action, path in hips.items()
    }
    assert (
        travelled["run"] > travelled["walk"] > 0.8 > max(travelled[name] for name in ("squat", "sit", "wave", "turn"))
    )
    assert hips["squat"][:, 2].min() < 0.75
    assert hips["sit"][:, 2].min() < 0.56
    assert hips["wave"][:, 2].min() > 0.85


def test_two_bone_chain_reaches_and_keeps_lengths():
    generator = np.random.default_rng(0)
    start = generator.normal(size=(500, 3))
    target = start + generator.normal(size=(500, 3)) * 0.5
    middle, end = two_bones(start, target, 0.4, 0.3, np.array([0.3, 1.0, 0.2]), soft_from=0.97)
    np.testing.assert_allclose(np.linalg.norm(middle - start, axis=-1), 0.4, atol=1e-12)
    np.testing.assert_allclose(np.linalg.norm(end - middle, axis=-1), 0.3, atol=1e-12)
    distance = np.linalg.norm(target - start, axis=-1)
    near = (distance < 0.97 * 0.7) & (distance > 0.21)
    assert near.sum() > 50
    np.testing.assert_allclose(end[near], target[near], atol=1e-12)


def test_curves():
    assert minimum_jerk(np.array([-1, 0, 0.5, 1, 2])).tolist() == [0, 0, 0.5, 1, 1]
    knots, values = np.array([0.0, 0.3, 0.7]), np.array([0.0, 1.0, 0.4])
    np.testing.assert_allclose(cyclic(knots + 5, knots, values), values, atol=1e-12)
    np.testing.assert_allclose(cyclic(knots + 5, knots, values, gain=2.0), values + 10, atol=1e-12)
    dense = cyclic(np.linspace(0, 1, 500), knots, values)
    assert dense.min() >= -1e-12
    assert dense.max() <= 1 + 1e-12, "no overshoot"
    square = ClosedPath.through(np.array([[np.cos(a), np.sin(a)] for a in np.linspace(0, 2 * np.pi, 400)[:-1]]))
    assert square.lengths[-1] == pytest.approx(2 * np.pi, rel=1e-3)
    np.testing.assert_allclose(square.at(square.lengths[-1:] * 1.25), [[0, 1]], atol=0.02)
    assert square.distance(square.efforts[-1:] * 3)[0] == pytest.approx(3 * square.lengths[-1])
    for kind in ("circle", "eight", "loop"):
        path = floor_path(np.random.default_rng(1), kind, 1.4)
        assert np.linalg.norm(path.points, axis=-1).max() < 1.4 * 1.06


@pytest.fixture(scope="module")
def small():
    return synthetic.Config(seconds=4.0)


def test_default_size_and_protocol():
    config = synthetic.Config()
    recordings = synthetic.list_recordings(config, None)
    assert len(recordings) * 600 * 4 == 117_600
    protocol = synthetic.protocol(config, recordings)
    assert protocol == synthetic.PROTOCOL
    names = {f"{recording.subject}/{recording.name}" for recording in recordings}
    assert set(protocol.held_out) <= names
    splits = [protocol.split_of(recording.subject, recording.name) for recording in recordings]
    assert {split: splits.count(split) for split in set(splits)} == {"train": 30, "held_out": 5, "test": 14}


def test_sequences_are_seen_whole(small):
    for recording in synthetic.list_recordings(small, None)[::3]:
        sequences = synthetic.read_recording(small, recording)
        assert [sequence.camera for sequence in sequences] == ["54138969", "55011271", "58860488", "60457274"]
        worlds = []
        for sequence in sequences:
            camera = Camera.from_plain(sequence.camera_parameters)
            screen = project(sequence.poses, camera)
            assert inside_image(screen, camera.width, camera.height).mean() > 0.999
            assert sequence.frame_rate == 50.0
            assert len(sequence.poses) == 200
            error_px = np.linalg.norm(sequence.keypoints - screen, axis=-1) * camera.width / 2
            assert 3 < error_px.mean() < 8
            worlds.append(camera_to_world(sequence.poses, camera))
        for world in worlds[1:]:
            np.testing.assert_allclose(world, worlds[0], atol=1e-5)


def test_recordings_do_not_depend_on_order(small):
    recordings = synthetic.list_recordings(small, None)
    some = [recordings[3], recordings[20]]
    first = [sequence for recording in some for sequence in synthetic.read_recording(small, recording)]
    copies = [pickle.loads(pickle.dumps(recording)) for recording in reversed(some)]
    again = [sequence for recording in copies for sequence in synthetic.read_recording(small, recording)]
    for one, other in zip(first, again[4:] + again[:4], strict=True):
        np.testing.assert_array_equal(one.poses, other.poses)
        np.testing.assert_array_equal(one.keypoints, other.keypoints)
    reseeded = synthetic.read_recording(synthetic.Config(seconds=4.0, seed=1), some[0])
    assert (reseeded[0].poses != first[0].poses).any()


def test_subjects_have_different_bodies(small):
    first = [synthetic.read_recording(small, recording)[0] for recording in synthetic.list_recordings(small, None)[::7]]
    thighs = [np.linalg.norm(s.poses[0, J["LKnee"]] - s.poses[0, J["LHip"]]) for s in first]
    assert len({round(float(thigh), 4) for thigh in thighs}) == 7
    assert 0.34 < min(thighs) < max(thighs) < 0.52


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"actions": ("walk", "fly")}, "walk, wave"),
        ({"actions": ()}, "actions"),
        ({"seconds": 0.0}, "seconds = 0.0"),
        ({"frame_rate": 0.0}, "frame_rate = 0.0"),
        ({"train_subjects": 0}, "train_subjects = 0"),
        ({"seed": -1}, "seed = -1"),
    ],
)
def test_wrong_options_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        synthetic.Config(**wrong)


def test_raw_folder_is_refused(tmp_path):
    with pytest.raises(ValueError, match="reads no files"):
        synthetic.list_recordings(synthetic.Config(), tmp_path)
