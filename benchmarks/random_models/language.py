"""Language models with random weights: GGUF files, and checkpoints of the transformers library."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from random_models import gguf_architectures
from workbench import models


def gguf(
    folder: Path,
    widths: str,
    layers: int = 2,
    quantization: str = "Q8_0",
    vocabulary: int = 0,
    tied: bool = False,
    tokenizer: str = "qwen2.5-coder-0.5b",
) -> Path:
    """A GGUF file with the widths of a published model and a starter's tokenizer.

    ``vocabulary`` adds unused tokens up to that number. Norms and biases stay in float32.
    """
    import gguf as library

    shape = gguf_architectures.WIDTHS[widths]
    path = folder / f"{widths}.gguf"
    writer = library.GGUFWriter(path, shape["arch"])
    tokens = _copy_tokenizer(library, writer, models.locate(tokenizer), vocabulary)
    found = gguf_architectures.plan(shape, layers, tokens, tied)
    for key, value in found.keys.items():
        _add(writer, f"{shape['arch']}.{key}", value)
    kind = library.GGMLQuantizationType[quantization]
    made: dict[tuple[int, ...], Any] = {}
    for name in sorted(found.small | found.large, key=_place):
        if name in found.small:
            writer.add_tensor(name, np.ones(found.small[name], np.float32))
            continue
        dimensions = found.large[name]
        if dimensions not in made:
            made[dimensions] = _quantized(library, dimensions, kind)
        writer.add_tensor(name, made[dimensions], raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _place(name: str) -> tuple[int, str]:
    """Real files go from the embedding through the blocks to the output, norms in between."""
    if name.startswith("blk."):
        return int(name.split(".")[1]), name
    return (-1 if name.startswith("token_embd") else 10**6), name


def _quantized(library: Any, dimensions: tuple[int, ...], kind: Any) -> Any:
    """A few random rows, quantized and repeated: memory does not depend on the values."""
    *outer, row = dimensions
    rows = math.prod(outer)
    values = np.random.default_rng(0).standard_normal((16, row), dtype=np.float32) / 100
    some = library.quants.quantize(values, kind)
    return np.tile(some, (-(-rows // 16), 1))[:rows].reshape(*outer, -1)


def _add(writer: Any, key: str, value: Any) -> None:
    if isinstance(value, str):
        writer.add_string(key, value)
    elif isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    elif isinstance(value, list):
        writer.add_array(key, value)
    else:
        writer.add_uint32(key, value)


def _copy_tokenizer(library: Any, writer: Any, source: Path | None, vocabulary: int) -> int:
    """Copy the ``tokenizer.*`` keys of a GGUF file; returns the number of tokens."""
    assert source is not None, "pull the starters first: workbench models pull --starters"
    count = 0
    for key, entry in library.GGUFReader(source).fields.items():
        if not key.startswith("tokenizer."):
            continue
        value = entry.contents()
        if key == "tokenizer.ggml.tokens":
            value += [f"<unused{number}>" for number in range(len(value), vocabulary)]
            count = len(value)
        elif key == "tokenizer.ggml.token_type":
            value += [int(library.TokenType.UNUSED)] * (vocabulary - len(value))
        _add(writer, key, value)
    return count


#: Configurations of published models, by the name of their class in transformers.
CHECKPOINTS: dict[str, dict[str, Any]] = {
    "llama-3.2-1b": {
        "kind": "Llama", "vocab_size": 128256, "hidden_size": 2048, "intermediate_size": 8192,
        "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 64,
        "tie_word_embeddings": True,
    },
    "qwen2-1.5b": {
        "kind": "Qwen2", "vocab_size": 151936, "hidden_size": 1536, "intermediate_size": 8960,
        "num_attention_heads": 12, "num_key_value_heads": 2, "tie_word_embeddings": True,
    },
    "mistral-7b": {
        "kind": "Mistral", "vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 14336,
        "num_attention_heads": 32, "num_key_value_heads": 8, "sliding_window": 512,
    },
    "gemma-2-2b": {
        "kind": "Gemma2", "vocab_size": 256000, "hidden_size": 2304, "intermediate_size": 9216,
        "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256,
    },
    # of the 128 experts 32 are built
    "qwen3-30b-a3b": {
        "kind": "Qwen3Moe", "vocab_size": 151936, "hidden_size": 2048, "intermediate_size": 6144,
        "num_attention_heads": 32, "num_key_value_heads": 4, "head_dim": 128, "num_experts": 32,
        "num_experts_per_tok": 8, "moe_intermediate_size": 768, "tie_word_embeddings": True,
    },
    # of the 64 experts 16 are built
    "deepseek-v2-lite": {
        "kind": "DeepseekV2", "vocab_size": 102400, "hidden_size": 2048,
        "intermediate_size": 10944, "num_attention_heads": 16, "num_key_value_heads": 16,
        "q_lora_rank": None, "kv_lora_rank": 512, "qk_rope_head_dim": 64,
        "qk_nope_head_dim": 128, "v_head_dim": 128, "n_routed_experts": 16,
        "num_experts_per_tok": 6, "n_shared_experts": 2, "moe_intermediate_size": 1408,
        "first_k_dense_replace": 1,
    },
    "mamba-1.4b": {"kind": "Mamba", "vocab_size": 50280, "hidden_size": 2048},
    "gpt2-medium": {
        "kind": "GPT2", "vocab_size": 50257, "n_embd": 1024, "n_head": 16, "n_positions": 8192,
    },
}  # fmt: skip

ENCODERS: dict[str, dict[str, int]] = {
    "minilm-l6": {"hidden_size": 384, "intermediate_size": 1536, "num_attention_heads": 12},
    "bge-base": {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12},
    "bge-large": {"hidden_size": 1024, "intermediate_size": 4096, "num_attention_heads": 16},
}


def checkpoint(folder: Path, widths: str, layers: int = 2, dtype: str = "bfloat16") -> Path:
    """A chat checkpoint of the transformers library; its tokenizer knows a few words."""
    import torch
    import transformers

    values = dict(CHECKPOINTS[widths])
    config = getattr(transformers, f"{values.pop('kind')}Config")(
        **values,
        num_hidden_layers=layers,
        **({} if "n_positions" in values else {"max_position_embeddings": 32768}),
        eos_token_id=None,
        bos_token_id=None,
        pad_token_id=1,
    )
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=getattr(torch, dtype))
    model.save_pretrained(folder)
    _tokenizer().save_pretrained(folder)
    return folder


def encoder(folder: Path, widths: str, layers: int = 2, dtype: str = "float32") -> Path:
    """A BERT for sentence embeddings."""
    import torch
    import transformers

    config = transformers.BertConfig(
        vocab_size=30522, num_hidden_layers=layers, pad_token_id=1, **ENCODERS[widths]
    )
    torch.manual_seed(0)
    transformers.AutoModel.from_config(config, dtype=getattr(torch, dtype)).save_pretrained(folder)
    _tokenizer().save_pretrained(folder)
    return folder


def _tokenizer() -> Any:
    """Words to tokens, one each, between a first and a last token."""
    from tokenizers import Tokenizer, pre_tokenizers
    from tokenizers.models import WordLevel
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    words = ["<unk>", "<eos>", "<bos>", "a", "user", "assistant", ":"]
    tokenizer = Tokenizer(WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = TemplateProcessing(
        single="<bos> $A <eos>", special_tokens=[("<bos>", 2), ("<eos>", 1)]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="<unk>",
        eos_token="<eos>",
        pad_token="<eos>",
        model_max_length=512,
    )
    fast.chat_template = (
        "{% for m in messages %}{{ m['role'] }} : {{ m['content'] }} {% endfor %}assistant :"
    )
    return fast
