"""`workbench.draw`: from a text to `Pictures`."""

from __future__ import annotations

import math
import secrets
from collections.abc import Generator, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Literal, overload

from workbench import models
from workbench.engines.base import DrawnImages, ImageModel, ImageOptions, ImageStep, StopCheck
from workbench.engines.pool import default_pool
from workbench.errors import UserInputError
from workbench.memory.request import RequestSize
from workbench.models import sources
from workbench.models.spec import ModelSpec
from workbench.settings import get_settings
from workbench.tasks.image.metadata import RECIPE_VERSION
from workbench.tasks.image.types import Pictures
from workbench.tasks.record import Recorder, environment
from workbench.tasks.stream import Stream
from workbench.units import parse_size

if TYPE_CHECKING:
    from PIL.Image import Image

_LIBRARIES = ("python", "platform", "workbench", "torch", "transformers", "diffusers", "numpy")
#: Random seeds stay below this, so that every tool can hold them exactly.
_RANDOM_SEEDS = 2**32
_SEEDS = 2**63


@overload
def draw(
    prompt: str,
    *,
    model: str | None = ...,
    negative_prompt: str = ...,
    size: str | Sequence[int] | None = ...,
    steps: int | None = ...,
    guidance_scale: float | None = ...,
    sampler: str | None = ...,
    seed: int | None = ...,
    batch: int = ...,
    stream: Literal[False] = ...,
) -> Pictures: ...


@overload
def draw(
    prompt: str,
    *,
    model: str | None = ...,
    negative_prompt: str = ...,
    size: str | Sequence[int] | None = ...,
    steps: int | None = ...,
    guidance_scale: float | None = ...,
    sampler: str | None = ...,
    seed: int | None = ...,
    batch: int = ...,
    stream: Literal[True],
) -> Stream[ImageStep, Pictures]: ...


def draw(
    prompt: str,
    *,
    model: str | None = None,
    negative_prompt: str = "",
    size: str | Sequence[int] | None = None,
    steps: int | None = None,
    guidance_scale: float | None = None,
    sampler: str | None = None,
    seed: int | None = None,
    batch: int = 1,
    stream: bool = False,
) -> Pictures | Stream[ImageStep, Pictures]:
    """Draw ``batch`` pictures of ``prompt``.

    * ``size``: ``"WxH"`` or (width, height) in pixels. ``sampler``: a name of
      `workbench.engines.samplers`. ``guidance_scale``: 1 is no guidance.
      What is None comes from the model's catalogue entry.
    * ``seed``: of the first picture; picture ``i`` uses ``seed + i``. None: a random one, which
      ``result.seeds`` tells.

    With ``stream`` the events are one `ImageStep` a step. A drawing that is stopped has no
    pictures: it ends with Cancelled, within one step.

    A model of the shapes world is scored by its exact checker where the prompt can be read
    back: ``record.quality`` then holds the share of pictures in which everything asked for is
    right (``all_right``), the same for each attribute, and the mean overlap (``soft_iou``).

    Raises UnknownModel, UnknownOption, UserInputError, ModelMissing, DoesNotFit.
    """
    spec = models.get(model or get_settings().models.image, task="image")
    options = _options(
        spec, prompt, negative_prompt, size, steps, guidance_scale, sampler, seed, batch
    )
    recorder = Recorder("image", spec, asdict(options))
    running: Stream[ImageStep, Pictures] = Stream(
        lambda should_stop: _run(options, recorder, should_stop)
    )
    return running if stream else running.result


def _options(
    spec: ModelSpec,
    prompt: str,
    negative_prompt: str,
    size: str | Sequence[int] | None,
    steps: int | None,
    guidance_scale: float | None,
    sampler: str | None,
    seed: int | None,
    batch: int,
) -> ImageOptions:
    """The request with the model's defaults in it. Raises UserInputError."""
    defaults = spec.defaults
    if sampler is None:
        sampler = defaults.get("sampler", ImageOptions.sampler)
    texts = {"prompt": prompt, "negative prompt": negative_prompt, "sampler": sampler}
    for name, text in texts.items():
        if not isinstance(text, str):
            raise UserInputError(f"The {name} is not a text: {text!r}.", "Give one text.")
    width, height = defaults.get("width"), defaults.get("height")
    if size is not None:
        width, height = _size(size)
    if guidance_scale is None:
        guidance_scale = defaults.get("guidance_scale", ImageOptions.guidance_scale)
    if not isinstance(guidance_scale, int | float) or not 1 <= guidance_scale < math.inf:
        raise UserInputError(
            f"The guidance scale cannot be {guidance_scale!r}.", "Use 1 (no guidance) or more."
        )
    batch = _whole("batch", batch, 1)
    if seed is None:
        seed = secrets.randbelow(_RANDOM_SEEDS - batch)
    return ImageOptions(
        prompt=prompt,
        negative_prompt=negative_prompt,
        width=width,
        height=height,
        steps=_whole("steps", defaults.get("steps", 20) if steps is None else steps, 1),
        guidance_scale=float(guidance_scale),
        sampler=sampler,
        seed=_whole("seed", seed, 0, _SEEDS - batch),
        batch=batch,
    )


def _whole(name: str, value: int, low: int, high: int = _SEEDS) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        upper = f" to {high}" if high < _SEEDS else " or more"
        raise UserInputError(f"{name} cannot be {value!r}.", f"Use a whole number, {low}{upper}.")
    return value


def _size(size: str | Sequence[int]) -> tuple[int, int]:
    if isinstance(size, str):
        return parse_size(size)
    if len(size) != 2:
        raise UserInputError(f"{size!r} is not a picture size.", "Give (width, height) in pixels.")
    return _whole("width", size[0], 1), _whole("height", size[1], 1)


def _run(
    options: ImageOptions, recorder: Recorder, should_stop: StopCheck
) -> Generator[ImageStep, None, Pictures]:
    drawn: DrawnImages | None = None
    with recorder, ExitStack() as held:
        with recorder.phase("load"):
            model: ImageModel = held.enter_context(
                default_pool().acquire(
                    recorder.spec, size=_request_size(options), should_stop=should_stop
                )
            )
            recorder.uses(model)
        recorder.mark("denoise")
        for event in model.draw(options, should_stop):
            if isinstance(event, DrawnImages):
                drawn = event
            else:
                if event.done == event.total:
                    recorder.mark("decode_image")
                yield event
    assert drawn is not None, "an engine yields the pictures or raises"
    recorder.phase_seconds.update(drawn.phase_seconds)
    seconds = sum(drawn.phase_seconds.values())
    recorder.metrics.update(
        seconds_per_image=seconds / options.batch,
        seconds_per_step=drawn.phase_seconds.get("denoise", 0.0) / options.steps,
    )
    if recorder.spec.options.get("quality") == "shapes":
        recorder.quality.update(score_shapes(options.prompt, drawn.images))
    seeds = tuple(options.seed + i for i in range(options.batch))
    return Pictures(
        images=drawn.images,
        seeds=seeds,
        recipe=_recipe(recorder.spec, options, seeds, drawn),
        seconds=seconds,
        record=recorder.finish(),
    )


def _request_size(options: ImageOptions) -> RequestSize:
    return RequestSize(
        width=options.width,
        height=options.height,
        batch=options.batch,
        guided=options.guidance_scale > 1,
    )


def score_shapes(prompt: str, images: Sequence[Image]) -> dict[str, float]:
    """Shares of ``images`` (0 to 1) that show what ``prompt`` says; empty if it cannot be read."""
    import numpy as np

    from workbench.tasks.image.shapes.checker import check
    from workbench.tasks.image.shapes.parse import parse_caption

    scene = parse_caption(prompt)
    if scene is None:
        return {}
    results = [check(np.asarray(image.convert("RGB")), scene) for image in images]
    columns: dict[str, list[float]] = {"all_right": [float(r.all_right) for r in results]}
    for name in asdict(results[0]):
        said = [getattr(result, name) for result in results]
        if None not in said:  # an attribute that the prompt does not name has no score
            columns[name] = [float(value) for value in said]
    return {name: sum(values) / len(values) for name, values in columns.items()}


def _recipe(
    spec: ModelSpec, options: ImageOptions, seeds: tuple[int, ...], drawn: DrawnImages
) -> dict[str, Any]:
    """Everything that made the pictures; the keys are `draw`'s where it has them."""
    width, height = drawn.images[0].size
    versions = environment()
    return {
        "version": RECIPE_VERSION,
        "task": "text-to-image",
        "prompt": options.prompt,
        "negative_prompt": options.negative_prompt,
        "size": f"{width}x{height}",
        "steps": options.steps,
        "guidance_scale": options.guidance_scale,
        "sampler": options.sampler,
        "seeds": list(seeds),
        "model": {
            "id": spec.id,
            "sha256": sources.digest(spec),
            "files": {file.name: file.sha256 for file in spec.files},
        },
        **drawn.runtime,
        "libraries": {name: versions[name] for name in _LIBRARIES},
    }
