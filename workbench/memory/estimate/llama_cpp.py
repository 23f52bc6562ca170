"""GGUF models in llama.cpp: weights as they are mapped and repacked, the cache, one graph.

The sizes of buffers are those that llama.cpp's own log names; they were compared with it for
eight architectures. What is measured rather than derived says so.
"""

from __future__ import annotations

from typing import Any

from workbench.memory.estimate.kv_cache import (
    BATCH_TOKENS,
    CACHE_BYTES,
    GgufNumbers,
    gguf_layers,
    llama_cache_bytes,
    padded,
)
from workbench.memory.facts import ModelFacts
from workbench.memory.machine import MIB, Machine
from workbench.memory.request import LoadOptions, RequestSize
from workbench.memory.terms import Estimate, Phase, Term, about, exact

_DEFAULT_CONTEXT_TOKENS = 4096
# The vocabulary's tables, and what is left of reading it: each token is held as text, in a map
# and as a piece of output; each merge in a map of two strings. Measured with 49 152 to 262 144
# tokens and 48 900 to 151 387 merges.
_BYTES_A_TOKEN, _BYTES_A_MERGE = 190, 259
# Pages of the library that are touched first when it loads a model (5 MiB), the server's own
# tables (3.5 MiB), and the graph's nodes, which grow with the number of blocks. Measured.
_SERVER_BYTES, _BYTES_A_BLOCK = int(8.6 * MIB), MIB // 10
# The server keeps copies of sliding windows and states: at the prompt's end, one batch before it,
# and every so many tokens, at most so many. Source: ``checkpoint_min_step``, ``n_ctx_checkpoints``.
_CHECKPOINT_TOKENS, _MOST_CHECKPOINTS = 8192, 32


def estimate(
    facts: ModelFacts, options: LoadOptions, size: RequestSize, machine: Machine
) -> Estimate:
    """Weights and key-value cache stay; buffers of the graph are touched as prompts get longer.

    On another device than the CPU the blocks that are kept there count, and ``host`` has the
    rest.
    """
    model = facts.component("model")
    config = model.config
    context = options.context_tokens or facts.context_tokens or _DEFAULT_CONTEXT_TOKENS
    cache_type = options.cache_type or "f16"
    prompt = min(size.prompt_tokens or context, context)
    caches = llama_cache_bytes(config, context, cache_type)
    if options.device != "cpu":
        return _split(facts, options, machine, caches, prompt, context)
    mapped, repacked, file_bytes = _weights(facts)
    graph = graph_bytes(config, prompt, context)
    unmapped = max(0, file_bytes - mapped - sum(caches))
    activations = about(
        "activations", graph, 0.15, f"graph of {min(prompt, BATCH_TOKENS)} tokens, llama.cpp"
    )
    logits = about("logits", 16 * _vocabulary(config), 0.5, "a logit and a candidate a token")
    checkpoint = about(
        "checkpoints", _checkpoint_bytes(config, prompt, cache_type), 0.2, "llama.cpp's server"
    )
    return Estimate(
        family=_family(facts, cache_type),
        resident=(
            about("context", machine.context_bytes["llama_cpp"], 0.05, machine.name),
            about("workspace", _server_bytes(config), 0.3, "vocabulary and server, measured"),
            about("weights", mapped + repacked, 0.01, _weights_provenance(repacked)),
            exact("kv_cache", sum(caches), f"GGUF header, {context} tokens, {cache_type}"),
        ),
        phases=(
            Phase(
                name="load",
                terms=(about("staging", unmapped, 0.02, "the whole file is mapped at first"),),
            ),
            Phase(name="prefill", terms=(activations, checkpoint)),
            Phase(name="decode", terms=(activations, checkpoint, logits)),
        ),
        is_known=_is_known(config),
    )


def kv_cache_bytes(facts: dict[str, object], context_tokens: int, cache_type: str = "f16") -> int:
    """Bytes of the whole cache of a GGUF model, as llama.cpp allocates it."""
    return sum(llama_cache_bytes(facts, context_tokens, cache_type))


def graph_bytes(config: dict[str, Any], prompt_tokens: int, context_tokens: int) -> int:
    """What one batch of the prompt touches of the compute buffer, in bytes.

    Five rows of the hidden size are live with the widest part of a block: the feed-forward's
    three inner rows (for experts as many as are used, and their outputs), the queries, those of
    latent attention as they are absorbed, or a state-space layer's five rows. The attention
    mask, float16, is one a kind of cache. Source: llama.cpp's graphs; the sum is the
    "compute buffer size" of its log to 0.1 MiB.
    """
    number = GgufNumbers(config)
    tokens = min(prompt_tokens, BATCH_TOKENS)
    hidden = number("embedding_length")
    heads = number("attention.head_count", 1)
    head_dim = number("attention.key_length", hidden // max(1, heads))
    used = number("expert_used_count")
    inner = number("expert_feed_forward_length") or (
        0 if not used else number("feed_forward_length")
    )
    widest = max(
        3 * number("feed_forward_length"),
        used * (3 * inner + hidden),
        heads * head_dim,
        5 * number("ssm.inner_size"),
    )
    if number("attention.key_length_mla") and (rank := number("attention.kv_lora_rank")):
        rope = number("rope.dimension_count")
        absorbed = number("attention.key_length_mla") + 2 * rank + 2 * rope
        widest = max(widest, heads * absorbed)
    kinds = {layer.window for layer in gguf_layers(config) if layer.token_values}
    seen = padded(min(prompt_tokens + 1, context_tokens))
    mask = sum(min(seen, padded(window + BATCH_TOKENS)) if window else seen for window in kinds)
    return tokens * (4 * (5 * hidden + widest) + 2 * mask)


def _weights(facts: ModelFacts) -> tuple[int, int, int]:
    """Bytes that stay mapped, that are repacked, and of the file."""
    header = facts.component("model").weights
    found = [header.facts.get(key) for key in ("mapped_bytes", "repacked_bytes", "file_bytes")]
    mapped, repacked, file_bytes = (
        number if isinstance(number, int) else default
        for number, default in zip(
            found, (header.weights_bytes, 0, header.weights_bytes), strict=True
        )
    )
    return mapped, repacked, file_bytes


def _weights_provenance(repacked: int) -> str:
    if not repacked:
        return "GGUF header, mapped"
    return f"GGUF header, mapped; {repacked // MIB} MiB once more, repacked for the processor"


def _vocabulary(config: dict[str, Any]) -> int:
    tokens = config.get("tokenizer.ggml.tokens")
    return tokens if isinstance(tokens, int) else 0


def _server_bytes(config: dict[str, Any]) -> int:
    merges = config.get("tokenizer.ggml.merges")
    return (
        _SERVER_BYTES
        + _BYTES_A_BLOCK * GgufNumbers(config)("block_count")
        + _BYTES_A_TOKEN * _vocabulary(config)
        + _BYTES_A_MERGE * (merges if isinstance(merges, int) else 0)
    )


def _checkpoint_bytes(config: dict[str, Any], prompt: int, cache_type: str) -> int:
    places = [prompt, max(0, prompt - BATCH_TOKENS), *range(0, prompt, _CHECKPOINT_TOKENS)[1:]]
    places = places[:_MOST_CHECKPOINTS]
    total = 0.0
    for layer in gguf_layers(config):
        total += 4 * layer.state_values * len(places)
        if layer.window is not None:
            kept = sum(min(place, layer.window) for place in places)
            total += layer.token_values * kept * CACHE_BYTES[cache_type]
    return round(total)


def _family(facts: ModelFacts, cache_type: str) -> str:
    return f"llama_cpp/{facts.component('model').architecture}/{cache_type}"


def _is_known(config: dict[str, Any]) -> bool:
    """Whether the header says what the formulas need."""
    number = GgufNumbers(config)
    return number("block_count") > 0 and number("embedding_length") > 0


def _split(
    facts: ModelFacts,
    options: LoadOptions,
    machine: Machine,
    caches: list[int],
    prompt: int,
    context: int,
) -> Estimate:
    """The last ``gpu_layers`` blocks on the device, with their caches; the output layer counts
    as one more block, the embedding always stays with the host."""
    model = facts.component("model")
    header = model.weights
    stored = header.facts.get("layer_bytes")
    blocks = [int(number) for number in stored] if isinstance(stored, list) else []
    asked = len(blocks) + 1 if options.gpu_layers is None else options.gpu_layers
    # the output layer is the last of all: it goes first
    on_device = min(max(0, asked - 1), len(blocks))
    outer = header.weights_bytes - sum(blocks)
    embedding = sum(header.bytes_by_kind.get("embedding", {}).values())
    first = len(blocks) - on_device
    # without a head of its own the model has the embedding in both places
    head = 0 if asked < 1 else outer - embedding or embedding
    weights, cache = sum(blocks[first:]) + head, sum(caches[first:])
    host_weights = sum(blocks[:first]) + (embedding if asked > 0 else outer)
    kind = options.device.split(":")[0]
    graph = graph_bytes(model.config, prompt, context)
    where = f"{on_device} of {len(blocks)} blocks on {options.device}"
    host: list[Term] = [
        about("context", machine.context_bytes["llama_cpp"], 0.05, machine.name),
        about("workspace", _server_bytes(model.config), 0.3, "vocabulary and server, measured"),
        about("weights", host_weights, 0.05, f"GGUF header; {where}"),
        exact("kv_cache", sum(caches[:first]), f"GGUF header; {where}"),
    ]
    return Estimate(
        family=f"{_family(facts, options.cache_type or 'f16')}/{kind}",
        resident=(
            about("context", machine.context_bytes.get(f"llama_cpp@{kind}", 0), 0.1, machine.name),
            about("weights", weights, 0.01, f"GGUF header; {where}"),
            exact("kv_cache", cache, f"GGUF header, {context} tokens; {where}"),
        ),
        phases=(
            Phase(name="prefill", terms=(about("activations", graph, 0.3, "llama.cpp's graph"),)),
            Phase(name="decode", terms=(about("activations", graph, 0.3, "llama.cpp's graph"),)),
        ),
        host=tuple(host),
        is_known=_is_known(model.config),
    )
