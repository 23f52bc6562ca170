"""`workbench.draw` on an engine that computes nothing."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

import workbench
from workbench.engines.base import ImageOptions, ImageStep
from workbench.engines.pool import ModelPool
from workbench.errors import Cancelled, UnknownModel, UnknownOption, UserInputError
from workbench.tasks.image.run import score_shapes
from workbench.tasks.image.shapes.render import render
from workbench.tasks.image.shapes.scene import Scene, Thing
from workbench.tasks.record import Record, observe

pytestmark = pytest.mark.usefixtures("stub_models", "own_pool")

DEFAULTS = {"steps": 3, "guidance_scale": 2.0, "sampler": "DDIM", "width": 48, "height": 40}


@pytest.fixture
def last_options(monkeypatch: pytest.MonkeyPatch) -> list[ImageOptions]:
    """What the engine was asked, one entry a drawing."""
    from workbench.engines.stub import StubModel

    asked: list[ImageOptions] = []
    original = StubModel.draw

    def draw(self: StubModel, options: ImageOptions, *rest: Any) -> Any:
        asked.append(options)
        return original(self, options, *rest)

    monkeypatch.setattr(StubModel, "draw", draw)
    return asked


def test_defaults_come_from_the_catalogue(
    write_model: Callable[..., str], last_options: list[ImageOptions]
) -> None:
    name = write_model("drawer", task="image", defaults=DEFAULTS)
    workbench.draw("một hình tròn", model=name, seed=5)
    assert last_options == [ImageOptions("một hình tròn", "", 48, 40, 3, 2.0, "DDIM", 5, 1)]


def test_the_request_wins_over_the_defaults(
    write_model: Callable[..., str], last_options: list[ImageOptions]
) -> None:
    name = write_model("drawer", task="image", defaults=DEFAULTS)
    workbench.draw(
        "a",
        model=name,
        negative_prompt="b",
        size="64x32",
        steps=2,
        guidance_scale=1,
        sampler="Euler a",
        seed=9,
        batch=2,
    )
    assert last_options == [ImageOptions("a", "b", 64, 32, 2, 1.0, "Euler a", 9, 2)]


def test_a_size_may_be_a_pair() -> None:
    assert workbench.draw("a", size=(64, 32)).images[0].size == (64, 32)


def test_a_random_seed_is_told_and_repeats_the_pictures() -> None:
    first, second = workbench.draw("a", batch=3), workbench.draw("a")
    assert first.seeds == tuple(range(first.seeds[0], first.seeds[0] + 3))
    assert first.seeds[0] != second.seeds[0]
    again = workbench.draw("a", seed=first.seeds[1])
    assert again.images[0].tobytes() == first.images[1].tobytes()


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"prompt": 5}, "The prompt is not a text"),
        ({"prompt": "a", "negative_prompt": None}, "The negative prompt is not a text"),
        ({"prompt": "a", "sampler": 3}, "The sampler is not a text"),
        ({"prompt": "a", "size": "big"}, "not a picture size"),
        ({"prompt": "a", "size": (1, 2, 3)}, "not a picture size"),
        ({"prompt": "a", "size": (32, 0)}, "height cannot be 0"),
        ({"prompt": "a", "size": (32.5, 32)}, "width cannot be 32.5"),
        ({"prompt": "a", "steps": 0}, "steps cannot be 0"),
        ({"prompt": "a", "steps": True}, "steps cannot be True"),
        ({"prompt": "a", "guidance_scale": 0.5}, "guidance scale cannot be 0.5"),
        ({"prompt": "a", "guidance_scale": float("nan")}, "guidance scale cannot be nan"),
        ({"prompt": "a", "batch": 0}, "batch cannot be 0"),
        ({"prompt": "a", "seed": -1}, "seed cannot be -1"),
        ({"prompt": "a", "seed": 2**63 - 1, "batch": 2}, "seed cannot be"),
    ],
)
def test_a_wrong_request_is_refused_before_anything_is_loaded(
    request_: dict[str, Any], message: str, own_pool: ModelPool
) -> None:
    with pytest.raises(UserInputError, match=message):
        workbench.draw(**request_, stream=True)
    assert own_pool.loaded() == []


def test_another_kind_of_model_is_refused(stub_models: dict[str, str]) -> None:
    with pytest.raises(UnknownModel, match="not image"):
        workbench.draw("a", model=stub_models["chat"])


def test_what_the_engine_refuses_reaches_the_caller_and_the_record() -> None:
    records: list[Record] = []
    with observe(records.append), pytest.raises(UnknownOption, match="no such sampler"):
        workbench.draw("a", sampler="no such sampler")
    assert [record.error for record in records] == [
        "UnknownOption: There is no sampler 'no such sampler'. Use DPM++ 2M."
    ]


def test_a_stream_gives_steps_and_then_the_pictures() -> None:
    stream = workbench.draw("a", steps=4, seed=1, stream=True)
    assert list(stream) == [ImageStep(done, 4) for done in (1, 2, 3, 4)]
    assert stream.result.images[0].tobytes() == workbench.draw("a", seed=1).images[0].tobytes()


def test_a_stopped_stream_ends_with_cancelled_and_frees_the_model(own_pool: ModelPool) -> None:
    stream = workbench.draw("a", steps=4, stream=True)
    next(iter(stream))
    assert [row.users for row in own_pool.loaded()] == [1]
    stream.stop()
    with pytest.raises(Cancelled):
        list(stream)
    assert [row.users for row in own_pool.loaded()] == [0]


def test_a_closed_stream_frees_the_model(own_pool: ModelPool) -> None:
    stream = workbench.draw("a", stream=True)
    next(iter(stream))
    stream.close()
    assert [row.users for row in own_pool.loaded()] == [0]


def test_the_record_has_request_phases_and_metrics() -> None:
    records: list[Record] = []
    with observe(records.append):
        pictures = workbench.draw("a", seed=3, batch=2, steps=5)
    assert records == [pictures.record]
    assert pictures.record.task == "image"
    assert pictures.record.request["prompt"] == "a"
    assert pictures.record.request["seed"] == 3
    assert {"load", "encode_prompt", "denoise", "decode", "total"} == set(
        pictures.record.phase_seconds
    )
    assert set(pictures.record.metrics) == {"seconds_per_image", "seconds_per_step"}
    assert pictures.record.quality == {}
    assert pictures.record.error is None


def test_the_recipe_has_the_names_of_draw() -> None:
    pictures = workbench.draw("đỏ", negative_prompt="b", seed=3, batch=2, steps=5, size="16x8")
    recipe = pictures.recipe
    again = workbench.draw(
        recipe["prompt"],
        model=recipe["model"]["id"],
        seed=recipe["seeds"][0],
        batch=len(recipe["seeds"]),
        **{
            name: recipe[name]
            for name in ("negative_prompt", "size", "steps", "guidance_scale", "sampler")
        },
    )
    assert again.recipe == recipe
    assert [image.tobytes() for image in again.images] == [
        image.tobytes() for image in pictures.images
    ]
    assert recipe["version"] == 1
    assert recipe["task"] == "text-to-image"
    assert recipe["libraries"]["diffusers"][0].isdigit()


# -- the exact checker ----------------------------------------------------------------------

SCENE = Scene((Thing("red", "circle", "large", "center"),), "white")


def picture(scene: Scene) -> Any:
    from PIL import Image

    return Image.fromarray(render([scene])[0][0])


def test_pictures_of_shapes_are_scored_where_the_prompt_can_be_read() -> None:
    right = picture(SCENE)
    wrong = picture(Scene((Thing("blue", "circle", "large", "center"),), "white"))
    found = score_shapes("a large red circle in the center on a white background", [right, wrong])
    assert found["all_right"] == 0.5
    assert found["colour"] == 0.5
    assert found["shape"] == found["size"] == found["position"] == found["background"] == 1.0
    assert found["soft_iou"] > 0.8
    assert "relation" not in found


def test_a_prompt_that_cannot_be_read_has_no_score() -> None:
    assert score_shapes("a portrait of my aunt", [picture(SCENE)]) == {}


def test_only_models_of_shapes_are_scored(write_model: Callable[..., str]) -> None:
    plain = write_model("plain", task="image")
    shapes = write_model("checked", task="image", options={"quality": "shapes"})
    prompt = "a red circle on a white background"
    assert workbench.draw(prompt, model=plain).record.quality == {}
    assert workbench.draw(prompt, model=shapes, size="32x32").record.quality["all_right"] == 0.0
    assert workbench.draw("something", model=shapes, size="32x32").record.quality == {}


def test_importing_the_task_loads_nothing_heavy() -> None:
    code = (
        "import sys, workbench.tasks.image\n"
        "print([m for m in ('torch', 'diffusers', 'transformers', 'PIL', 'numpy') "
        "if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
