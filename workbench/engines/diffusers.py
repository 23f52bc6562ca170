"""Draws pictures with a diffusers pipeline from a folder. Only safetensors weights are opened.

A pipeline is not thread-safe, so one drawing runs at a time; it runs in a thread of its own, and
`DiffusersModel.draw` hands its steps on as they happen. There is no preview of a step: decoding
one costs as much as several steps.

Threads are left to torch (one a core) unless the request or ``WORKBENCH_THREADS`` says a number:
more threads than idle cores made a drawing up to 5 times slower. The number holds for torch in
the whole process.
"""

from __future__ import annotations

import gc
import inspect
import json
import math
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.engines.allocator import return_large_blocks
from workbench.engines.base import DrawnImages, ImageOptions, ImageStep, StopCheck, never_stop
from workbench.engines.diffusers_folder import is_out_of_memory, open_pipeline, text_encoders
from workbench.engines.samplers import find_sampler
from workbench.engines.worker import Emit, iterate, torch_thread
from workbench.errors import (
    Cancelled,
    DoesNotFit,
    UnknownOption,
    UserInputError,
    WorkbenchError,
)
from workbench.memory.matrix import check
from workbench.memory.request import LoadOptions
from workbench.settings import get_settings

if TYPE_CHECKING:
    from workbench.models.spec import ModelSpec

#: Height and width must be divisible by this in every pipeline, whatever its autoencoder does.
_PIPELINE_MULTIPLE_PX = 8
_POLL_SECONDS = 0.05


class DiffusersModel:
    """A text-to-image pipeline on one device. Use `load`."""

    def __init__(self, spec: ModelSpec, pipe: Any, dtype: str, device: str) -> None:
        self.spec = spec
        self._pipe: Any = pipe
        self._scheduler = pipe.scheduler
        self._denoiser = getattr(pipe, "unet", None) or pipe.transformer
        self._parameters = set(inspect.signature(pipe.__call__).parameters)
        self._dtype = dtype
        self._device = device
        self._lock = threading.Lock()

    def close(self) -> None:
        """Free the memory, after a running drawing has ended."""
        with self._lock:
            if self._pipe is None:
                return
            self._pipe = self._scheduler = self._denoiser = None
        # hooks and the layers that they read weights for hold each other
        gc.collect()
        if self._device != "cpu":
            import torch

            torch.cuda.empty_cache()

    def draw(
        self, options: ImageOptions, should_stop: StopCheck = never_stop
    ) -> Iterator[ImageStep | DrawnImages]:
        """Yield one `ImageStep` a step, then one `DrawnImages`.

        A batch is denoised at once. Against single pictures with the same seeds, a value of its
        pictures was off by at most 1 of 255 in float32 (fewer than 1 in 1000 values).

        Raises UnknownOption (sampler, size), UserInputError (a text longer than the model reads,
        more steps than it was trained with), Cancelled within one step, DoesNotFit when memory
        runs out, WorkbenchError when the pictures are not numbers.
        """

        def work(emit: Emit[ImageStep | DrawnImages | None]) -> None:
            def stopped() -> bool:
                # a reader who left is known only to `emit`
                return emit(None) or should_stop()

            emit(self._draw_alone(options, emit, stopped))

        with closing(iterate(work, on=torch_thread, should_stop=should_stop)) as events:
            for event in events:
                if event is not None:
                    yield event

    # -- inside ------------------------------------------------------------------------------

    def _draw_alone(
        self,
        options: ImageOptions,
        report: Emit[ImageStep | DrawnImages | None],
        stopped: StopCheck,
    ) -> DrawnImages:
        while not self._lock.acquire(timeout=_POLL_SECONDS):
            _stop_if(stopped)
        try:
            if self._pipe is None:
                raise RuntimeError(f"{self.spec.id} was closed")
            return self._draw_locked(options, report, stopped)
        finally:
            self._lock.release()

    def _draw_locked(
        self,
        options: ImageOptions,
        report: Emit[ImageStep | DrawnImages | None],
        stopped: StopCheck,
    ) -> DrawnImages:
        import torch

        started = time.perf_counter()
        pipe = self._pipe
        width, height = self._size(options)
        scheduler = self._new_scheduler(options)
        arguments = self._arguments(options)
        marks = {"encoded": 0.0, "denoised": 0.0}
        done = 0

        def before_evaluation(*_: object) -> None:
            marks["encoded"] = marks["encoded"] or time.perf_counter()
            _stop_if(stopped)

        def advance(now_done: int) -> None:
            nonlocal done
            if now_done > done:
                done = now_done
                report(ImageStep(done, options.steps))
            marks["denoised"] = time.perf_counter()
            # raising leaves the pipeline at once; its own interrupt flag would still decode
            _stop_if(stopped)

        def after_evaluation(_: Any, index: int, __: Any, tensors: Any) -> dict[str, Any]:
            # samplers of second order evaluate the model twice for most steps
            advance((index + 1) * options.steps // len(scheduler.timesteps))
            return {}

        def after_step(index: int, *_: object) -> None:
            advance(min(index + 1, options.steps))

        hook = self._denoiser.register_forward_pre_hook(before_evaluation)
        pipe.scheduler = scheduler
        try:
            pixels = pipe(
                **arguments,
                width=width,
                height=height,
                generator=[
                    torch.Generator("cpu").manual_seed(options.seed + i)
                    for i in range(options.batch)
                ],
                output_type="pt",
                **(
                    {"callback_on_step_end": after_evaluation}
                    if "callback_on_step_end" in self._parameters
                    else {"callback": after_step, "callback_steps": 1}
                ),
            ).images
        except (RuntimeError, MemoryError) as error:
            if is_out_of_memory(error):
                raise DoesNotFit(
                    f"Memory ran out while drawing {options.batch} of {width}x{height} pixels.",
                    "Draw fewer at once or smaller ones.",
                ) from None
            raise
        finally:
            pipe.scheduler = self._scheduler
            hook.remove()
        if not torch.isfinite(pixels).all():
            raise WorkbenchError(
                f"{self.spec.id} drew values that are not numbers with {options.sampler!r} "
                f"in {self._dtype}.",
                "Use another sampler, more steps, or float32.",
            )
        # the same two functions that output_type="pil" ends with
        images = pipe.image_processor.numpy_to_pil(pipe.image_processor.pt_to_numpy(pixels))
        ended = time.perf_counter()
        return DrawnImages(
            images=tuple(images),
            phase_seconds={
                "encode_prompt": marks["encoded"] - started,
                "denoise": marks["denoised"] - marks["encoded"],
                "decode": ended - marks["denoised"],
            },
            runtime={
                "scheduler": {"class": type(scheduler).__name__, **_plain(scheduler.config)},
                "dtype": self._dtype,
                "device": self._device,
                "safety_check": None,
            },
        )

    def _new_scheduler(self, options: ImageOptions) -> Any:
        """A scheduler of this request alone: the next request starts from the model's own."""
        import diffusers

        allowed = {cls.__name__ for cls in self._scheduler.compatibles}
        sampler = find_sampler(options.sampler, allowed)
        trained_steps = self._scheduler.config.num_train_timesteps
        if not 1 <= options.steps <= trained_steps:
            raise UserInputError(
                f"{self.spec.id} cannot draw in {options.steps} steps.",
                f"Use 1 to {trained_steps} steps.",
            )
        cls = getattr(diffusers, sampler.scheduler)
        return cls.from_config(self._scheduler.config, **sampler.settings)

    def _size(self, options: ImageOptions) -> tuple[int, int]:
        """(width, height) in pixels. Raises UnknownOption for one that it cannot make."""
        # Flux states it in the pipeline alone, Stable Diffusion in the denoiser alone
        native = getattr(self._pipe, "default_sample_size", None)
        native = native or self._denoiser.config.sample_size
        rows, columns = (native, native) if isinstance(native, int) else native
        width = options.width or columns * self._pipe.vae_scale_factor
        height = options.height or rows * self._pipe.vae_scale_factor
        for name, side, known in (
            ("wide", width, self.spec.options.get("widths")),
            ("high", height, self.spec.options.get("heights")),
        ):
            if known and side not in known:
                raise UnknownOption(
                    f"{self.spec.id} cannot draw {width}x{height}: it is not {side} pixels {name}.",
                    f"It can be {' or '.join(map(str, known))} {name}.",
                )
        patch = self._denoiser.config.get("patch_size")
        multiple = math.lcm(
            _PIPELINE_MULTIPLE_PX,
            self._pipe.image_processor.config.vae_scale_factor,
            self._pipe.vae_scale_factor * (patch if isinstance(patch, int) else 1),
        )
        if width % multiple or height % multiple:
            near = [max(multiple, round(side / multiple) * multiple) for side in (width, height)]
            raise UnknownOption(
                f"{self.spec.id} cannot draw {width}x{height}: "
                f"width and height must be multiples of {multiple}.",
                f"The nearest size is {near[0]}x{near[1]}.",
            )
        return width, height

    def _arguments(self, options: ImageOptions) -> dict[str, Any]:
        """What the pipeline is called with. Raises rather than leave something out."""
        self._check_window("prompt", options.prompt)
        arguments: dict[str, Any] = {
            "prompt": options.prompt,
            "num_inference_steps": options.steps,
            "guidance_scale": options.guidance_scale,
            "num_images_per_prompt": options.batch,
        }
        # Some would draw the nearest of their own sizes and resize it, which was not planned, and
        # clean the prompt only where two more packages happen to be installed.
        exact = {"use_resolution_binning": False, "clean_caption": False}
        arguments |= {name: value for name, value in exact.items() if name in self._parameters}
        if options.negative_prompt:
            if options.guidance_scale <= 1:
                raise UserInputError(
                    f"A negative prompt has no effect at guidance scale {options.guidance_scale}.",
                    "Use a guidance scale above 1, or no negative prompt.",
                )
            if "negative_prompt" not in self._parameters:
                raise UnknownOption(
                    f"{self.spec.id} knows no negative prompt.", "Leave the negative prompt out."
                )
            self._check_window("negative prompt", options.negative_prompt)
            arguments["negative_prompt"] = options.negative_prompt
        return arguments

    def _check_window(self, what: str, text: str) -> None:
        """Raises UserInputError when no text encoder can read all of ``text``."""
        excess = []
        for tokenizer, _ in text_encoders(self._pipe):
            marks = tokenizer.num_special_tokens_to_add(pair=False)
            window = tokenizer.model_max_length - marks
            count = len(tokenizer(text, verbose=False).input_ids) - marks
            if count <= window:
                return
            excess.append((window, count))
        if excess:
            window, count = max(excess)
            raise UserInputError(
                f"The {what} has {count} tokens; {self.spec.id} reads {window}.",
                f"Shorten it by {count - window} tokens.",
            )


def load(spec: ModelSpec, path: Path, options: LoadOptions) -> DiffusersModel:
    """Load the pipeline in the folder ``path``.

    dtype: the request's, then ``compute_type`` of the entry's options, then the entry's dtype,
    then float32 (also where the files hold half of it: a folder that a user names is computed
    in float32, and planned so). Weights are cast while they are read. Raises UnknownOption (what
    `workbench.memory.matrix` refuses, with its reason), UserInputError (not such a folder,
    pickled weights, a pipeline that cannot report its steps).
    """
    dtype = options.compute_type or spec.options.get("compute_type") or spec.dtype or "float32"
    options = replace(options, compute_type=dtype)
    check(spec.id, "diffusers", spec.task, options)
    return_large_blocks()
    threads = options.threads or get_settings().threads
    if threads:
        import torch

        torch.set_num_threads(threads)
    pipe = open_pipeline(path, spec.options.get("variant"), dtype, options)
    return DiffusersModel(spec, pipe, dtype, options.device)


def _stop_if(stopped: StopCheck) -> None:
    if stopped():
        raise Cancelled("The drawing was stopped before it was finished.")


def _plain(config: Any) -> dict[str, Any]:
    """A scheduler's configuration as JSON types, without the library's private keys."""
    public = {key: value for key, value in config.items() if not key.startswith("_")}
    plain: dict[str, Any] = json.loads(json.dumps(public, default=lambda value: value.tolist()))
    return plain
