"""Crops read from image files."""

import struct
import time
import zlib

import image_stores
import numpy as np
import pytest
from PIL import Image

from posegrid.datasets.images import crops
from posegrid.datasets.images.files import read_crop, read_square
from posegrid.datasets.images.reader import Config, open_images

SMALL = crops.Config(height=64, width=48)


def expected_ramp(box, size):
    """Colours of `image_stores.ramp` at the middles of a crop's pixels: linear in the place, NaN outside."""
    x = box[0] + (np.arange(size[0]) + 0.5) * (box[2] - box[0]) / size[0]
    y = box[1] + (np.arange(size[1]) + 0.5) * (box[3] - box[1]) / size[1]
    return 2 * x[None, :], 2 * y[:, None]


@pytest.mark.parametrize("box", [(10.3, 5.7, 58.3, 69.7), (20, 10, 50, 50), (1.25, 3.5, 99.0, 78.9)])
def test_crop_shows_what_lies_in_the_box(tmp_path, box):
    file = tmp_path / "a.png"
    image_stores.ramp(100, 80, 7).save(file)
    found = read_crop(file, np.array(box), (48, 64), (100, 80), "x").astype(int)
    red, green = expected_ramp(box, (48, 64))
    assert np.abs(found[2:-2, 2:-2, 0] - red[:, 2:-2]).max() <= 1.5
    assert np.abs(found[2:-2, 2:-2, 1] - green[2:-2]).max() <= 1.5
    assert (found[..., 2] == 7).all()


def test_what_lies_outside_is_black(tmp_path):
    file = tmp_path / "a.png"
    Image.new("RGB", (100, 80), (200, 200, 200)).save(file)
    found = read_crop(file, np.array([-24.0, 16.0, 24.0, 80.0]), (48, 64), (100, 80), "x")
    assert (found[:, :23] == 0).all()
    assert (found[:, 25:] == 200).all()
    assert (read_crop(file, np.array([500.0, 500, 548, 564]), (48, 64), (100, 80), "x") == 0).all()


def test_smaller_copies_and_decoder_shortcuts_give_the_same_view(tmp_path):
    """A JPEG that is shrunk eightfold while it is decoded, and a copy of half the size."""
    x, y = np.meshgrid(np.arange(1600) + 0.5, np.arange(1200) + 0.5)
    picture = np.stack([x * 255 / 1600, y * 255 / 1200, 128 + 60 * np.sin(x / 150)], axis=-1).astype(np.uint8)
    Image.fromarray(picture).save(tmp_path / "whole.jpg", quality=95)
    Image.fromarray(picture).resize((800, 600)).save(tmp_path / "half.jpg", quality=95)
    Image.fromarray(picture).save(tmp_path / "whole.png")
    for box in ((100.0, 20.0, 955.0, 1160.0), (700.5, 300.25, 880.5, 540.25)):
        found = {
            name: read_crop(tmp_path / name, np.array(box), (48, 64), (1600, 1200), "x").astype(int)
            for name in ("whole.jpg", "half.jpg", "whole.png")
        }
        red = (box[0] + (np.arange(48) + 0.5) * (box[2] - box[0]) / 48) * 255 / 1600
        for name in found:
            assert np.abs(found[name][..., 0] - red).max() < 4, name
            assert np.abs(found[name] - found["whole.png"]).max() < 8, name


@pytest.mark.parametrize(("mode", "colour"), [("L", 90), ("P", 90), ("RGBA", (90, 90, 90, 0)), ("1", 1)])
def test_other_kinds_of_pixels_become_colours(tmp_path, mode, colour):
    image = Image.new(mode, (100, 80), colour)
    if mode == "P":
        image.putpalette([90] * 768)
    image.save(tmp_path / "a.png")
    found = read_crop(tmp_path / "a.png", np.array([10.0, 10, 40, 50]), (48, 64), (100, 80), "x")
    assert (found == (255 if mode == "1" else 90)).all()


def test_reader_joins_files_and_drawing(tmp_path):
    store = image_stores.with_files(tmp_path)
    reader = open_images(store, tmp_path / "frames", Config(crop=SMALL, box="poses"))
    sequence, frame = np.array([2, 0, 1, 0]), np.array([1, 0, 2, 2])
    found = reader.crops(sequence, frame)
    assert found.shape == (4, 64, 48, 3)
    assert found.dtype == np.uint8
    boxes = reader.boxes(sequence, frame)
    for row, blue in ((1, 0), (2, 120), (3, 20)):
        red, green = expected_ramp(boxes[row], (48, 64))
        inside = (red > 4) & (red < 196) & (green > 4) & (green < 156)
        assert inside.sum() > 100
        assert np.abs(found[row][..., 0] - red)[inside].max() <= 2
        assert np.abs(found[row][..., 1] - green)[inside].max() <= 2
        assert (found[row][inside][:, 2] == blue).all()
    drawn = open_images(store, None, Config(crop=SMALL, box="poses", origin="rendered"))
    assert (found[0] == drawn.crops(sequence[:1], frame[:1])[0]).all()
    assert (found[1] != drawn.crops(sequence[1:2], frame[1:2])[0]).any()


def test_keypoints_fall_on_their_place_in_the_crop(tmp_path):
    """The colour under a keypoint says where in the whole image it was."""
    store = image_stores.with_files(tmp_path)
    reader = open_images(store, tmp_path / "frames")
    sequence, frame = np.array([0, 1]), np.array([2, 0])
    images, points = reader.crops(sequence, frame), reader.crop_keypoints(sequence, frame)
    assert points.dtype == np.float32
    rows = [store.sequences[index].offset + number for index, number in zip(sequence, frame, strict=True)]
    pixels = (store.keypoints[rows] + [1, 0.8]) * 50
    checked = 0
    for image, crop_points, whole in zip(images, points, pixels, strict=True):
        for (x, y), (px, py) in zip(crop_points, whole, strict=True):
            if 2 < px < 98 and 2 < py < 78 and 0 <= x < 192 and 0 <= y < 256:
                colour = image[int(y), int(x)]
                assert abs(colour[0] - 2 * px) <= 2.5
                assert abs(colour[1] - 2 * py) <= 2.5
                checked += 1
    assert checked > 20
    affine = reader.affine(sequence, frame)
    by_hand = np.einsum("nij,nqj->nqi", affine[:, :, :2], pixels) + affine[:, None, :, 2]
    np.testing.assert_allclose(points, by_hand, atol=1e-3)


def test_threads_change_nothing(tmp_path):
    store = image_stores.with_files(tmp_path, frames=6, ending="jpg")
    sequence, frame = np.repeat([0, 1], 6), np.tile(np.arange(6), 2)
    one, four = (open_images(store, tmp_path / "frames", Config(threads=threads)) for threads in (1, 4))
    assert (one.crops(sequence, frame) == four.crops(sequence, frame)).all()


def test_missing_and_damaged_files_are_named(tmp_path):
    store = image_stores.with_files(tmp_path)
    reader = open_images(store, tmp_path / "frames")
    file = tmp_path / "frames" / "B" / "0002.png"
    whole = file.read_bytes()
    ask = (np.array([0, 1]), np.array([0, 1]))
    for content in (b"", b"no image", whole[: len(whole) // 2], whole[:40]):
        file.write_bytes(content)
        with pytest.raises(ValueError, match=r"sequence B/walk 1/0, frame 1.*0002\.png.*Extract it again"):
            reader.crops(*ask)
    Image.new("RGB", (100, 80)).save(file, format="GIF")
    with pytest.raises(ValueError, match="expected JPEG or PNG"):
        reader.crops(*ask)
    Image.new("I;16", (100, 80)).save(file)
    with pytest.raises(ValueError, match="mode I;16"):
        reader.crops(*ask)
    for size in ((80, 100), (200, 160), (50, 45), (1, 1)):
        Image.new("RGB", size).save(file)
        with pytest.raises(ValueError, match=rf"{size[0]} x {size[1]} px, the data set says 100 x 80"):
            reader.crops(*ask)
    file.unlink()
    with pytest.raises(ValueError, match=r"frame 1: the image .*0002\.png is missing"):
        reader.crops(*ask)
    file.mkdir()
    with pytest.raises(ValueError, match="cannot be read"):
        reader.crops(*ask)


def test_last_image_is_looked_for_at_the_start(tmp_path):
    store = image_stores.with_files(tmp_path)
    (tmp_path / "frames" / "A" / "0003.png").unlink()
    with pytest.raises(ValueError, match="sequence A/walk 1/0, frame 2"):
        open_images(store, tmp_path / "frames")


def test_bomb_is_refused_before_it_unpacks(tmp_path):
    """A PNG of a few hundred bytes that claims 60000 x 60000 pixels."""
    store = image_stores.with_files(tmp_path)

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(bytes(100_000))) + chunk(b"IEND", b"")
    (tmp_path / "frames" / "A" / "0001.png").write_bytes(b"\x89PNG\r\n\x1a\n" + header + body)
    began = time.perf_counter()
    with pytest.raises(ValueError, match="sequence A/walk 1/0, frame 0"):
        open_images(store, tmp_path / "frames")
    assert time.perf_counter() - began < 2
    textures = tmp_path / "bomb.png"
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 9_000, 9_000, 8, 2, 0, 0, 0))
    textures.write_bytes(b"\x89PNG\r\n\x1a\n" + header + body)
    with pytest.raises(ValueError, match="9000 x 9000"):
        read_square(textures, 64)


@pytest.mark.parametrize("ending", ["jpg", "png"])
def test_broken_files_are_read_or_refused(tmp_path, ending):
    """150 files with flipped bits, cuts and overwritten runs: an array of the right shape or a ValueError."""
    generator = np.random.default_rng(3)
    file = tmp_path / f"a.{ending}"
    image_stores.ramp(100, 80, 3).save(file)
    whole, refused = np.frombuffer(file.read_bytes(), np.uint8), 0
    unnamed = 0
    for _ in range(150):
        broken = whole.copy()
        start = int(generator.integers(len(broken)))
        match generator.integers(3):
            case 0:
                broken = broken[:start]
            case 1:
                broken[start] ^= 1 << generator.integers(8)
            case _:
                broken[start : start + 8] = generator.integers(0, 256, len(broken[start : start + 8]))
        file.write_bytes(broken.tobytes())
        try:
            found = read_crop(file, np.array([10.0, 10, 40, 50]), (48, 64), (100, 80), "sequence x, frame 0")
        except ValueError as error:
            refused += "sequence x, frame 0" in str(error)
            unnamed += "sequence x, frame 0" not in str(error)
        else:
            assert found.shape == (64, 48, 3)
    assert refused > 30
    assert not unnamed


def test_wrong_requests_are_refused(tmp_path):
    store = image_stores.with_files(tmp_path)
    reader = open_images(store, tmp_path / "frames")
    for sequence, frame in (([0.0], [0]), ([0], [[0]]), ([0, 1], [0]), ([True], [0]), (0, 0)):
        with pytest.raises(ValueError, match="whole numbers of one shape"):
            reader.crops(np.array(sequence), np.array(frame))
    for sequence, frame, message in (([3], [0], "sequences 0 to 2"), ([-1], [0], "0 to 2"), ([0], [3], "0 to 2")):
        with pytest.raises(ValueError, match=message):
            reader.crops(np.array(sequence), np.array(frame))
    assert reader.crops(np.zeros(0, int), np.zeros(0, int)).shape == (0, 256, 192, 3)
    for dtype in (np.int8, np.uint16, np.int64):
        again = reader.crops(np.array([1], dtype), np.array([2], dtype))
        assert (again == reader.crops(np.array([1]), np.array([2]))).all()


def test_wrong_folders_and_settings_are_refused(tmp_path):
    store = image_stores.with_files(tmp_path)
    for root in (None, tmp_path / "nowhere"):
        with pytest.raises(ValueError, match="which is no folder"):
            open_images(store, root)
    with pytest.raises(ValueError, match=r"1 of 3 sequences .* such as C/walk 1/0"):
        open_images(store, tmp_path / "frames", Config(origin="files"))
    for values in ({"origin": "video"}, {"box": "head"}, {"threads": 0}):
        with pytest.raises(ValueError, match=r"images\."):
            Config(**values)
