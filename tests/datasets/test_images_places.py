"""Where a store says its images are."""

import json

import pytest

from posegrid.datasets.images.places import RENDERED, ImageFiles, fill_template, place_of


def test_paths_count_from_the_first_image_in_steps():
    place = ImageFiles(template="S1/Walking 1.54138969/img_{frame:06d}.jpg", first=1, step=5)
    assert [place.path(frame) for frame in (0, 1, 200)] == [
        "S1/Walking 1.54138969/img_000001.jpg",
        "S1/Walking 1.54138969/img_000006.jpg",
        "S1/Walking 1.54138969/img_001001.jpg",
    ]
    assert place.part(3).path(2) == place.path(5)
    assert ImageFiles(template="{frame}.png").path(1234567) == "1234567.png"


def test_template_of_a_user_is_filled_with_the_names_of_the_sequence():
    place = fill_template(
        "{subject}/{take}/{recording}.{camera}/{frame:05d}.jpg",
        subject="S9",
        recording="Directions 1",
        camera="55011271",
        first=1,
    )
    assert place.path(0) == "S9/Directions_1/Directions 1.55011271/00001.jpg"


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{subject}/{action}/{frame}.jpg", r"holds \{action\}"),
        ("{subject}/{frame.__class__}.jpg", "holds"),
        ("{frame:d}.jpg", "holds"),
        ("{subject}.jpg", "number of the frame"),
        ("{{frame}}.jpg", "brace"),
        ("{frame}{.jpg", "brace"),
    ],
)
def test_template_with_other_fields_is_refused(template, message):
    with pytest.raises(ValueError, match=message):
        fill_template(template, subject="S9", recording="Directions", camera="0")


def test_names_cannot_bring_in_fields():
    with pytest.raises(ValueError, match="brace"):
        fill_template("{recording}/{frame}.jpg", subject="S9", recording="{x}", camera="0")


@pytest.mark.parametrize(
    "template", ["/etc/{frame}.jpg", "../{frame}.jpg", "a/../../{frame}.jpg", "C:/{frame}.jpg", "a\\{frame}.jpg"]
)
def test_templates_stay_in_the_folder(template):
    with pytest.raises(ValueError, match="template"):
        ImageFiles(template=template)


@pytest.mark.parametrize("values", [{"first": -1}, {"step": 0}, {"first": 1.5}, {"step": True}])
def test_numbers_are_checked(values):
    with pytest.raises(ValueError, match="expected a whole number"):
        ImageFiles(template="{frame}.jpg", **values)


def test_column_of_the_store_is_read_back():
    place = ImageFiles(template="a/{frame:03d}.png", first=2, step=3)
    assert place_of(json.dumps(place.to_plain()), "A/walk/0") == place
    assert place_of("{}", "A/walk/0") is None
    assert place_of(json.dumps(RENDERED), "A/walk/0") is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nonsense",
        "[]",
        "3",
        '{"kind": "video"}',
        '{"kind": "files"}',
        '{"kind": "files", "template": 3, "first": 0, "step": 1}',
        '{"kind": "files", "template": "/{frame}", "first": 0, "step": 1}',
        '{"kind": "files", "template": "{frame}", "first": "0", "step": 1}',
        '{"kind": "files", "template": "{frame}", "first": 0, "step": 1, "more": 2}',
    ],
)
def test_damaged_column_is_refused_with_the_sequence(text):
    with pytest.raises(ValueError, match="A/walk/0"):
        place_of(text, "A/walk/0")
