"""GGUF models in llama.cpp."""

from __future__ import annotations

from workbench.memory.facts import ModelFacts
from workbench.memory.machine import MIB, Machine
from workbench.memory.request import LoadOptions, RequestSize
from workbench.memory.terms import Estimate, Phase, about, exact

_DEFAULT_CONTEXT_TOKENS = 4096


def estimate(
    facts: ModelFacts, options: LoadOptions, size: RequestSize, machine: Machine
) -> Estimate:
    """Weights and key-value cache stay; compute buffers are live while a prompt is read."""
    model = facts.component("model")
    context = options.context_tokens or facts.context_tokens or _DEFAULT_CONTEXT_TOKENS
    cache = kv_cache_bytes(model.config, context)
    return Estimate(
        family=f"llama_cpp/{model.architecture}",
        resident=(
            about("context", machine.context_bytes["llama_cpp"], 0.1, machine.name),
            about("weights", model.weights.weights_bytes, 0.25, "GGUF header"),
            exact("kv_cache", cache, f"GGUF header, {context} tokens, float16"),
        ),
        phases=(Phase(name="prefill", terms=(about("compute", 100 * MIB, 0.3, "measured"),)),),
    )


def kv_cache_bytes(
    facts: dict[str, object], context_tokens: int, bytes_per_value: float = 2
) -> int:
    """``2 * layers * kv_heads * head_dim * tokens * bytes`` of full attention.

    The facts are those of a GGUF header. Source: llama.cpp's ``llama_kv_cache``.
    """
    architecture = facts.get("general.architecture")

    def number(key: str, default: int = 0) -> int:
        found = facts.get(f"{architecture}.{key}", default)
        return found if isinstance(found, int) else default

    heads = number("attention.head_count", 1)
    head_dim = number("attention.key_length", number("embedding_length") // max(1, heads))
    kv_heads = number("attention.head_count_kv", heads)
    values = 2 * number("block_count") * kv_heads * head_dim * context_tokens
    return round(values * bytes_per_value)
