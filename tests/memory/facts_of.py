"""Facts of models as their files would give them: published sizes, no files."""

from __future__ import annotations

from typing import Any

from workbench.memory.facts import Component, ModelFacts
from workbench.memory.headers import WeightsHeader
from workbench.memory.machine import Machine

GB, GIB, MIB = 10**9, 2**30, 2**20

#: What a calibrated H100 would say: dense half precision, HBM3, PCIe 5.
H100 = Machine(
    name="H100",
    is_measured=True,
    bytes_per_second={"cpu": 200e9, "cuda": 3.0e12, "host_to_cuda": 50e9, "disk": 3e9},
    flops={"cpu/float32": 2e12, "cuda/float16": 6e14, "cuda/bfloat16": 6e14, "cuda/float32": 5e13},
)


def part(
    name: str, architecture: str, size_bytes: int, dtype: str = "BF16", **config: Any
) -> Component:
    """A component whose weights are all linear, but for a hundredth."""
    other = size_bytes // 100
    return Component(
        name=name,
        architecture=architecture,
        config=config,
        weights=WeightsHeader(
            weights_bytes=size_bytes,
            bytes_by_dtype={dtype: size_bytes},
            bytes_by_kind={"linear": {dtype: size_bytes - other}, "other": {dtype: other}},
        ),
    )


def facts(task: str, engine: str, *components: Component, **values: Any) -> ModelFacts:
    return ModelFacts(
        model=f"{engine}-{task}", task=task, engine=engine, components=components, **values
    )


def flux() -> ModelFacts:
    """FLUX.1-dev: 11.9, 4.76 and 0.12 billion weights in 16 bit, and its VAE."""
    return facts(
        "image",
        "diffusers",
        part(
            "transformer",
            "FluxTransformer2DModel",
            round(23.8 * GB),
            patch_size=1,
            in_channels=64,
            num_layers=19,
            num_single_layers=38,
            attention_head_dim=128,
            num_attention_heads=24,
            joint_attention_dim=4096,
            pooled_projection_dim=768,
            guidance_embeds=True,
        ),
        part("text_encoder", "CLIPTextModel", 246 * 10**6, max_position_embeddings=77),
        part("text_encoder_2", "T5EncoderModel", round(9.52 * GB), d_model=4096, num_layers=24),
        part(
            "vae",
            "AutoencoderKL",
            168 * 10**6,
            block_out_channels=[128, 256, 512, 512],
            latent_channels=16,
            layers_per_block=2,
            out_channels=3,
            norm_num_groups=32,
        ),
        dtype="bfloat16",
    )


def qwen_7b(context_tokens: int = 32768) -> ModelFacts:
    """A GGUF of 28 layers in 4 bit: 4.7 GB."""
    config = {
        "general.architecture": "qwen2",
        "qwen2.block_count": 28,
        "qwen2.embedding_length": 3584,
        "qwen2.feed_forward_length": 18944,
        "qwen2.attention.head_count": 28,
        "qwen2.attention.head_count_kv": 4,
        "qwen2.context_length": 32768,
        "tokenizer.ggml.tokens": 152064,
    }
    size, block = 4_683_000_000, 145_000_000
    weights = WeightsHeader(
        weights_bytes=size,
        bytes_by_dtype={"Q4_K": size},
        bytes_by_kind={
            "linear": {"Q4_K": 28 * block},
            "embedding": {"Q4_K": 260_000_000},
            "head": {"Q4_K": size - 28 * block - 260_000_000},
        },
        facts={**config, "layer_bytes": [block] * 28},
    )
    model = Component(name="model", architecture="qwen2", config=config, weights=weights)
    return facts("chat", "llama_cpp", model, context_tokens=context_tokens)


def llama_8b() -> ModelFacts:
    """A transformers model of 8 billion weights in 16 bit."""
    model = part(
        "model",
        "llama",
        16_060_000_000,
        model_type="llama",
        hidden_size=4096,
        intermediate_size=14336,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=8,
        head_dim=128,
        vocab_size=128256,
        max_position_embeddings=8192,
    )
    return facts("chat", "transformers", model, dtype="bfloat16", context_tokens=8192)


def minilm() -> ModelFacts:
    model = part(
        "model",
        "bert",
        90_800_000,
        "F32",
        model_type="bert",
        hidden_size=384,
        intermediate_size=1536,
        num_hidden_layers=6,
        num_attention_heads=12,
        vocab_size=30522,
        max_position_embeddings=512,
    )
    return facts("embedding", "transformers", model, dtype="float32", context_tokens=256)


ALL = (flux, qwen_7b, llama_8b, minilm)
