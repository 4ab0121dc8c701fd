"""The sliding patch of 3DPW-AdvOcc, and the textures."""

import numpy as np
import pytest
from PIL import Image

from posegrid.datasets.images import patches
from posegrid.datasets.images.textures import make_textures, read_textures
from posegrid.datasets.occlusions.draws import sequence_key


@pytest.mark.parametrize(("size", "rows", "columns"), [(40, 22, 16), (80, 18, 12)])
def test_number_of_placements_by_hand(size, rows, columns):
    """256 - 40 = 216: tops 0, 10, ..., 210; 192 - 40 = 152: lefts 0, ..., 150. With 80: 0 ... 170 and 0 ... 110."""
    table = patches.placements(256, 192, size, 10)
    assert len(table) == rows * columns
    assert table[0].tolist() == [0, 0]
    assert table[1].tolist() == [0, 10]
    assert table[columns].tolist() == [10, 0]
    assert table[-1].tolist() == [10 * (rows - 1), 10 * (columns - 1)]
    assert len(np.unique(table, axis=0)) == len(table)


def test_exact_fit_has_one_placement():
    assert patches.placements(40, 40, 40, 10).tolist() == [[0, 0]]
    assert patches.placements(50, 41, 40, 10).tolist() == [[0, 0], [10, 0]]
    for wrong in ((39, 100, 40, 10), (100, 100, 40, 0), (100, 100, 0, 10)):
        with pytest.raises(ValueError, match="does not fit"):
            patches.placements(*wrong)


def test_patch_covers_its_square_and_nothing_else():
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (3, 60, 50, 3), dtype=np.uint8)
    before = images.copy()
    textures = generator.integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    config = patches.Config(size=20)
    # tops 0 ... 40, lefts 0 ... 30: number 7 is the second row's last
    found = patches.apply(images, np.array([0, 7, 19]), config, textures, np.array([1, 0, 1]))
    assert (images == before).all()
    for row, (top, left, texture) in enumerate([(0, 0, 1), (10, 30, 0), (40, 30, 1)]):
        wanted = before[row].copy()
        wanted[top : top + 20, left : left + 20] = textures[texture, :20, :20]
        assert (found[row] == wanted).all()


def test_apply_refuses_what_does_not_fit():
    images, textures = np.zeros((2, 60, 50, 3), np.uint8), np.zeros((2, 32, 32, 3), np.uint8)
    config, good = patches.Config(size=20), np.array([0, 1])
    for wrong in (images.astype(float), images[0], images[..., :2]):
        with pytest.raises(ValueError, match="images are"):
            patches.apply(wrong, good, config, textures, good)
    for wrong in (textures[:, :16], textures.astype(float)):
        with pytest.raises(ValueError, match="textures are"):
            patches.apply(images, good, config, wrong, good)
    for wrong in (np.array([0, 20]), np.array([-1, 0]), np.array([0.0, 1.0]), np.array([0])):
        with pytest.raises(ValueError, match="placement"):
            patches.apply(images, wrong, config, textures, good)
    with pytest.raises(ValueError, match=r"texture of image 1 is 2; there are 0 to 1"):
        patches.apply(images, good, config, textures, np.array([0, 2]))
    with pytest.raises(ValueError, match="does not fit"):
        patches.apply(images, good, patches.Config(size=51), np.zeros((1, 64, 64, 3), np.uint8), good)


@pytest.mark.parametrize("rule", patches.RULES)
def test_which_joints_count_by_loops(rule):
    generator = np.random.default_rng(1)
    joints = generator.uniform(-5, 65, (4, 6, 2))
    joints[0, 0] = [20, 10]  # on the edge: left and top belong to the patch, right and bottom do not
    visible = generator.random((4, 6)) < 0.6
    config = patches.Config(size=20, rule=rule)
    found = patches.counted(config, joints, visible, 60, 50)
    assert found.shape == (4, 20, 6)
    for image in range(4):
        for place in range(20):
            top, left = 10 * (place // 4), 10 * (place % 4)
            for joint in range(6):
                x, y = joints[image, joint]
                under = left <= x < left + 20 and top <= y < top + 20
                wanted = {
                    "visible": visible[image, joint] and not under,
                    "uncovered": not under,
                    "unoccluded": visible[image, joint],
                    "all": True,
                }[rule]
                assert found[image, place, joint] == wanted


def test_worst_placement_by_loops():
    generator = np.random.default_rng(2)
    errors, counts = generator.random((5, 7, 6)), generator.random((5, 7, 6)) < 0.5
    counts[0, 3] = False
    errors[0, 3] = 1e6
    errors[~counts] = np.nan  # what does not count may be anything
    found = patches.worst(errors, counts)
    for image in range(5):
        means = [np.mean(errors[image, place][counts[image, place]]) if counts[image, place].any() else -1
                 for place in range(7)]  # fmt: skip
        assert found.placement[image] == int(np.argmax(means))
        assert found.error[image] == pytest.approx(max(means))
        assert found.joints[image] == counts[image, found.placement[image]].sum()
    equal = patches.worst(np.ones((1, 4, 2)), np.ones((1, 4, 2), bool))
    assert equal.placement.tolist() == [0]


def test_worst_refuses_what_has_no_answer():
    errors, counts = np.ones((2, 3, 4)), np.ones((2, 3, 4), bool)
    for value in (np.nan, np.inf, -1.0):
        bad = errors.copy()
        bad[1, 2, 3] = value
        with pytest.raises(ValueError, match="image 1, placement 2, joint 3"):
            patches.worst(bad, counts)
    none = counts.copy()
    none[1] = False
    with pytest.raises(ValueError, match="image 1 has no joint that counts"):
        patches.worst(errors, none)
    for wrong in (counts[:1], counts.astype(int)):
        with pytest.raises(ValueError, match="expected numbers and bool"):
            patches.worst(errors, wrong)


def test_search_finds_the_placement_that_hides_a_spot():
    """A model that errs by what it does not see of a bright spot: the patch must come to lie on it."""
    images = np.zeros((2, 60, 50, 3), np.uint8)
    images[0, 22:26, 12:16], images[1, 52:56, 42:46] = 255, 255
    textures = np.zeros((1, 32, 32, 3), np.uint8)
    config = patches.Config(size=20)
    sizes = []

    def errors_of(patched, image):
        sizes.append(len(patched))
        seen = (patched[..., 0] == 255).sum(axis=(1, 2))
        return np.repeat(16.0 - seen[:, None], 3, axis=1) + image[:, None]

    found = patches.search(config, images, np.ones((2, 20, 3), bool), textures, np.zeros(2, int), errors_of, batch=7)
    # the first of the placements that hide the whole spot: top 10, left 0; top 40, left 30
    assert found.placement.tolist() == [4, 19]
    assert found.error.tolist() == [16.0, 17.0]
    assert sizes == [7] * 5 + [5]
    with pytest.raises(ValueError, match="errors_of returned"):
        patches.search(config, images, np.ones((2, 20, 3), bool), textures, np.zeros(2, int), lambda made, image: image)


@pytest.mark.parametrize("values", [{"size": 0}, {"stride": 0}, {"seed": -1}, {"rule": "seen"}])
def test_settings_are_checked(values):
    with pytest.raises(ValueError, match=r"patches\."):
        patches.Config(**values)


def test_choice_of_texture_belongs_to_the_image():
    keys = np.array([sequence_key(f"S{row % 9}/a/0") for row in range(3000)], dtype=np.uint64)
    frames = np.arange(3000)
    chosen = patches.choose_textures(5, keys, frames, 10)
    order = np.random.default_rng(0).permutation(3000)
    assert (patches.choose_textures(5, keys[order], frames[order], 10) == chosen[order]).all()
    # 3000 draws of 10: 300 each, standard deviation 16.4; five of them
    assert np.abs(np.bincount(chosen, minlength=10) - 300).max() < 82


def test_textures_are_seeded_varied_and_seamless():
    made = make_textures(3, 14, 64)
    assert made.shape == (14, 64, 64, 3)
    assert made.dtype == np.uint8
    assert (made == make_textures(3, 20, 64)[:14]).all()
    assert (made != make_textures(4, 14, 64)).any(axis=(1, 2, 3)).all()
    assert made.std(axis=(1, 2)).max(axis=1).min() > 5
    # the step across the border is no larger than the largest inside
    values = made.astype(int)
    for axis in (1, 2):
        steps = np.abs(np.diff(values, axis=axis)).max(axis=(1, 2, 3))
        border = np.abs(values.take(0, axis=axis) - values.take(-1, axis=axis)).max(axis=(1, 2))
        assert (border <= steps + 25).all()
    for wrong in ((-1, 1, 64), (0, 0, 64), (0, 1, 8)):
        with pytest.raises(ValueError, match="textures"):
            make_textures(*wrong)


def test_textures_of_a_folder(tmp_path):
    (tmp_path / "b").mkdir()
    Image.new("RGB", (90, 60), (1, 2, 3)).save(tmp_path / "b" / "x.png")
    striped = np.zeros((40, 80, 3), np.uint8)
    striped[:, 20:60] = 200
    Image.fromarray(striped).save(tmp_path / "a.PNG")
    found = read_textures(tmp_path, 32)
    assert found.shape == (2, 32, 32, 3)
    assert (found[0] == 200).all()  # the central square
    assert (found[1] == [1, 2, 3]).all()
    (tmp_path / "b" / "y.jpg").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"y\.jpg"):
        read_textures(tmp_path, 32)
    for folder in (tmp_path / "nowhere", tmp_path / "a.PNG"):
        with pytest.raises(ValueError, match=r"no \.jpg or \.png"):
            read_textures(folder)
