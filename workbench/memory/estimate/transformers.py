"""Chat models and sentence encoders of the transformers library."""

from __future__ import annotations

from typing import Any

from workbench.memory.estimate.kv_cache import CacheLayer, config_layers, config_number
from workbench.memory.estimate.torch_layers import (
    encoder_bytes,
    has_stacked_experts,
    is_described,
    is_eager,
    layer_bytes,
)
from workbench.memory.estimate.weights import DTYPE_BYTES, is_cast, quantized_bytes
from workbench.memory.facts import Component, ModelFacts
from workbench.memory.machine import MIB, Machine
from workbench.memory.request import LoadOptions, RequestSize
from workbench.memory.terms import Estimate, Phase, Term, about, exact

_DEFAULT_PROMPT_TOKENS = 4096
# Pages of torch's libraries that are touched first when a model is loaded and run: the module of
# the architecture, the tokenizer, kernels, the threads' buffers. Measured.
_WORKSPACE_BYTES = 17 * MIB
_EMBEDDED_TOGETHER = 32
_UNKNOWN_SPREAD = 4.0
# A page of a mapped file that is touched brings the 15 around it along. Source: Linux,
# ``fault_around_bytes``.
_FAULT_BYTES = 64 * 1024


def estimate(
    facts: ModelFacts, options: LoadOptions, size: RequestSize, machine: Machine
) -> Estimate:
    """Weights stay; caches and activations are live while it computes."""
    model = facts.component("model")
    config = text_config(model.config)
    dtype = options.compute_type or facts.options.get("compute_type") or facts.dtype
    dtype = dtype or str(config.get("dtype") or config.get("torch_dtype") or "float32")
    kind = options.device.split(":")[0]
    name = "transformers" if kind == "cpu" else f"transformers@{kind}"
    known = is_described(config)
    spread = (0.6 if is_eager(config) else 0.25) if known else _UNKNOWN_SPREAD
    weights, staging = _weights(model, config, dtype, options, _looked_up(facts, size))
    resident = (
        about("context", machine.context_bytes.get(name, 0), 0.03, machine.name),
        about("workspace", _WORKSPACE_BYTES, 1.0, "kernels, tokenizer; measured"),
        weights,
    )
    load = Phase(name="load", terms=(staging,))
    if facts.task == "embedding":
        phases: tuple[Phase, ...] = (load, _embed(config, size, spread, dtype, facts))
    else:
        phases = (load, *_chat(config, size, spread, dtype, facts, options))
    extra = "".join(
        f"/{part}" for part in (options.quantization, kind) if part not in (None, "cpu")
    )
    offload = "" if options.offload == "none" else f"/{options.offload}"
    return Estimate(
        family=f"transformers/{model.architecture}/{dtype}{extra}{offload}",
        resident=resident,
        phases=phases,
        is_known=known,
        host=_host(model, options, machine),
    )


def text_config(config: dict[str, Any]) -> dict[str, Any]:
    """The language model's part of a configuration that also has pictures or sounds."""
    inner = config.get("text_config")
    return {**config, **inner} if isinstance(inner, dict) else config


def _looked_up(facts: ModelFacts, size: RequestSize) -> int | None:
    """Tokens that a request looks up at most in the embedding; None: it is all read.

    A chat model without a head of its own multiplies with the embedding.
    """
    has_head = "head" in facts.component("model").weights.bytes_by_kind
    if size.prompt_tokens is None or (facts.task == "chat" and not has_head):
        return None
    together = _EMBEDDED_TOGETHER if facts.task == "embedding" else size.batch
    return size.prompt_tokens * min(size.batch, together)


def _weights(
    model: Component,
    config: dict[str, Any],
    dtype: str,
    options: LoadOptions,
    looked_up: int | None,
) -> tuple[Term, Term]:
    """What stays, and what is there beside it while the model is loaded.

    A file whose dtype is computed in is mapped, and its pages count when they are touched: of an
    embedding that is not also the head, those around the tokens that were looked up. Experts
    that are stacked are copied out of the mapped file, which stays for the rest. If all weights
    are converted, the whole mapped file is touched meanwhile, and given back after.
    """
    header = model.weights
    size = quantized_bytes(header, dtype, options.quantization)
    if options.offload in ("disk", "sequential"):
        largest = _largest_module(model, dtype)
        # on a CPU the pages of the file that a module is read from stay mapped beside the copy
        copies = 2 if options.device == "cpu" else 1
        why = "the largest module as it is read; the others wait on disk or in host memory"
        return about("weights", copies * largest, 0.1, why), exact(
            "staging", 0, "nothing is copied"
        )
    if options.quantization is not None or is_cast(header, dtype):
        return (
            about("weights", size, 0.01, f"safetensors headers, {options.quantization or dtype}"),
            about("staging", header.weights_bytes, 0.05, "the mapped file, while it is converted"),
        )
    experts = sum(header.bytes_by_kind.get("expert", {}).values())
    stacked = experts if has_stacked_experts(config) else 0
    table = sum(header.bytes_by_kind.get("embedding", {}).values())
    untouched = 0
    if looked_up is not None and options.device == "cpu":
        untouched = max(0, table - looked_up * _FAULT_BYTES)
    provenance = "safetensors headers, mapped"
    if stacked:
        provenance += f"; {stacked // MIB} MiB of experts once more, stacked"
    weights = Term(
        name="weights",
        size_bytes=size + stacked - untouched,
        upper_bytes=round((size + stacked) * 1.01),
        provenance=provenance,
    )
    layers = max(1, len(config_layers(config)))
    return weights, about("staging", stacked / layers / 3, 1.0, "one block's experts, stacked")


def _largest_module(model: Component, dtype: str) -> int:
    """The embedding, the head, or one block, whichever is larger."""
    header, config = model.weights, text_config(model.config)
    total = quantized_bytes(header, dtype, None)
    scale = total / max(1, header.weights_bytes)
    outer = [
        sum(header.bytes_by_kind.get(kind, {}).values()) * scale for kind in ("embedding", "head")
    ]
    layers = max(1, len(config_layers(config)))
    return round(max(*outer, (total - sum(outer)) / layers))


def _host(model: Component, options: LoadOptions, machine: Machine) -> tuple[Term, ...]:
    if options.device == "cpu":
        return ()
    context = about("context", machine.context_bytes["transformers"], 0.05, machine.name)
    if options.offload == "sequential":
        waiting = model.weights.weights_bytes
        return (context, about("weights", waiting, 0.1, "safetensors headers; wait here"))
    return (context, about("workspace", _WORKSPACE_BYTES, 1.0, "measured"))


def _chat(
    config: dict[str, Any],
    size: RequestSize,
    spread: float,
    dtype: str,
    facts: ModelFacts,
    options: LoadOptions,
) -> tuple[Phase, Phase]:
    width = DTYPE_BYTES.get(dtype, 4)
    trained = config_number(config, "max_position_embeddings", "n_positions")
    room = options.context_tokens or facts.context_tokens or trained or _DEFAULT_PROMPT_TOKENS
    tokens = min(size.prompt_tokens or room, room)
    layers = config_layers(config)
    batch = size.batch
    vocabulary = config_number(config, "vocab_size")
    logits = about(
        "logits", batch * vocabulary * (width + 8), 0.5, "the last token's, and as float32"
    )
    cache = exact(
        "kv_cache", cache_bytes(layers, tokens, batch, width), f"config.json, {tokens} tokens"
    )
    prefill = about(
        "activations",
        layer_bytes(config, tokens, batch, width),
        spread,
        "one block of the architecture at its widest",
    )
    growth = max((layer.token_values for layer in layers), default=0) * tokens * batch * width
    decode = about(
        "activations",
        growth + layer_bytes(config, 1, batch, width),
        spread,
        "a token; the cache of one block is copied as it grows",
    )
    return (
        Phase(name="prefill", terms=(cache, prefill, logits)),
        Phase(name="decode", terms=(cache, decode, logits)),
    )


def cache_bytes(layers: list[CacheLayer], tokens: int, batch: int, width: int) -> int:
    """Bytes of ``DynamicCache`` after a prompt of ``tokens``.

    A sliding layer keeps a view of all the prompt's keys until the next token comes.
    """
    values = sum(layer.token_values for layer in layers) * tokens
    states = sum(layer.state_values for layer in layers)
    return batch * width * (values + states)


def _embed(
    config: dict[str, Any], size: RequestSize, spread: float, dtype: str, facts: ModelFacts
) -> Phase:
    """One forward pass in float32 or the weights' dtype; 32 texts at a time."""
    tokens = size.prompt_tokens or facts.context_tokens
    tokens = tokens or config_number(config, "max_position_embeddings", default=512)
    batch = min(size.batch, _EMBEDDED_TOGETHER)
    width = DTYPE_BYTES.get(dtype, 4)
    return Phase(
        name="embed",
        terms=(
            about(
                "activations",
                encoder_bytes(config, tokens, batch, width),
                spread,
                f"one block of the encoder at its widest, {batch} texts of {tokens} tokens",
            ),
        ),
    )
