"""Diffusion pipelines with zero weights: the published shapes, with fewer layers on demand.

`SHAPES` holds the configurations as published with the models (fields that are not named have
the defaults of diffusers and transformers). `pipeline` writes one as a folder. A layer count can
be lowered so that a model is quick to build and to run; widths are never changed, because they
decide what a layer takes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

_CLIP_L = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "projection_dim": 768,
    "hidden_act": "quick_gelu",
    "vocab_size": 49408,
}
_CLIP_G = {
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "num_hidden_layers": 32,
    "num_attention_heads": 20,
    "projection_dim": 1280,
    "hidden_act": "gelu",
    "vocab_size": 49408,
}
_T5_XXL = {
    "d_model": 4096,
    "d_kv": 64,
    "d_ff": 10240,
    "num_heads": 64,
    "num_layers": 24,
    "vocab_size": 32128,
    "feed_forward_proj": "gated-gelu",
    "is_encoder_decoder": False,
}
_VAE = {
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
    "sample_size": 512,
}
_VAE_16 = {
    **_VAE,
    "latent_channels": 16,
    "use_quant_conv": False,
    "use_post_quant_conv": False,
    "sample_size": 1024,
}

#: Model -> part -> (class, configuration).
SHAPES: dict[str, dict[str, tuple[str, dict[str, Any]]]] = {
    "sd15": {
        "text_encoder": ("CLIPTextModel", _CLIP_L),
        "unet": (
            "UNet2DConditionModel",
            {"sample_size": 64, "cross_attention_dim": 768, "attention_head_dim": 8},
        ),
        "vae": ("AutoencoderKL", _VAE),
    },
    "sdxl": {
        "text_encoder": ("CLIPTextModel", _CLIP_L),
        "text_encoder_2": ("CLIPTextModelWithProjection", _CLIP_G),
        "unet": (
            "UNet2DConditionModel",
            {
                "sample_size": 128,
                "block_out_channels": (320, 640, 1280),
                "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
                "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
                "transformer_layers_per_block": (1, 2, 10),
                "cross_attention_dim": 2048,
                "attention_head_dim": (5, 10, 20),
                "use_linear_projection": True,
                "addition_embed_type": "text_time",
                "addition_time_embed_dim": 256,
                "projection_class_embeddings_input_dim": 2816,
            },
        ),
        "vae": ("AutoencoderKL", {**_VAE, "sample_size": 1024, "scaling_factor": 0.13025}),
    },
    "sd3": {
        "text_encoder": ("CLIPTextModelWithProjection", _CLIP_L),
        "text_encoder_2": ("CLIPTextModelWithProjection", _CLIP_G),
        "text_encoder_3": ("T5EncoderModel", _T5_XXL),
        "transformer": (
            "SD3Transformer2DModel",
            {
                "num_layers": 24,
                "num_attention_heads": 24,
                "caption_projection_dim": 1536,
                "pos_embed_max_size": 192,
            },
        ),
        "vae": ("AutoencoderKL", {**_VAE_16, "scaling_factor": 1.5305, "shift_factor": 0.0609}),
    },
    "flux": {
        "text_encoder": ("CLIPTextModel", _CLIP_L),
        "text_encoder_2": ("T5EncoderModel", _T5_XXL),
        "transformer": ("FluxTransformer2DModel", {"guidance_embeds": True}),
        "vae": ("AutoencoderKL", {**_VAE_16, "scaling_factor": 0.3611, "shift_factor": 0.1159}),
    },
    "pixart": {
        "text_encoder": ("T5EncoderModel", _T5_XXL),
        "transformer": (
            "PixArtTransformer2DModel",
            {
                "caption_channels": 4096,
                "interpolation_scale": 2,
                "use_additional_conditions": False,
            },
        ),
        "vae": ("AutoencoderKL", {**_VAE, "sample_size": 1024, "scaling_factor": 0.13025}),
    },
}

_PIPELINES = {
    "sd15": "StableDiffusionPipeline",
    "sdxl": "StableDiffusionXLPipeline",
    "sd3": "StableDiffusion3Pipeline",
    "flux": "FluxPipeline",
    "pixart": "PixArtSigmaPipeline",
}


def pipeline(
    folder: Path,
    model: str,
    dtype: str = "float16",
    text_layers: int = 2,
    t5_layers: int = 1,
    **denoiser: Any,
) -> Path:
    """A pipeline of `SHAPES` with fewer layers. ``denoiser`` replaces fields of its denoiser."""
    import diffusers
    import torch
    import transformers

    parts: dict[str, Any] = {}
    for name, (kind, shape) in SHAPES[model].items():
        config = dict(shape)
        if kind.startswith("CLIP"):
            config |= {"num_hidden_layers": text_layers, "bos_token_id": 0, "eos_token_id": 1}
            config |= {"pad_token_id": 1}
        elif kind.startswith("T5"):
            config |= {"num_layers": t5_layers}
        elif kind != "AutoencoderKL":
            config |= {k: tuple(v) if isinstance(v, list) else v for k, v in denoiser.items()}
        with torch.device("meta"):
            if kind.startswith(("CLIP", "T5")):
                cls = getattr(transformers, kind)
                part = cls(cls.config_class(**config))
            else:
                part = getattr(diffusers, kind)(**config)
        part = part.to_empty(device="cpu").to(getattr(torch, dtype))
        with torch.no_grad():
            for value in (*part.parameters(), *part.buffers()):
                value.zero_()
        if hasattr(part, "tie_weights"):
            part.tie_weights()  # undone by the step above, and the file would hold both
        parts[name] = part
        if kind.startswith(("CLIP", "T5")):
            parts[name.replace("text_encoder", "tokenizer")] = _tokenizer(kind)
    made = getattr(diffusers, _PIPELINES[model])
    extra = (
        {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
        if model == "sd15"
        else {}
    )
    made(**parts, scheduler=_scheduler(model), **extra).save_pretrained(folder)
    return folder


def _tokenizer(kind: str) -> Any:
    """The smallest one that reads an English prompt, letter by letter."""
    from transformers import CLIPTokenizer, T5Tokenizer

    if kind.startswith("T5"):
        return T5Tokenizer(model_max_length=512)
    vocabulary = {"<|startoftext|>": 0, "<|endoftext|>": 1}
    for letter in "abcdefghijklmnopqrstuvwxyz":
        vocabulary[letter] = len(vocabulary)
        vocabulary[letter + "</w>"] = len(vocabulary)
    return CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=77)


def _scheduler(model: str) -> Any:
    import diffusers

    if model == "flux":
        return diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True)
    if model == "sd3":
        return diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
    if model == "pixart":
        return diffusers.DPMSolverMultistepScheduler()
    return diffusers.EulerDiscreteScheduler(beta_schedule="scaled_linear", beta_start=0.00085)
