"""Keeps the chatter of the torch libraries off standard error while they are imported and load."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

#: Logger -> beginnings of messages about what is not used here. Anything else is let through.
_NOT_FOR_USERS = {
    # kernels for accelerators that this machine does not have
    "torchao": ("Failed to load ",),
    "torchao.kernel.intmm": ("Warning: Detected no triton",),
    "torch.utils._pytree": ("<enum ",),
    "bitsandbytes.backends.cpu.ops": ("Failed to load CPU gemm_4bit_forward",),
    # a checkpoint that was saved quantized; here weights are quantized while they are loaded
    "diffusers.quantizers.torchao.torchao_quantizer": (
        "Unable to import `torchao` Tensor",
        # float32 scales work; the tests of offload and quantization run them
        "You are trying to set torch_dtype to torch.float32",
    ),
    # pictures are not prepared with torchvision
    "transformers.utils.import_utils": ("`",),
    # disk offload was asked for
    "accelerate.big_modeling": ("Some parameters are on the meta device",),
}


@contextmanager
def quiet(*libraries: str) -> Iterator[None]:
    """No notes about unused extras, and no progress bars of ``libraries``, while the block runs.

    ``libraries`` are ``transformers`` and ``diffusers``; they are imported here.
    """
    filters = [
        (logging.getLogger(name), _without(beginnings))
        for name, beginnings in _NOT_FOR_USERS.items()
    ]
    for logger, without in filters:
        logger.addFilter(without)
    try:
        bars = [bar for bar in map(_logging_of, libraries) if bar.is_progress_bar_enabled()]
        for bar in bars:
            bar.disable_progress_bar()
        try:
            yield
        finally:
            for bar in bars:
                bar.enable_progress_bar()
    finally:
        for logger, without in filters:
            logger.removeFilter(without)


def _without(beginnings: tuple[str, ...]) -> Callable[[logging.LogRecord], bool]:
    return lambda record: not record.getMessage().startswith(beginnings)


def _logging_of(library: str) -> Any:
    return importlib.import_module(f"{library}.utils.logging")
