"""Captions say the scene, the parser reads it back, and the two sets of wordings are disjoint."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.tasks.image.shapes.captions import (
    ENDINGS,
    PREFIXES,
    SEALED,
    TRAINED,
    UNSEEN,
    caption,
    slots,
)
from workbench.tasks.image.shapes.parse import parse_caption
from workbench.tasks.image.shapes.scene import Scene, Thing, forget, sample_scene

LANGUAGES = ("en", "vi")


@settings(max_examples=300, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    things=st.sampled_from([1, 2]),
    language=st.sampled_from(LANGUAGES),
    wording=st.sampled_from(["trained", "unseen"]),
    partial=st.booleans(),
)
def test_parser_reads_what_the_caption_says(seed, things, language, wording, partial):
    rng = np.random.default_rng(seed)
    scene = sample_scene(rng, things)
    if partial:
        scene = forget(scene, rng)
    text = caption(scene, rng, language, wording)
    read = parse_caption(text)
    assert read is not None, text
    assert read.canonical() == scene.canonical(), text


@pytest.mark.parametrize("language", LANGUAGES)
def test_unseen_wordings_are_disjoint_from_trained_ones(language):
    """No unseen wording is a trained template, with or without its prefixes and endings."""
    new = {*UNSEEN[language], *SEALED[language]}
    assert len(new) == len(UNSEEN[language]) + len(SEALED[language])
    assert not new & set(TRAINED[language])
    openings = {re.split(r"\{", template)[0].strip(" ,") for template in new}
    assert not openings & set(PREFIXES[language])
    for template in new:
        for trained in TRAINED[language]:
            assert template not in {f"{prefix} {trained}" for prefix in PREFIXES[language]}
            assert template not in {trained + ending for ending in ENDINGS[language]}


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_kind_of_scene_has_wordings(language):
    kinds = {slots(template) for template in TRAINED[language]}
    assert kinds == {slots(template) for template in UNSEEN[language]}
    assert len(kinds) == 8


@pytest.mark.parametrize(
    ("text", "scene"),
    [
        ("a red circle on a white background", Scene((Thing("red", "circle"),), "white")),
        ("A RED circle!", Scene((Thing("red", "circle"),))),
        (
            "một hình tròn màu đỏ trên nền trắng",
            Scene((Thing("red", "circle"),), "white"),
        ),
        (
            "vẽ một hình vuông lớn màu xanh dương ở góc trên bên trái trên nền đen",
            Scene((Thing("blue", "square", "large", "top left"),), "black"),
        ),
        (
            "a large green ring in the bottom right corner against dark blue",
            Scene((Thing("green", "ring", "large", "bottom right"),), "navy"),
        ),
        (
            "above a blue square there is a red circle",
            Scene((Thing("red", "circle"), Thing("blue", "square")), None, "above"),
        ),
        (
            "a blue square with a red circle above it",
            Scene((Thing("red", "circle"), Thing("blue", "square")), None, "above"),
        ),
    ],
)
def test_spelled_prompts(text, scene):
    read = parse_caption(text)
    assert read is not None and read.canonical() == scene.canonical()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "an astronaut rides a horse",
        "a white circle",  # white can only be a background
        "a red green circle",
        "a red circle, a blue square and a pink heart",
        "a red circle at the top and a blue square at the top",
        "a red circle on the left and the right",
    ],
)
def test_unclear_prompts_are_not_guessed(text):
    assert parse_caption(text) is None


def test_unicode_forms_read_alike():
    import unicodedata

    text = "một hình tròn màu đỏ trên nền trắng"
    assert parse_caption(unicodedata.normalize("NFD", text)) == parse_caption(text)
