"""Activation profiles of known architectures: shipped ones, then those traced on this machine.

A profile belongs to an architecture and the fields of its configuration that change what is live
in a pass. Those fields, with the defaults of diffusers and transformers for files that leave them
out, are in `FIELDS`; two models that agree in them share a profile.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from workbench.memory.facts import ActivationProfile
from workbench.settings import get_settings

Profiles = dict[str, ActivationProfile]

_SHIPPED = Path(__file__).parent.parent / "profiles"
_ADAPTER = TypeAdapter(Profiles)
#: Raised when the tracer counts differently: files traced before are then not used.
_VERSION = 2

_CLIP: dict[str, Any] = {
    "hidden_size": 512,
    "intermediate_size": 2048,
    "num_hidden_layers": 12,
    "num_attention_heads": 8,
    "vocab_size": 49408,
}
_T5: dict[str, Any] = {
    "d_model": 512,
    "d_kv": 64,
    "d_ff": 2048,
    "num_heads": 8,
    "num_layers": 6,
    "feed_forward_proj": "relu",
    "vocab_size": 32128,
}

#: Architecture -> field -> the value that a configuration without it has.
FIELDS: dict[str, dict[str, Any]] = {
    "UNet2DConditionModel": {
        "in_channels": 4,
        "out_channels": 4,
        "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
        "mid_block_type": "UNetMidBlock2DCrossAttn",
        "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
        "only_cross_attention": False,
        "block_out_channels": [320, 640, 1280, 1280],
        "layers_per_block": 2,
        "norm_num_groups": 32,
        "cross_attention_dim": 1280,
        "transformer_layers_per_block": 1,
        "reverse_transformer_layers_per_block": None,
        "attention_head_dim": 8,
        "num_attention_heads": None,
        "use_linear_projection": False,
        "class_embed_type": None,
        "num_class_embeds": None,
        "addition_embed_type": None,
        "addition_time_embed_dim": None,
        "projection_class_embeddings_input_dim": None,
        "encoder_hid_dim": None,
        "encoder_hid_dim_type": None,
        "upcast_attention": False,
        "resnet_time_scale_shift": "default",
        "time_cond_proj_dim": None,
        "conv_in_kernel": 3,
        "conv_out_kernel": 3,
    },
    "SD3Transformer2DModel": {
        "patch_size": 2,
        "in_channels": 16,
        "num_layers": 18,
        "attention_head_dim": 64,
        "num_attention_heads": 18,
        "joint_attention_dim": 4096,
        "caption_projection_dim": 1152,
        "pooled_projection_dim": 2048,
        "out_channels": 16,
        "pos_embed_max_size": 96,
        "dual_attention_layers": [],
        "qk_norm": None,
    },
    "FluxTransformer2DModel": {
        "patch_size": 1,
        "in_channels": 64,
        "out_channels": None,
        "num_layers": 19,
        "num_single_layers": 38,
        "attention_head_dim": 128,
        "num_attention_heads": 24,
        "joint_attention_dim": 4096,
        "pooled_projection_dim": 768,
        "guidance_embeds": False,
        "axes_dims_rope": [16, 56, 56],
    },
    "PixArtTransformer2DModel": {
        "num_attention_heads": 16,
        "attention_head_dim": 72,
        "in_channels": 4,
        "out_channels": 8,
        "num_layers": 28,
        "cross_attention_dim": 1152,
        "attention_bias": True,
        "sample_size": 128,
        "patch_size": 2,
        "activation_fn": "gelu-approximate",
        "norm_type": "ada_norm_single",
        "norm_elementwise_affine": False,
        "use_additional_conditions": None,
        "caption_channels": None,
    },
    "AutoencoderKL": {
        "in_channels": 3,
        "out_channels": 3,
        "down_block_types": ["DownEncoderBlock2D"],
        "up_block_types": ["UpDecoderBlock2D"],
        "block_out_channels": [64],
        "layers_per_block": 1,
        "latent_channels": 4,
        "norm_num_groups": 32,
        "use_quant_conv": True,
        "use_post_quant_conv": True,
        "mid_block_add_attention": True,
    },
    "clip_text_model": _CLIP,
    "t5": _T5,
}


#: Counts of equal layers: one follows the other, so a pass of two is live as much as one of many.
_REPEATED = {
    "SD3Transformer2DModel": ("num_layers",),
    "FluxTransformer2DModel": ("num_layers", "num_single_layers"),
    "PixArtTransformer2DModel": ("num_layers",),
    "t5": ("num_layers",),
}


def shortened(architecture: str, config: dict[str, Any]) -> dict[str, Any]:
    """The configuration with as few layers as are needed to see what a pass takes."""
    counts = {name: FIELDS[architecture][name] for name in _REPEATED.get(architecture, ())}
    short = {name: min(2, int(config.get(name, default))) for name, default in counts.items()}
    return {**config, **short}


def digest(architecture: str, config: dict[str, Any]) -> str | None:
    """The key of the profiles of an architecture; None for one that is not in `FIELDS`."""
    fields = FIELDS.get(architecture)
    if fields is None:
        return None
    config = shortened(architecture, config)
    values = {name: config.get(name, default) for name, default in fields.items()}
    text = json.dumps([_VERSION, architecture, values], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def find_profiles(key: str) -> Profiles | None:
    """Shipped profiles, else those traced on this machine; None where neither has ``key``."""
    shipped = _shipped().get(key)
    if shipped is not None:
        return shipped
    path = _cache_file(key)
    try:
        return _read(path, path.stat().st_mtime_ns)
    except FileNotFoundError:
        return None
    except (OSError, ValidationError):  # half-written by another program: trace it again
        return None


def keep_profiles(key: str, architecture: str, found: Profiles) -> None:
    """Keep what was traced under ``WORKBENCH_HOME``, by a rename: readers see all or nothing."""
    path = _cache_file(key)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f"{key}-", suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(_ADAPTER.dump_json(found, indent=1))
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _cache_file(key: str) -> Path:
    return get_settings().home / "profiles" / f"{key}.json"


@lru_cache(maxsize=64)
def _read(path: Path, changed_ns: int) -> Profiles:
    return _ADAPTER.validate_json(path.read_bytes())


@lru_cache(maxsize=1)
def _shipped() -> dict[str, Profiles]:
    """All shipped profiles by key. One file a model, one entry a component."""
    found: dict[str, Profiles] = {}
    for file in sorted(_SHIPPED.glob("*.json")):
        for key, entry in json.loads(file.read_text(encoding="utf-8")).items():
            found[key] = _ADAPTER.validate_python(entry["profiles"])
    return found
