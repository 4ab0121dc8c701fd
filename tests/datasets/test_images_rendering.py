"""Drawn images: where things lie, that nothing but (seed, sequence, frame) matters."""

from dataclasses import replace

import numpy as np
import pytest
import toy

from posegrid.datasets import cameras
from posegrid.datasets.images import bodies, crops, rendering
from posegrid.datasets.images.raster import capsule_pixels, capsule_table, meet, nearest, ragged
from posegrid.datasets.images.reader import Config, open_images
from posegrid.datasets.prepare import prepare
from posegrid.datasets.skeletons import H36M_17, SKELETONS
from posegrid.datasets.store_writer import write_store


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    options = {"seconds": 0.6, "actions": ["walk", "reach"], "train_subjects": 2, "test_subjects": 1}
    return prepare("synthetic", None, tmp_path_factory.mktemp("images") / "store", options=options)


def some(store, count, seed=0):
    generator = np.random.default_rng(seed)
    return generator.integers(0, len(store.sequences), count), generator.integers(0, 30, count)


def surface_points(capsules, row, generator, shrink=0.98, count=30_000):
    """Points on the surfaces of a body, from its definition: somewhere on an axis, a radius away."""
    part = np.tile(np.arange(capsules.radius.shape[1]), count)
    axis = capsules.end[row] - capsules.start[row]
    centre = capsules.start[row][part] + axis[part] * generator.random((len(part), 1))
    away = generator.normal(size=(len(part), 3))
    away /= np.linalg.norm(away, axis=1, keepdims=True)
    return centre + away * (capsules.radius[row][part] * shrink)[:, None]


def test_body_lies_where_the_projection_says(store):
    """Points of the capsules' surfaces, projected by `cameras.project`, against mask and depth of the drawing."""
    reader = open_images(store, None, Config(box="poses"))
    sequence, frame = some(store, 3)
    drawn, boxes = reader.drawn(sequence, frame), reader.boxes(sequence, frame)
    generator = np.random.default_rng(4)
    for row, (index, number) in enumerate(zip(sequence, frame, strict=True)):
        entry = store.sequences[index]
        camera = cameras.h36m_cameras()[{"P1": "S1", "P2": "S5", "P3": "S9"}[entry.subject]][index % 4]
        assert camera.id == entry.camera
        body = bodies.Body(H36M_17)
        _, girth = bodies.wardrobe(0, reader._subject_keys[index : index + 1])
        capsules = body.capsules(store.poses[entry.offset + number][None], girth)
        points = surface_points(capsules, 0, generator)
        pixels = cameras.screen_to_pixels(cameras.project(points, camera), camera.width, camera.height)
        box = boxes[row]
        places = (pixels - box[:2]) * 192 / (box[2] - box[0])
        x, y = np.floor(places).astype(int).T
        inside = (x >= 0) & (x < 192) & (y >= 0) & (y < 256)
        x, y, depth = x[inside], y[inside], points[inside, 2]
        # pixels whose middle is just outside may hold a sample: allow one in a hundred, all at the rim
        assert drawn.body[row][y, x].mean() > 0.99
        near = np.pad(drawn.body[row], 1)
        near = np.stack([near[1 + dy : 257 + dy, 1 + dx : 193 + dx] for dy in (-1, 0, 1) for dx in (-1, 0, 1)])
        assert near.any(axis=0)[y, x].all()
        # no surface lies in front of what is seen there or, at edges, next to it
        padded = np.pad(drawn.depth[row], 1, constant_values=np.inf)
        nearby = [padded[1 + dy : 257 + dy, 1 + dx : 193 + dx] for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
        assert (depth > np.min(nearby, axis=0)[y, x] - 0.02).all()
        assert (depth > drawn.depth[row][y, x] - 0.02)[near.all(axis=0)[y, x]].mean() > 0.98
        # and what is seen is a surface: every pixel of the body is next to a sample as near as its depth
        closest = np.full((256, 192), np.inf)
        np.minimum.at(closest, (y, x), depth)
        sampled = np.isfinite(closest) & near.all(axis=0)
        assert sampled.sum() > 0.6 * drawn.body[row].sum()
        assert np.median(np.abs(closest[sampled] - drawn.depth[row][sampled])) < 0.01
        covered = np.zeros((258, 194), bool)
        for dy in range(3):
            for dx in range(3):
                covered[y + dy, x + dx] = True
        assert (drawn.body[row] & ~covered[1:-1, 1:-1]).sum() < 0.01 * drawn.body[row].sum()


def test_joints_lie_on_the_body_and_the_body_around_the_joints(store):
    reader = open_images(store, None, Config(box="poses"))
    sequence, frame = some(store, 24, 1)
    drawn, joints = reader.drawn(sequence, frame), reader.crop_poses(sequence, frame)
    x, y = np.floor(joints).astype(int).transpose(2, 0, 1)
    assert drawn.body[np.arange(24)[:, None], y, x].all()
    scale = 256 / (reader.boxes(sequence, frame)[:, 3] - reader.boxes(sequence, frame)[:, 1])
    for row in range(24):
        rows, columns = np.nonzero(drawn.body[row])
        # no part reaches further from the joints than hand or foot: 25 cm at 4 m and f = 1150 px
        rim = scale[row] * 1150 * 0.25 / 3
        assert rows.min() <= joints[row, :, 1].min() + 1
        assert rows.min() > joints[row, :, 1].min() - rim
        assert rows.max() < joints[row, :, 1].max() + rim
        assert columns.min() > joints[row, :, 0].min() - rim
        assert columns.max() < joints[row, :, 0].max() + rim
    assert (np.isfinite(drawn.depth) == drawn.body).all()


def test_a_row_depends_on_nothing_but_itself(store):
    config = Config(renderer=rendering.Config(seed=3, obstacles=2), crop=crops.Config(height=128, width=96))
    reader = open_images(store, None, config)
    sequence, frame = some(store, 11, 2)
    together = reader.drawn(sequence, frame)
    visible = reader.visible(sequence, frame)
    order = np.random.default_rng(0).permutation(11)
    other = open_images(store, None, config)
    again = other.drawn(sequence[order], frame[order])
    assert (again.images == together.images[order]).all()
    assert (again.depth == together.depth[order]).all()
    assert (other.visible(sequence[order], frame[order]) == visible[order]).all()
    for row in (0, 5, 10):
        alone = reader.drawn(sequence[row : row + 1], frame[row : row + 1])
        assert (alone.images[0] == together.images[row]).all()
        assert (alone.body[0] == together.body[row]).all()
        assert (reader.visible(sequence[row : row + 1], frame[row : row + 1])[0] == visible[row]).all()
    assert (reader.crops(sequence, frame) == together.images).all()


def test_background_and_clothes_stay_and_seeds_differ(store):
    reader = open_images(store, None, Config(box="poses"))
    first, second = reader.drawn(np.array([0, 0]), np.array([3, 4])), reader.drawn(np.array([0]), np.array([3]))
    assert (first.images[0] == second.images[0]).all()
    # the box moves by a pixel or so between frames, so compare colours, not pixels
    means = [image[~body].mean(axis=0) for image, body in zip(first.images, first.body, strict=True)]
    np.testing.assert_allclose(means[0], means[1], atol=3)
    means = [image[body].mean(axis=0) for image, body in zip(first.images, first.body, strict=True)]
    np.testing.assert_allclose(means[0], means[1], atol=3)
    other = open_images(store, None, Config(box="poses", renderer=rendering.Config(seed=1)))
    changed = other.drawn(np.array([0]), np.array([3]))
    assert (changed.images != second.images).any(axis=-1).mean() > 0.5
    colours = bodies.wardrobe(0, np.array([1, 1, 2], np.uint64))[0]
    assert (colours[0] == colours[1]).all()
    assert (colours[0] != colours[2]).any()


def posed(store, turn):
    """A scene of one standing person of 17 joints, turned about the vertical by `turn`, seen by an ideal camera."""
    side = {"Hip": 0.13, "Knee": 0.14, "Foot": 0.14, "Shoulder": 0.18, "Elbow": 0.3, "Wrist": 0.4}
    high = {"Hip": 0.95, "Knee": 0.5, "Foot": 0.06, "Shoulder": 1.42, "Elbow": 1.2, "Wrist": 1.0}
    middle = {"Hip": (0, 0.95), "Spine": (0, 1.2), "Thorax": (0, 1.45), "Neck": (0.08, 1.56), "Head": (0, 1.68)}
    # person: x to the left, y to the back, z up; the camera looks along its z
    points = []
    for name in H36M_17.joints:
        if name in middle:
            points.append((0, -middle[name][0], middle[name][1]))
        else:
            points.append(((1 if name[0] == "L" else -1) * side[name[1:]], 0, high[name[1:]]))
    x, y, z = np.array(points).T
    c, s = np.cos(turn), np.sin(turn)
    x, y = c * x - s * y, s * x + c * y
    # facing the camera: the person's left is on the right of the image
    pose = np.stack([x, 1.0 - z, 4 + y], axis=-1)[None]
    return rendering.Scene(
        poses=pose,
        intrinsics=np.array([[2.3, 2.3, 0, 0, 0, 0, 0, 0, 0]], dtype=np.float64),
        size=np.array([[1000, 1000]]),
        boxes=np.array([[500 - 225, 500 - 300, 500 + 225, 500 + 300]], dtype=np.float64),
        subject_keys=np.zeros(1, np.uint64),
        sequence_keys=np.zeros(1, np.uint64),
        frames=np.zeros(1, np.int64),
    )


def test_visible_joints_of_poses_that_are_easy_to_judge(store):
    renderer = rendering.Renderer(H36M_17, rendering.Config(), crops.Config())
    assert renderer.visible(posed(store, 0.0)).all()
    # from behind too: the face belongs to the head that is seen
    assert renderer.visible(posed(store, np.pi)).all()
    # turned by a quarter the far arm, hip and shoulder hide behind the body
    for turn, near, far in ((np.pi / 2, "R", "L"), (-np.pi / 2, "L", "R")):
        seen = dict(zip(H36M_17.joints, renderer.visible(posed(store, turn))[0], strict=True))
        assert all(seen[near + limb] for limb in ("Shoulder", "Elbow", "Wrist", "Knee", "Foot"))
        assert not seen[near + "Hip"]  # the hand hangs before it
        assert not any(seen[far + limb] for limb in ("Shoulder", "Hip", "Knee", "Foot"))
        assert seen["Head"]


def test_body_faces_where_its_nose_is(store):
    """The face is skin-coloured, the back of the head has hair."""
    config = crops.Config()
    renderer = rendering.Renderer(H36M_17, rendering.Config(), config)
    colours = bodies.wardrobe(0, np.zeros(1, np.uint64))[0][0]
    for turn, wanted, other in ((0.0, "face", "hair"), (np.pi, "hair", "face")):
        scene = posed(store, turn)
        image = renderer.render(scene).images[0].astype(float)
        head = (scene.poses[0, 9] + scene.poses[0, 10]) / 2
        screen = 2.3 * head[:2] / head[2]
        x, y = ((screen + 1) * 500 - [275, 200]) * 192 / 450
        colour = image[int(y) - 1 : int(y) + 2, int(x) - 1 : int(x) + 2].mean(axis=(0, 1))

        def unlike(name, colour=colour):
            one, two = colour / colour.sum(), colours[bodies.CLOTHES.index(name)]
            return np.abs(one - two / two.sum()).sum()

        assert unlike(wanted) < 0.03
        assert unlike(wanted) < unlike(other)


def test_obstacles_stand_in_front_and_hide_joints(store):
    sequence, frame = some(store, 16, 5)
    bare = open_images(store, None, Config(box="poses"))
    full = open_images(store, None, Config(box="poses", renderer=rendering.Config(obstacles=3)))
    without, with_them = bare.drawn(sequence, frame), full.drawn(sequence, frame)
    changed = with_them.depth != without.depth
    assert changed.any(axis=(1, 2)).all()
    assert (with_them.depth <= without.depth).all()
    assert (with_them.images == without.images)[~changed].all()
    assert not (with_them.body & changed).any()
    seen, before = full.visible(sequence, frame), bare.visible(sequence, frame)
    assert not (seen & ~before).any()
    assert 0.1 < seen.sum() / before.sum() < 0.9
    # a joint whose pixel shows an obstacle is hidden, one whose pixel shows the body as before is not; the rim aside
    joints = full.crop_poses(sequence, frame)
    x, y = np.floor(joints).astype(int).transpose(2, 0, 1)
    padded = np.pad(changed, ((0, 0), (1, 1), (1, 1)))
    shifted = [padded[:, 1 + dy : 257 + dy, 1 + dx : 193 + dx] for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
    at = (np.arange(16)[:, None], y, x)
    assert not seen[np.all(shifted, axis=0)[at]].any()
    clear = ~np.any(shifted, axis=0)[at]
    assert (seen == before)[clear].all()


@pytest.mark.parametrize("name", sorted(SKELETONS))
def test_every_skeleton_has_a_body(name):
    skeleton = SKELETONS[name]
    generator = np.random.default_rng(0)
    poses = generator.normal(0, 0.3, (3, len(skeleton), 3)) + np.array([0, 0, 4])
    capsules = bodies.Body(skeleton).capsules(poses)
    assert np.isfinite(capsules.start).all()
    assert (capsules.radius > 0).all()
    np.testing.assert_allclose(np.linalg.norm(capsules.front, axis=-1), 1)
    # rigid motions carry the body along
    turn, _ = np.linalg.qr(generator.normal(size=(3, 3)))
    turn *= np.sign(np.linalg.det(turn))
    moved = bodies.Body(skeleton).capsules(poses @ turn.T + [0.1, 0.2, 0.3])
    np.testing.assert_allclose(moved.end, capsules.end @ turn.T + [0.1, 0.2, 0.3], atol=1e-9)
    shorter = replace(skeleton, joints=tuple(joint.replace("LKnee", "Knob") for joint in skeleton.joints))
    with pytest.raises(ValueError, match="lacks LKnee"):
        bodies.Body(shorter)


@pytest.mark.parametrize("offset", [(0, 0, -6), (0, 0, -4), (0, 0, -3.7), (9, 0, 0), (0, 0, 300), (-3, 2, -2)])
def test_odd_places_are_drawn_without_complaint(tmp_path, offset):
    """Behind the camera, around it, beside the image, far away: an image all the same, and no warning."""
    made = [replace(sequence, camera_parameters=toy_camera()) for sequence in toy.sequences(5)]
    common = {"source": "toy", "source_config": {}, "skeleton": H36M_17, "protocol": toy.PROTOCOL}
    good = write_store(tmp_path / "odd", made, **common)
    odd = replace(good, poses_if_any=good.poses + np.float32(offset))
    small = crops.Config(height=64, width=48)
    reader = open_images(odd, None, Config(crop=small, renderer=rendering.Config(obstacles=2)))
    with np.errstate(all="raise", under="ignore"):
        found = reader.drawn(np.arange(8), np.full(8, 4))
        seen = reader.visible(np.arange(8), np.full(8, 4))
    if offset[2] == -6:
        assert not found.body.any()
        assert not seen.any()
    assert found.images.std() > 5


def toy_camera():
    return cameras.Camera(id="0", width=1000, height=1000, focal_px=(1100, 1100), centre_px=(500, 500)).to_plain()


def test_store_without_cameras_is_drawn_with_a_fitted_one(tmp_path):
    plain = toy.write_toy(tmp_path / "toy", 10)
    reader = open_images(plain, None, Config(box="keypoints"))
    sequence, frame = np.arange(8), np.arange(8)
    np.testing.assert_allclose(reader.crop_poses(sequence, frame), reader.crop_keypoints(sequence, frame), atol=0.01)


def test_damaged_stores_are_refused(tmp_path):
    made = toy.sequences(5)
    common = {"source": "toy", "source_config": {}, "skeleton": H36M_17, "protocol": toy.PROTOCOL}
    blind = write_store(tmp_path / "blind", [replace(row, poses=None) for row in made], **common)
    with pytest.raises(ValueError, match="no 3D poses to draw"):
        open_images(blind)
    broken = write_store(tmp_path / "camera", [replace(row, camera_parameters={"id": "x"}) for row in made], **common)
    with pytest.raises(ValueError, match=r"sequence A/walk 1/0: its camera cannot be read"):
        open_images(broken, None, Config(box="poses")).boxes(np.array([0]), np.array([0]))
    confidence = np.ones((5, 17), np.float32)
    confidence[3] = 0
    made[0] = replace(
        made[0], **{name: getattr(made[0], name)[:5] for name in ("keypoints", "poses")}, confidence=confidence
    )
    lost = open_images(write_store(tmp_path / "lost", made, **common))
    with pytest.raises(ValueError, match=r"sequence A/walk 1/0, frame 3 has no keypoint"):
        lost.crops(np.array([0, 0]), np.array([2, 3]))
    assert lost.crops(np.array([0, 0]), np.array([2, 4])).shape == (2, 256, 192, 3)
    for values in ({"seed": -1}, {"obstacles": -1}, {"obstacles": 1000}):
        with pytest.raises(ValueError, match=r"images\.renderer"):
            rendering.Config(**values)


def test_ragged_lists_by_hand():
    owner, place = ragged(np.array([2, 0, 3]))
    assert owner.tolist() == [0, 0, 2, 2, 2]
    assert place.tolist() == [0, 1, 0, 1, 2]


def test_candidates_hold_all_pixels_within_reach():
    generator = np.random.default_rng(6)
    start, end = generator.uniform(-10, 50, (2, 40, 2))
    end[:3] = start[:3]
    end[3:6, 1] = start[3:6, 1]
    reach = generator.uniform(0.5, 12, 40)
    reach[7] = -1
    part, pixel = capsule_pixels(start, end, reach, 40, 30)
    assert len(np.unique(part * 1200 + pixel)) == len(part)
    y, x = np.divmod(np.arange(1200), 30)
    middle = np.stack([x, y], axis=-1) + 0.5
    for one in range(40):
        axis = end[one] - start[one]
        share = np.clip((middle - start[one]) @ axis / max(axis @ axis, 1e-12), 0, 1)
        distance = np.linalg.norm(middle - start[one] - share[:, None] * axis, axis=1)
        wanted = set(np.flatnonzero(distance <= reach[one] - 1e-9)) if reach[one] >= 0 else set()
        assert wanted <= set(pixel[part == one])


def test_rays_meet_capsules_where_spheres_along_the_axis_say():
    """Against the nearest of 4001 spheres along the axis, float64, at distances up to 8 m."""
    generator = np.random.default_rng(7)
    start = generator.uniform([-0.5, -0.5, 2], [0.5, 0.5, 8], (200, 3))
    end = start + generator.normal(0, 0.3, (200, 3))
    radius = generator.uniform(0.03, 0.2, 200)
    aim = start + (end - start) * generator.uniform(-0.3, 1.3, (200, 1)) + generator.normal(0, 0.1, (200, 3))
    x, y = (aim[:, :2] / aim[:, 2:]).T
    hit, depth, place = meet(capsule_table(start, end, radius).T, *(a.astype(np.float32) for a in (x, y)))
    centres = start[:, None] + (end - start)[:, None] * np.linspace(0, 1, 4001)[:, None]
    ray = np.stack([x, y, np.ones(200)], axis=-1)
    along = np.einsum("nc,nkc->nk", ray, centres)
    inside = along**2 - (ray**2).sum(axis=1)[:, None] * ((centres**2).sum(axis=-1) - radius[:, None] ** 2)
    roots = np.where(inside >= 0, along - np.sqrt(np.maximum(inside, 0)), np.inf) / (ray**2).sum(axis=1)[:, None]
    wanted = roots.min(axis=1)
    clearly = np.abs(inside.max(axis=1)) > 1e-3 * radius
    found = np.full(200, np.inf)
    found[hit] = depth
    assert (np.isfinite(found) == np.isfinite(wanted))[clearly].all()
    both = np.isfinite(found) & np.isfinite(wanted) & clearly
    assert 80 < both.sum() < 190
    np.testing.assert_allclose(found[both], wanted[both], atol=2e-3)
    assert ((place >= 0) & (place <= 1)).all()


def test_nearest_fragment_wins():
    covered, winner = nearest(6, np.array([4, 1, 4, 4, 1]), np.array([3.0, 2.0, 1.5, 9.0, 2.0], np.float32))
    assert covered.tolist() == [1, 4]
    assert winner.tolist() == [1, 2]
