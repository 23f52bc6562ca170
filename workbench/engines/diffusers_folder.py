"""Opens the folder of a diffusers pipeline: safetensors only, and no code that lies in it."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

from workbench.engines.diffusers_offload import open_parts, place, store_in_fp8
from workbench.engines.diffusers_parts import read_parts
from workbench.engines.quantize import quantize_pipeline
from workbench.engines.quiet import quiet
from workbench.errors import UnknownOption, UserInputError
from workbench.memory.matrix import LARGEST_TILE_PIXELS
from workbench.memory.request import LoadOptions

_PICKLES = ("*.bin", "*.ckpt", "*.pt", "*.pth", "*.pkl")
#: Arguments of pipelines that are called after a step; PixArt has the older one.
STEP_CALLBACKS = {"callback_on_step_end", "callback"}
_LIBRARIES = (None, "diffusers", "transformers")


def open_pipeline(path: Path, variant: str | None, dtype: str, options: LoadOptions) -> Any:
    """The text-to-image pipeline of the folder ``path``, placed and stored as ``options`` say.

    Weights are cast to ``dtype`` while they are read. ``variant=None`` takes the ``fp16`` files
    where there are some: what the memory plan counts. ``options`` are ones that
    `workbench.memory.matrix` allows.

    Raises UserInputError (not such a folder, damaged, pickled weights, a pipeline that cannot
    report its steps), UnknownOption (a picture decoder that cannot tile), MemoryError.
    """
    index = _read_index(path)
    variant = variant or _found_variant(path)
    absent = {"safety_checker": None, "requires_safety_checker": False}
    with quiet("transformers", "diffusers"):
        import torch
        from diffusers import AutoPipelineForText2Image
        from safetensors import SafetensorError

        libraries = {name: part[0] for name, part in index.items() if isinstance(part, list)}
        parts = {name for name, library in libraries.items() if library is not None}
        try:
            given: dict[str, Any] = absent if "safety_checker" in index else {}
            if options.offload == "disk":
                given = given | open_parts(path, index, variant, dtype, options.device)
            elif options.quantization in (None, "fp8"):
                given = given | read_parts(path, index, variant, dtype)
            pipe = AutoPipelineForText2Image.from_pretrained(
                path,
                local_files_only=True,
                use_safetensors=True,
                variant=variant,
                dtype=getattr(torch, dtype),
                quantization_config=quantize_pipeline(
                    options.quantization, dtype, parts, libraries
                ),
                **given,
            )
            if options.quantization == "fp8":
                store_in_fp8(pipe, dtype)
            pipe = place(pipe, options)
        except (
            AttributeError,
            ImportError,
            KeyError,
            OSError,
            RuntimeError,
            SafetensorError,
            TypeError,
            ValueError,
        ) as error:
            if is_out_of_memory(error):
                raise MemoryError from None
            sentence = " ".join(str(error).split()).partition(". ")[0]
            raise _not_usable(path, sentence or type(error).__name__) from error
    if options.vae_tiling:
        _switch_on(pipe, "tiling")
        _limit_tiles(pipe.vae)
    if options.vae_slicing:
        _switch_on(pipe, "slicing")
    accepted = set(inspect.signature(pipe.__call__).parameters)
    if not accepted & STEP_CALLBACKS or "guidance_scale" not in accepted:
        raise _not_usable(path, f"{type(pipe).__name__} cannot report its steps")
    pipe.set_progress_bar_config(disable=True)
    _limit_windows(pipe)
    return pipe


def text_encoders(pipe: Any) -> list[tuple[Any, Any]]:
    """(tokenizer, text encoder) of every encoder that the pipeline has."""
    return [
        (tokenizer, getattr(pipe, f"text_encoder{number}", None))
        for number in ("", "_2", "_3")
        if (tokenizer := getattr(pipe, f"tokenizer{number}", None)) is not None
    ]


def is_out_of_memory(error: BaseException) -> bool:
    """Whether torch failed for want of memory, on whatever device."""
    # on a CPU torch raises a plain RuntimeError from its allocator
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or "can't allocate memory" in str(error)
    )


def _limit_windows(pipe: Any) -> None:
    """No tokenizer gives more tokens than its encoder reads; some are saved without a limit.

    A T5 reads any number, and the pipeline cuts its text at ``max_sequence_length``.
    """
    cut = inspect.signature(pipe.__call__).parameters.get("max_sequence_length")
    for tokenizer, encoder in text_encoders(pipe):
        positions = getattr(encoder.config, "max_position_embeddings", cut and cut.default)
        if positions:
            tokenizer.model_max_length = min(tokenizer.model_max_length, positions)


def _read_index(path: Path) -> dict[str, Any]:
    """``model_index.json``, checked: no pickles and no code from the folder will be opened."""
    try:
        index = json.loads((path / "model_index.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _not_usable(path, f"model_index.json cannot be read ({error})") from None
    if not isinstance(index, dict) or not isinstance(index.get("_class_name"), str):
        raise _not_usable(path, "model_index.json names no pipeline of diffusers")
    for name, part in index.items():
        if name.startswith("_") or not isinstance(part, list) or name == "safety_checker":
            continue
        if part[0] not in _LIBRARIES:
            raise _not_usable(path, f"its {name} asks for code from {part[0]!r}")
        folder = path / name
        pickled = [file.name for pattern in _PICKLES for file in folder.glob(pattern)]
        if pickled and not any(folder.glob("*.safetensors")):
            raise UserInputError(
                f"{folder} has only pickled weights ({pickled[0]}), which could run any code.",
                "Use a copy of the model with .safetensors weights.",
            )
    return index


def _found_variant(path: Path) -> str | None:
    """``fp16`` where the folder has such files: the choice that the memory plan makes."""
    return "fp16" if any(path.glob("*/*.fp16*.safetensors")) else None


def _not_usable(path: Path, why: str) -> UserInputError:
    return UserInputError(
        f"{path} is not a usable diffusers model: {why.rstrip('.')}.",
        "Give a folder written by `save_pretrained` of a text-to-image pipeline.",
    )


def _switch_on(pipe: Any, what: str) -> None:
    """Tiling or slicing of the picture decoder. Raises UnknownOption where it has none."""
    switch = getattr(pipe.vae, f"enable_{what}", None)
    if switch is None:
        raise UnknownOption(
            f"The picture decoder {type(pipe.vae).__name__} has no {what}.", "Load it without."
        )
    switch()


def _limit_tiles(vae: Any) -> None:
    """Tiles are as large as the pictures that the decoder was trained with. Where that is 1024
    pixels (SDXL, SD3, Flux) a picture of that size would be one tile, and no memory saved."""
    side = getattr(vae, "tile_sample_min_size", 0)
    if side > LARGEST_TILE_PIXELS:
        vae.tile_sample_min_size = LARGEST_TILE_PIXELS
        vae.tile_latent_min_size = vae.tile_latent_min_size * LARGEST_TILE_PIXELS // side
