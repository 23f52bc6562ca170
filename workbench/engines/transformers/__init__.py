"""Checkpoints of the transformers library: chat models and sentence embeddings, run by torch.

Only safetensors are read, never pickles, and no code that comes with a checkpoint is run.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from workbench.engines.transformers.chat import TransformersChat, first_line
from workbench.engines.transformers.embedding import TransformersEmbedding
from workbench.errors import SettingsError, Unavailable, UnknownOption, UserInputError
from workbench.memory.request import LoadOptions
from workbench.settings import get_settings

if TYPE_CHECKING:
    from workbench.models.spec import ModelSpec

_DTYPES = ("float32", "bfloat16", "float16")
_POOLINGS = ("mean", "cls")


def load(
    spec: ModelSpec, path: Path, options: LoadOptions
) -> TransformersChat | TransformersEmbedding:
    """Load the checkpoint folder ``path`` as what ``spec.task`` says.

    Raises UserInputError (pickled weights, no chat template), UnknownOption, SettingsError,
    Unavailable.
    """
    import torch
    import transformers

    dtype = options.compute_type or spec.dtype
    if dtype is not None and dtype not in _DTYPES:
        raise UnknownOption(
            f"transformers cannot load {spec.id} as {dtype}.", f"Use one of {', '.join(_DTYPES)}."
        )
    unknown = set(spec.options) - ({"pooling"} if spec.task == "embedding" else set())
    if unknown or spec.options.get("pooling", "mean") not in _POOLINGS:
        raise SettingsError(
            f"The catalogue entry {spec.id} has options that transformers cannot honour: "
            f"{dict(spec.options)}.",
            f"An embedding model may have pooling: {' or '.join(_POOLINGS)}.",
        )
    if not any(path.glob("*.safetensors")):
        raise UserInputError(
            f"{path} has no safetensors weights.",
            "Pickled weights can run code and are never opened: convert them to safetensors.",
        )
    threads = options.threads or get_settings().threads
    if threads is not None:
        torch.set_num_threads(threads)
    kind = transformers.AutoModel if spec.task == "embedding" else transformers.AutoModelForCausalLM
    safe = {"local_files_only": True, "trust_remote_code": False}
    try:
        with _no_progress_bars():
            tokenizer = transformers.AutoTokenizer.from_pretrained(path, **safe)
            # accelerate puts each weight on the device as it is read: no second copy in memory
            model = kind.from_pretrained(
                path,
                dtype=dtype or "auto",
                device_map=options.device,
                use_safetensors=True,
                **safe,
            )
        model = model.eval()
    except Exception as error:  # whatever is wrong with a checkpoint, in the library's own words
        raise Unavailable(
            f"transformers cannot load {spec.id}: {first_line(error)}",
            f"Check the files with `workbench models verify {spec.id}`.",
        ) from error
    context = options.context_tokens or spec.context_tokens
    if spec.task == "embedding":
        return TransformersEmbedding(spec, model, tokenizer, context)
    if tokenizer.chat_template is None:
        raise UserInputError(
            f"{spec.id} has no chat template, so it is not a chat model.",
            "Choose an instruct or chat checkpoint.",
        )
    return TransformersChat(spec, model, tokenizer, context)


@contextmanager
def _no_progress_bars() -> Iterator[None]:
    """Loading draws bars on standard error, which is not the library's to write to here."""
    from transformers.utils import logging

    was_enabled = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if was_enabled:
            logging.enable_progress_bar()
