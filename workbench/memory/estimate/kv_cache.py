"""What a language model keeps of the tokens it has read, layer by layer.

Full attention keeps the keys and values of every token (``2 * kv_heads * head_dim`` values),
sliding-window attention those of the last ``window`` tokens, multi-head latent attention one
compressed row (``kv_lora_rank + rope_dim``), and state-space or convolution layers a state whose
size does not depend on the length.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

#: Bytes of one cached value. A block of 32 has 34 bytes in q8_0 and 18 in q4_0. Source: ggml.
CACHE_BYTES = {"f32": 4.0, "f16": 2.0, "bf16": 2.0, "q8_0": 34 / 32, "q4_0": 18 / 32}
# llama.cpp rounds contexts up to this, and takes prompts in batches of _BATCH_TOKENS
_PADDING_TOKENS = 256
BATCH_TOKENS = 512


class CacheLayer(NamedTuple):
    """One layer: values kept for a token, of how many tokens at most (``None``: all), and
    values of a state that is always there (float32 in llama.cpp)."""

    token_values: int = 0
    window: int | None = None
    state_values: int = 0


def padded(tokens: int) -> int:
    """A context as llama.cpp rounds it up."""
    return -(-tokens // _PADDING_TOKENS) * _PADDING_TOKENS


# -- GGUF ------------------------------------------------------------------------------------

# Blocks between two that attend to everything, where the file does not say it.
# Source: llama.cpp's ``set_swa_pattern`` calls, by architecture.
_PATTERNS = {
    "gemma2": 2, "gemma3": 6, "gemma-embedding": 6, "gpt-oss": 2, "cohere2": 4, "llama4": 4,
    "olmo2": 4, "exaone4": 4,
}  # fmt: skip


class GgufNumbers:
    """Numbers of a GGUF header, without the architecture's name before each."""

    def __init__(self, facts: Mapping[str, Any]) -> None:
        self.architecture = str(facts.get("general.architecture"))
        self._facts = facts

    def __call__(self, key: str, default: int = 0) -> int:
        found = self._facts.get(f"{self.architecture}.{key}", default)
        if isinstance(found, list):
            found = max(found, default=default)
        return found if isinstance(found, int) else default

    def each(self, key: str, layers: int, default: int = 0) -> list[int]:
        """One number a layer: an array of the file, or the same for all."""
        found = self._facts.get(f"{self.architecture}.{key}")
        if isinstance(found, list) and len(found) >= layers:
            return [int(number) for number in found[:layers]]
        return [self(key, default)] * layers


def gguf_layers(facts: Mapping[str, Any]) -> list[CacheLayer]:
    """The layers of a GGUF file. Source: llama.cpp's ``llama_kv_cache`` and ``llama_hparams``."""
    number = GgufNumbers(facts)
    count = number("block_count")
    heads = number("attention.head_count", 1)
    head_dim = number("attention.key_length", number("embedding_length") // max(1, heads))
    value_dim = number("attention.value_length", head_dim)
    kv_heads = number.each("attention.head_count_kv", count, heads)
    if number("attention.key_length_mla") and number("attention.kv_lora_rank"):
        return [CacheLayer(token_values=head_dim)] * count  # the values are part of the keys
    state = _gguf_state(number)
    interval = number("full_attention_interval")
    windows = _gguf_windows(number, count)
    layers = []
    for index in range(count):
        attends = kv_heads[index] > 0 and heads > 0
        if state and interval:
            attends = (index + 1) % interval == 0
        if not attends:
            layers.append(CacheLayer(state_values=state))
            continue
        both = state if number.architecture == "falcon-h1" else 0
        values = kv_heads[index] * (head_dim + value_dim)
        layers.append(CacheLayer(values, windows[index], both))
    return layers


def _gguf_windows(number: GgufNumbers, count: int) -> list[int | None]:
    window = number("attention.sliding_window")
    stored = number._facts.get(f"{number.architecture}.attention.sliding_window_pattern")
    if not window:
        return [None] * count
    if isinstance(stored, list) and len(stored) >= count:
        return [window if slides else None for slides in stored[:count]]
    period = number("attention.sliding_window_pattern", _PATTERNS.get(number.architecture, 0))
    if period < 1:  # the architecture has a window that llama.cpp does not use
        return [None] * count
    return [None if (index + 1) % period == 0 else window for index in range(count)]


def _gguf_state(number: GgufNumbers) -> int:
    """Values of a recurrent layer: a convolution's last inputs, and the state itself."""
    width = number("embedding_length")
    if number("shortconv.l_cache"):
        return width * (number("shortconv.l_cache") - 1)
    if number("wkv.head_size"):
        return width * (number("token_shift_count", 2) + number("wkv.head_size"))
    inner, state = number("ssm.inner_size"), number("ssm.state_size")
    if not inner:
        return 0
    groups = number("ssm.group_count")
    return (number("ssm.conv_kernel", 1) - 1) * (inner + 2 * groups * state) + inner * state


def llama_cache_bytes(
    facts: Mapping[str, Any], context_tokens: int, cache_type: str = "f16"
) -> list[int]:
    """Bytes of each layer as llama.cpp allocates (and at once clears) them, for one sequence.

    A sliding window also holds the batch that is being read, and is rounded up.
    """
    cells = padded(context_tokens)
    factor = CACHE_BYTES[cache_type]
    found = []
    for layer in gguf_layers(facts):
        kept = cells
        if layer.window is not None:
            kept = padded(min(cells, layer.window + BATCH_TOKENS))
        found.append(round(layer.token_values * kept * factor) + 4 * layer.state_values)
    return found


# -- config.json -----------------------------------------------------------------------------


def config_number(config: Mapping[str, Any], *names: str, default: int = 0) -> int:
    """The first of these keys that has a whole number."""
    for name in names:
        found = config.get(name)
        if isinstance(found, int) and not isinstance(found, bool):
            return found
    return default


def config_layers(config: Mapping[str, Any]) -> list[CacheLayer]:
    """The layers of a checkpoint of the transformers library.

    Source: ``transformers.cache_utils.DynamicCache`` and the architectures' own attention.
    """
    count = config_number(config, "num_hidden_layers", "n_layer", "num_layers")
    hidden = config_number(config, "hidden_size", "n_embd", "d_model")
    heads = config_number(config, "num_attention_heads", "n_head", "num_heads", default=1)
    head_dim = config_number(config, "head_dim", default=hidden // max(1, heads))
    values = 2 * config_number(config, "num_key_value_heads", default=heads) * head_dim
    if config_number(config, "kv_lora_rank"):
        values = config_number(config, "kv_lora_rank") + config_number(config, "qk_rope_head_dim")
    state = _config_state(config, hidden)
    window = config_number(config, "sliding_window") or None
    return [
        CacheLayer(state_values=state)
        if kind == "state"
        else CacheLayer(values, window if kind == "window" else None)
        for kind in _config_kinds(config, count, state > 0)
    ]


def _config_kinds(config: Mapping[str, Any], count: int, has_state: bool) -> list[str]:
    kinds = config.get("layer_types") or config.get("layers_block_type")
    if isinstance(kinds, Sequence) and len(kinds) >= count and not isinstance(kinds, str):
        return [_kind(str(kind)) for kind in kinds[:count]]
    if has_state and "num_attention_heads" not in config:
        return ["state"] * count
    slides = config.get("sliding_window") and config.get("use_sliding_window", True)
    return ["window" if slides else "full"] * count


def _kind(layer_type: str) -> str:
    if "sliding" in layer_type or "chunked" in layer_type:
        return "window"
    if any(word in layer_type for word in ("linear", "conv", "mamba", "recurrent", "ssm")):
        return "state"
    return "full"


def _config_state(config: Mapping[str, Any], hidden: int) -> int:
    if config_number(config, "conv_L_cache"):
        return hidden * config_number(config, "conv_L_cache")
    if config_number(config, "linear_num_value_heads"):
        keys = config_number(config, "linear_num_key_heads") * config_number(
            config, "linear_key_head_dim"
        )
        values_dim = config_number(config, "linear_value_head_dim")
        values = config_number(config, "linear_num_value_heads") * values_dim
        kernel = config_number(config, "linear_conv_kernel_dim", default=4)
        state = values * config_number(config, "linear_key_head_dim")
        return (2 * keys + values) * kernel + state
    state = config_number(config, "state_size", "mamba_d_state", "ssm_state_size")
    if not state:
        return 0
    expand = config_number(config, "expand", "mamba_expand", default=2)
    inner = config_number(config, "intermediate_size") if "state_size" in config else 0
    inner = inner or expand * hidden
    return inner * (config_number(config, "conv_kernel", "mamba_d_conv", default=4) + state)
