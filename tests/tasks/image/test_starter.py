"""The starter image model, end to end."""

from __future__ import annotations

import numpy as np
import pytest

import workbench
from workbench.tasks.image import SAMPLERS

pytestmark = [pytest.mark.models, pytest.mark.filterwarnings("ignore::DeprecationWarning")]

PROMPTS = (
    "a large red circle in the center on a white background",
    "a small blue square in the top left on a black background",
    "a large yellow triangle in the bottom right on a navy background",
    "a small green ring in the top on a gray background",
    "a large purple heart in the left on a white background",
    "a large orange cross in the center on a black background",
    "a red circle above a blue square on a white background",
    "một hình tròn màu đỏ lớn ở giữa trên nền trắng",
)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_draws_a_picture(sampler: str) -> None:
    pictures = workbench.draw(PROMPTS[0], model="shapes-32", sampler=sampler, steps=6, seed=1)
    assert np.asarray(pictures.images[0]).std() > 1
    assert pictures.recipe["scheduler"]["class"] == SAMPLERS[sampler].scheduler


def test_a_recipe_gives_identical_pixels() -> None:
    first = workbench.draw(PROMPTS[0], model="shapes-32")
    again = workbench.draw(PROMPTS[0], model="shapes-32", seed=first.recipe["seeds"][0])
    assert first.images[0].tobytes() == again.images[0].tobytes()
    assert first.recipe == again.recipe


def test_pictures_follow_the_prompts() -> None:
    right = [
        workbench.draw(prompt, model="shapes-32", seed=11).record.quality["all_right"]
        for prompt in PROMPTS
    ]
    assert sum(right) >= 7, dict(zip(PROMPTS, right, strict=True))
