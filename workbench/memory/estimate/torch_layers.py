"""What one block of a language model has live at its widest, from its configuration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from workbench.memory.estimate.kv_cache import config_number

# Rows of the hidden size beside a block's inner tensors: the block's input, the residual after
# attention, and what the norm gives.
_HIDDEN_ROWS = 3


def is_described(config: Mapping[str, Any]) -> bool:
    """Whether the configuration names the sizes that the formulas need."""
    return bool(_hidden(config) and (_inner(config) or config_number(config, "state_size")))


def layer_bytes(config: Mapping[str, Any], tokens: int, batch: int, width: int) -> int:
    """Live bytes of a decoder block for ``batch * tokens`` tokens of ``width`` bytes a value."""
    hidden, rows = _hidden(config), batch * tokens
    heads = config_number(config, "num_attention_heads", "n_head", default=1)
    head_dim = config_number(config, "head_dim", default=hidden // max(1, heads))
    dense = 3 * _inner(config)
    widest = float(max(dense, _experts(config, hidden), 4 * heads * head_dim, _latent(config)))
    return round(rows * (_HIDDEN_ROWS * hidden + widest) * width) + _scan(config, rows)


def encoder_bytes(config: Mapping[str, Any], tokens: int, batch: int, width: int) -> int:
    """Live bytes of an encoder's block for ``batch`` texts of ``tokens`` tokens."""
    rows = batch * tokens
    return rows * (_HIDDEN_ROWS * _hidden(config) + 2 * _inner(config)) * width


def _hidden(config: Mapping[str, Any]) -> int:
    return config_number(config, "hidden_size", "n_embd", "d_model")


def _inner(config: Mapping[str, Any]) -> int:
    found = config_number(config, "intermediate_size", "n_inner", "ffn_dim", "d_ff")
    if not found and "n_embd" in config:
        return 4 * config_number(config, "n_embd")
    return found


def _experts(config: Mapping[str, Any], hidden: int) -> int:
    """Values a token of a mixture of experts: a row for each expert that it goes to.

    The gathered rows, the experts' outputs and their weighted copies are live together.
    Source: ``transformers.integrations.moe.grouped_mm_experts_forward``.
    """
    used = config_number(config, "num_experts_per_tok", "num_experts_per_token", "moe_topk")
    inner = config_number(config, "moe_intermediate_size", "intermediate_size")
    if not used:
        return 0
    return used * max(hidden + 3 * inner, 3 * hidden + inner)


def _latent(config: Mapping[str, Any]) -> int:
    """Queries, and keys and values unfolded for all heads, of multi-head latent attention."""
    if not config_number(config, "kv_lora_rank"):
        return 0
    heads = config_number(config, "num_attention_heads", default=1)
    key = config_number(config, "qk_nope_head_dim") + config_number(config, "qk_rope_head_dim")
    return heads * (4 * key + 2 * config_number(config, "v_head_dim"))


def _scan(config: Mapping[str, Any], rows: int) -> int:
    """A state-space layer without its fast kernels: three states of every token, in float32."""
    state = config_number(config, "state_size")
    if not state:
        return 0
    inner = config_number(config, "intermediate_size") or 2 * _hidden(config)
    return rows * inner * state * 4 * 3
