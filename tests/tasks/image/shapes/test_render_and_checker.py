"""The checker must be right on rendered pictures, and must reject wrong ones."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.tasks.image.shapes.checker import check, look, soft_iou
from workbench.tasks.image.shapes.render import SIDE_PX, render
from workbench.tasks.image.shapes.scene import (
    BACKGROUNDS,
    COLOURS,
    HELD_OUT,
    POSITIONS,
    RELATIONS,
    SHAPES,
    SIZES,
    Scene,
    Thing,
    sample_scene,
)


def single(colour="red", shape="circle", size="large", position="center", background="white"):
    return Scene((Thing(colour, shape, size, position),), background)


PAIR = Scene((Thing("red", "circle"), Thing("blue", "square")), "white", "above")


@pytest.mark.parametrize(("things", "least"), [(1, 1.0), (2, 0.98)])
def test_rendered_pictures_are_right(things, least):
    rng = np.random.default_rng(11)
    scenes = [sample_scene(rng, things) for _ in range(300)]
    images, _ = render(scenes, rng)
    results = [check(image, scene) for image, scene in zip(images, scenes, strict=True)]
    assert np.mean([result.all_right for result in results]) >= least
    assert np.mean([result.soft_iou for result in results]) > 0.97


def test_every_single_scene_without_jitter_is_right():
    scenes = [
        single(colour, shape, size, position, background)
        for colour in COLOURS
        for shape in SHAPES
        for size in SIZES
        for position, background in zip(POSITIONS, list(BACKGROUNDS) * 3, strict=False)
    ]
    images, _ = render(scenes)
    wrong = [s for i, s in zip(images, scenes, strict=True) if not check(i, s).all_right]
    assert wrong == []


@pytest.mark.parametrize(
    ("attribute", "change"),
    [
        ("background", {"background": "black"}),
        ("colour", {"colour": "green"}),
        ("shape", {"shape": "heart"}),
        ("size", {"size": "small"}),
        ("position", {"position": "top left"}),
    ],
)
def test_one_wrong_attribute_is_found(attribute, change):
    image = render([single()])[0][0]
    asked = single(**change)
    result = check(image, asked)
    assert getattr(result, attribute) is False
    assert not result.all_right
    others = {"background", "count", "colour", "shape", "size"} - {attribute}
    assert all(getattr(result, other) is True for other in others)


@pytest.mark.parametrize("relation", [name for name in RELATIONS if name != "above"])
def test_wrong_relation_is_found(relation):
    image = render([PAIR])[0][0]
    assert check(image, PAIR).all_right
    result = check(image, replace(PAIR, relation=relation))
    assert result.relation is False and result.colour and result.shape and not result.all_right


def test_swapped_colours_are_not_the_same_scene():
    swapped = replace(PAIR, things=(Thing("blue", "circle"), Thing("red", "square")))
    assert not check(render([PAIR])[0][0], swapped).all_right


def test_missing_and_extra_objects_are_found():
    one, two = render([single()])[0][0], render([PAIR])[0][0]
    assert check(one, PAIR).count is False
    assert check(two, single()).count is False


def test_unsaid_attributes_are_not_scored():
    image = render([single()])[0][0]
    result = check(image, Scene((Thing("red", "circle"),)))
    assert result.all_right
    assert (result.background, result.size, result.position, result.relation) == (None,) * 4


def test_empty_and_noisy_pictures_are_wrong():
    flat = np.full((SIDE_PX, SIDE_PX, 3), 245, np.uint8)
    assert check(flat, single()).count is False and not check(flat, single()).all_right
    assert not check(flat, PAIR).all_right
    noise = np.random.default_rng(0).integers(0, 256, flat.shape).astype(np.uint8)
    assert not check(noise, single()).all_right


def test_a_blob_is_no_shape():
    image = np.full((SIDE_PX, SIDE_PX, 3), 245, np.uint8)
    image[2:30, 15:17] = COLOURS["red"]
    assert check(image, Scene((Thing("red", "cross"),))).shape is False


def test_picture_of_another_size_is_refused():
    with pytest.raises(ValueError, match="expected a picture"):
        check(np.zeros((64, 64, 3), np.uint8), single())


def test_incomplete_scene_cannot_be_drawn():
    with pytest.raises(ValueError, match="unsaid"):
        render([Scene((Thing("red", "circle"),))])


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 2]), st.booleans())
def test_what_is_seen_is_what_was_drawn(seed, things, held_out):
    rng = np.random.default_rng(seed)
    scene = sample_scene(rng, things, held_out)
    pairs = {(thing.colour, thing.shape) for thing in scene.things}
    assert bool(pairs & HELD_OUT) == held_out
    image, mask = (batch[0] for batch in render([scene], rng))
    background, found = look(image)
    assert background == scene.background
    assert {(thing.colour, thing.shape) for thing in found} == pairs
    assert mask.min() >= 0.0 and mask.max() <= 1.0


def test_same_seed_same_pixels():
    scenes = [single(), PAIR]
    one, other = (render(scenes, np.random.default_rng(3))[0] for _ in range(2))
    assert np.array_equal(one, other)


def test_soft_iou_bounds():
    mask = np.eye(4)
    assert soft_iou(mask, mask) == 1.0
    assert soft_iou(mask, 1 - mask) == 0.0
    assert soft_iou(np.zeros(3), np.zeros(3)) == 1.0
