"""Tensors and metadata of GGUF architectures, at the widths of published models."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

Shape = tuple[int, ...]


@dataclass
class Plan:
    """What a file has: metadata keys (without the architecture's name) and tensors by name.

    Shapes are as torch gives them: outputs first. ``large`` tensors are quantized.
    """

    keys: dict[str, Any]
    small: dict[str, Shape] = field(default_factory=dict)
    large: dict[str, Shape] = field(default_factory=dict)


#: Published configurations: hidden, feed-forward, heads, key-value heads, head size, window.
WIDTHS: dict[str, dict[str, Any]] = {
    "llama-3.2-1b": {"arch": "llama", "d": 2048, "ff": 8192, "heads": 32, "kv": 8, "dim": 64},
    "llama-3-8b": {"arch": "llama", "d": 4096, "ff": 14336, "heads": 32, "kv": 8, "dim": 128},
    "qwen2-7b": {"arch": "qwen2", "d": 3584, "ff": 18944, "heads": 28, "kv": 4, "dim": 128},
    "qwen2-1.5b": {"arch": "qwen2", "d": 1536, "ff": 8960, "heads": 12, "kv": 2, "dim": 128},
    "gemma-2-2b": {
        "arch": "gemma2", "d": 2304, "ff": 9216, "heads": 8, "kv": 4, "dim": 256, "window": 4096,
    },
    "gemma-3-4b": {
        "arch": "gemma3", "d": 2560, "ff": 10240, "heads": 8, "kv": 4, "dim": 256, "window": 1024,
    },
    "qwen3-30b-a3b": {
        "arch": "qwen3moe", "d": 2048, "ff": 6144, "heads": 32, "kv": 4, "dim": 128,
        "experts": 128, "used": 8, "expert_ff": 768,
    },
    "mamba-1.4b": {"arch": "mamba", "d": 2048, "inner": 4096, "state": 16, "rank": 128},
    # of the 160 experts 16 are built, and the first block alone is dense
    "deepseek-v2": {
        "arch": "deepseek2", "d": 5120, "ff": 12288, "heads": 128, "kv": 1, "experts": 16,
        "used": 6, "expert_ff": 1536, "query_rank": 1536, "rank": 512, "rope": 64, "nope": 128,
        "value": 128,
    },
    "lfm2-1.2b": {"arch": "lfm2", "d": 2048, "ff": 8192, "heads": 32, "kv": 8, "dim": 64},
}  # fmt: skip


def plan(widths: dict[str, Any], layers: int, vocabulary: int, tied: bool) -> Plan:
    """All tensors of a model with ``layers`` blocks."""
    w = widths
    found = Plan(
        keys={
            "block_count": layers,
            "context_length": 131072,
            "embedding_length": w["d"],
            "feed_forward_length": w.get("ff", 0),
            "attention.layer_norm_rms_epsilon": 1e-6,
            "vocab_size": vocabulary,
        }
    )
    found.small["output_norm.weight"] = (w["d"],)
    found.large["token_embd.weight"] = (vocabulary, w["d"])
    if not tied:
        found.large["output.weight"] = (vocabulary, w["d"])
    if "heads" in w:
        found.keys |= {"attention.head_count": w["heads"], "attention.head_count_kv": w["kv"]}
    if "dim" in w:
        found.keys |= {
            "attention.key_length": w["dim"],
            "attention.value_length": w["dim"],
            "rope.dimension_count": w["dim"],
            "rope.freq_base": 1e6,
        }
    if "window" in w:
        found.keys["attention.sliding_window"] = w["window"]
    for number in range(layers):
        _BLOCKS[w["arch"]](found, f"blk.{number}.", w, number)
    return found


def _attention(found: Plan, at: str, w: dict[str, Any]) -> None:
    d, queries, keys = w["d"], w["heads"] * w["dim"], w["kv"] * w["dim"]
    found.small[at + "attn_norm.weight"] = (d,)
    found.large[at + "attn_q.weight"] = (queries, d)
    found.large[at + "attn_k.weight"] = found.large[at + "attn_v.weight"] = (keys, d)
    found.large[at + "attn_output.weight"] = (d, queries)


def _feed_forward(found: Plan, at: str, w: dict[str, Any]) -> None:
    found.small[at + "ffn_norm.weight"] = (w["d"],)
    found.large[at + "ffn_gate.weight"] = found.large[at + "ffn_up.weight"] = (w["ff"], w["d"])
    found.large[at + "ffn_down.weight"] = (w["d"], w["ff"])


def _experts(found: Plan, at: str, w: dict[str, Any]) -> None:
    found.small[at + "ffn_norm.weight"] = (w["d"],)
    found.small[at + "ffn_gate_inp.weight"] = (w["experts"], w["d"])
    inner = (w["experts"], w["expert_ff"], w["d"])
    found.large[at + "ffn_gate_exps.weight"] = found.large[at + "ffn_up_exps.weight"] = inner
    found.large[at + "ffn_down_exps.weight"] = (w["experts"], w["d"], w["expert_ff"])
    found.keys |= {
        "expert_count": w["experts"],
        "expert_used_count": w["used"],
        "expert_feed_forward_length": w["expert_ff"],
    }


def _llama(found: Plan, at: str, w: dict[str, Any], number: int) -> None:
    _attention(found, at, w)
    _feed_forward(found, at, w)


def _qwen2(found: Plan, at: str, w: dict[str, Any], number: int) -> None:
    _llama(found, at, w, number)
    found.small[at + "attn_q.bias"] = (w["heads"] * w["dim"],)
    found.small[at + "attn_k.bias"] = found.small[at + "attn_v.bias"] = (w["kv"] * w["dim"],)


def _gemma2(found: Plan, at: str, w: dict[str, Any], number: int) -> None:
    _llama(found, at, w, number)
    found.small[at + "post_attention_norm.weight"] = (w["d"],)
    found.small[at + "post_ffw_norm.weight"] = (w["d"],)


def _gemma3(found: Plan, at: str, w: dict[str, Any], number: int) -> None:
    _gemma2(found, at, w, number)
    found.small[at + "attn_q_norm.weight"] = found.small[at + "attn_k_norm.weight"] = (w["dim"],)


def _qwen3moe(found: Plan, at: str, w: dict[str, Any], number: int) -> None:
    _attention(found, at, w)
    _experts(found, at, w)
    found.small[at + "attn_q_norm.weight"] = found.small[at + "attn_k_norm.weight"] = (w["dim"],)


def _mamba(found: Plan, at: str, w: dict[str, Any], number: int) -> None:
    d, inner, state, rank = w["d"], w["inner"], w["state"], w["rank"]
    found.keys |= {
        "ssm.conv_kernel": 4,
        "ssm.inner_size": inner,
        "ssm.state_size": state,
        "ssm.time_step_rank": rank,
        "attention.head_count": 0,
    }
    found.small |= {
        at + "attn_norm.weight": (d,),
        at + "ssm_conv1d.weight": (inner, 4),
        at + "ssm_conv1d.bias": (inner,),
        at + "ssm_dt.bias": (inner,),
        at + "ssm_a": (inner, state),
        at + "ssm_d": (inner,),
    }
    found.large |= {
        at + "ssm_in.weight": (2 * inner, d),
        at + "ssm_x.weight": (rank + 2 * state, inner),
        at + "ssm_dt.weight": (inner, rank),
        at + "ssm_out.weight": (d, inner),
    }


def _deepseek2(found: Plan, at: str, w: dict[str, Any], number: int) -> None:
    d, heads, rank, rope = w["d"], w["heads"], w["rank"], w["rope"]
    found.keys |= {
        "leading_dense_block_count": 1,
        "attention.q_lora_rank": w["query_rank"],
        "attention.kv_lora_rank": rank,
        "attention.key_length": rank + rope,
        "attention.value_length": rank,
        "attention.key_length_mla": w["nope"] + rope,
        "attention.value_length_mla": w["value"],
        "rope.dimension_count": rope,
        "expert_shared_count": 2,
        "expert_weights_scale": 1.0,
    }
    found.small |= {
        at + "attn_norm.weight": (d,),
        at + "attn_q_a_norm.weight": (w["query_rank"],),
        at + "attn_kv_a_norm.weight": (rank,),
    }
    found.large |= {
        at + "attn_q_a.weight": (w["query_rank"], d),
        at + "attn_q_b.weight": (heads * (w["nope"] + rope), w["query_rank"]),
        at + "attn_kv_a_mqa.weight": (rank + rope, d),
        at + "attn_k_b.weight": (heads, rank, w["nope"]),
        at + "attn_v_b.weight": (heads, w["value"], rank),
        at + "attn_output.weight": (d, heads * w["value"]),
    }
    if number == 0:
        _feed_forward(found, at, w)
        return
    _experts(found, at, w)
    shared = 2 * w["expert_ff"]
    found.large |= {
        at + "ffn_gate_shexp.weight": (shared, d),
        at + "ffn_up_shexp.weight": (shared, d),
        at + "ffn_down_shexp.weight": (d, shared),
    }


def _lfm2(found: Plan, at: str, w: dict[str, Any], number: int) -> None:
    """Every third block attends; the others have a short convolution with a constant state."""
    d, layers = w["d"], found.keys["block_count"]
    found.keys |= {
        "shortconv.l_cache": 3,
        "attention.head_count_kv": [w["kv"] if n % 3 == 2 else 0 for n in range(layers)],
    }
    found.small["token_embd_norm.weight"] = (d,)
    found.small.pop("output_norm.weight", None)
    if number % 3 == 2:
        _attention(found, at, w)
        norms = (w["dim"],)
        found.small[at + "attn_q_norm.weight"] = found.small[at + "attn_k_norm.weight"] = norms
    else:
        found.small[at + "attn_norm.weight"] = (d,)
        found.small[at + "shortconv.conv.weight"] = (d, 3)
        found.large[at + "shortconv.in_proj.weight"] = (3 * d, d)
        found.large[at + "shortconv.out_proj.weight"] = (d, d)
    _feed_forward(found, at, w)


_BLOCKS = {
    "llama": _llama,
    "qwen2": _qwen2,
    "gemma2": _gemma2,
    "gemma3": _gemma3,
    "qwen3moe": _qwen3moe,
    "mamba": _mamba,
    "deepseek2": _deepseek2,
    "lfm2": _lfm2,
}
