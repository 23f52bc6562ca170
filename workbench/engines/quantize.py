"""Quantizes large linear weights while they are loaded: torchao to 8 and 4 bit, bitsandbytes to
nf4. Embeddings, norms, heads and convolutions stay in the compute type."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from workbench.errors import UnknownOption
from workbench.memory.request import Quantization

#: Parts of a diffusers pipeline whose weights are worth it; a picture decoder is small and, in
#: 8 bit, visibly worse.
_QUANTIZED_PARTS = ("unet", "transformer", "text_encoder", "text_encoder_2", "text_encoder_3")
_NF4_BLOCK = 64


def quantize_checkpoint(quantization: Quantization | None, dtype: str | None) -> Any:
    """What transformers' ``from_pretrained`` takes as ``quantization_config``; None for none."""
    import transformers

    return _config(quantization, dtype or "bfloat16", transformers)


def quantize_pipeline(
    quantization: Quantization | None, dtype: str, parts: Collection[str], libraries: dict[str, str]
) -> Any:
    """What a pipeline's ``from_pretrained`` takes as ``quantization_config``; None for none.

    ``libraries`` says who loads each part: diffusers and transformers have configurations of the
    same name, and each understands its own only. fp8 is no such quantization: see
    `workbench.engines.diffusers_offload.store_in_fp8`.
    """
    if quantization in (None, "fp8"):
        return None
    import diffusers
    import transformers

    modules = {"diffusers": diffusers, "transformers": transformers}
    return diffusers.PipelineQuantizationConfig(
        quant_mapping={
            part: _config(quantization, dtype, modules[libraries[part]])
            for part in _QUANTIZED_PARTS
            if part in parts
        }
    )


def check_nf4(model: Any, name: str, device: str) -> None:
    """Raise UnknownOption where bitsandbytes would fail at the first request: on a CPU it packs
    the weights anew then, and rows must be whole blocks of 64."""
    for layer in model.modules() if device == "cpu" else ():
        if type(layer).__name__ == "Linear4bit" and layer.in_features % _NF4_BLOCK:
            raise UnknownOption(
                f"{name} cannot be loaded so: on a CPU bitsandbytes needs layers whose width is a "
                f"multiple of {_NF4_BLOCK}, and one has {layer.in_features}.",
                "Use int8.",
            )


def _config(quantization: Quantization | None, dtype: str, library: Any) -> Any:
    """The configuration of ``library`` (diffusers or transformers)."""
    if quantization is None:
        return None
    import torch

    if quantization == "nf4":
        return library.BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_compute_dtype=getattr(torch, dtype),
        )
    from torchao.quantization import Int4WeightOnlyConfig, Int8WeightOnlyConfig

    kinds = {"int8": Int8WeightOnlyConfig, "int4": Int4WeightOnlyConfig}
    return library.TorchAoConfig(kinds[quantization]())
