"""What one block of a language model has live at its widest, from its configuration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from workbench.memory.estimate.kv_cache import config_number

# Rows of the hidden size beside a block's inner tensors: the block's input, the residual after
# attention, and what the norm gives.
_HIDDEN_ROWS = 3
# Copies of the scores in attention without a fused kernel: the product, the cap (three), the
# mask, softmax in float32 (two of double width) and what it gives, and as much again in blocks
# that glibc keeps because they are smaller than 32 MiB. Measured on one model.
_SCORE_VALUES = 15


def is_described(config: Mapping[str, Any]) -> bool:
    """Whether the configuration is of the family that the formulas are for: gated blocks and
    encoders in today's names. GPT-2 and its like (``n_embd``) write out more than they say."""
    inner = config_number(config, "intermediate_size") or config_number(config, "state_size")
    return bool(config_number(config, "hidden_size") and inner)


def layer_bytes(config: Mapping[str, Any], tokens: int, batch: int, width: int) -> int:
    """Live bytes of a decoder block for ``batch * tokens`` tokens of ``width`` bytes a value."""
    hidden, rows = _hidden(config), batch * tokens
    heads = config_number(config, "num_attention_heads", "n_head", default=1)
    head_dim = config_number(config, "head_dim", default=hidden // max(1, heads))
    widest = max(
        3 * _inner(config) * width,
        _expert_bytes(config, hidden, width),
        4 * heads * head_dim * width,
        _latent(config) * width,
    )
    scores = 0
    if is_eager(config):
        scores = batch * heads * tokens * tokens * _SCORE_VALUES * width
    return rows * (_HIDDEN_ROWS * hidden * width + widest) + scores + _scan_bytes(config, rows)


def encoder_bytes(config: Mapping[str, Any], tokens: int, batch: int, width: int) -> int:
    """Live bytes of an encoder's block for ``batch`` texts of ``tokens`` tokens.

    Its feed-forward is not gated: the inner rows before and after the activation.
    """
    rows = batch * tokens
    return rows * (_HIDDEN_ROWS * _hidden(config) + 2 * _inner(config)) * width


def is_eager(config: Mapping[str, Any]) -> bool:
    """Whether attention scores are written out: no fused kernel caps them or has sinks."""
    return bool(config.get("attn_logit_softcapping")) or config.get("model_type") == "gpt_oss"


def has_stacked_experts(config: Mapping[str, Any]) -> bool:
    """Whether one matrix for each expert in the files becomes one for all in memory."""
    used = config_number(config, "num_experts_per_tok", "num_experts_per_token", "moe_topk")
    return used > 0 and config.get("model_type") not in ("gpt_oss", "llama4", "llama4_text")


def _hidden(config: Mapping[str, Any]) -> int:
    return config_number(config, "hidden_size", "n_embd", "d_model")


def _inner(config: Mapping[str, Any]) -> int:
    found = config_number(config, "intermediate_size", "n_inner", "ffn_dim", "d_ff")
    if not found and "n_embd" in config:
        return 4 * config_number(config, "n_embd")
    return found


def _expert_bytes(config: Mapping[str, Any], hidden: int, width: int) -> int:
    """Bytes a token of a mixture of experts: a row for each expert that it goes to.

    The gathered rows, the inner ones and the experts' outputs are live with their weighted and
    their re-sorted copies, which are float32 because the router's weights are.
    Source: ``transformers.integrations.moe.grouped_mm_experts_forward``.
    """
    used = config_number(config, "num_experts_per_tok", "num_experts_per_token", "moe_topk")
    inner = config_number(config, "moe_intermediate_size", "intermediate_size")
    return used * ((2 * hidden + inner) * width + 2 * hidden * 4)


def _latent(config: Mapping[str, Any]) -> int:
    """Queries, and keys and values unfolded for all heads, of multi-head latent attention."""
    if not config_number(config, "kv_lora_rank"):
        return 0
    heads = config_number(config, "num_attention_heads", default=1)
    key = config_number(config, "qk_nope_head_dim") + config_number(config, "qk_rope_head_dim")
    return heads * (4 * key + 2 * config_number(config, "v_head_dim"))


def _scan_bytes(config: Mapping[str, Any], rows: int) -> int:
    """A state-space layer without its fast kernels: three states of every token, in float32."""
    state = config_number(config, "state_size")
    if not state:
        return 0
    inner = config_number(config, "intermediate_size") or 2 * _hidden(config)
    return rows * inner * state * 4 * 3
