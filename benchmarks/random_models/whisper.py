"""Whisper models with random weights in the widths of real ones, as CTranslate2 folders.

The weights say nothing, but decoding must be like that of a recording: a real window ends after
some hundred tokens, while random weights run to the limit and fall back five times. So the
position embeddings are a script: position ``p`` points at the embedding of the ``p``-th token to
say, and after ``tokens`` of them at the end of the text.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

#: width, feed-forward width, attention heads, mels, vocabulary of the published models
SHAPES = {
    "tiny": (384, 1536, 6, 80, 51865),
    "base": (512, 2048, 8, 80, 51865),
    "small": (768, 3072, 12, 80, 51865),
    "medium": (1024, 4096, 16, 80, 51865),
    "large-v3": (1280, 5120, 20, 128, 51866),
}
_STARTER = "whisper-base"
_PROMPT_TOKENS = 3  # start of transcript, language, task
_PROMPT_LAST = _PROMPT_TOKENS - 1
_POINTER_NORM, _TOKEN_NORM = 40.0, 3.0


def ctranslate2(
    folder: Path,
    *,
    shape: str,
    encoder_layers: int,
    decoder_layers: int,
    stored: str = "float16",
    tokens: int = 110,
) -> Path:
    """Write the model; a window of it is transcribed as ``tokens`` words without sense."""
    import torch
    from ctranslate2.converters.transformers import WhisperLoader
    from transformers import WhisperConfig, WhisperForConditionalGeneration

    from workbench import models

    starter = models.locate(_STARTER)
    assert starter is not None, f"pull {_STARTER} first"
    vocabulary = (starter / "vocabulary.txt").read_text(encoding="utf-8").splitlines()
    width, ffn, heads, mels, vocabulary_size = SHAPES[shape]
    vocabulary += [f"<|extra {n}|>" for n in range(vocabulary_size - len(vocabulary))]
    torch.manual_seed(0)
    model = WhisperForConditionalGeneration(
        WhisperConfig(
            vocab_size=vocabulary_size,
            num_mel_bins=mels,
            d_model=width,
            encoder_layers=encoder_layers,
            decoder_layers=decoder_layers,
            encoder_attention_heads=heads,
            decoder_attention_heads=heads,
            encoder_ffn_dim=ffn,
            decoder_ffn_dim=ffn,
            init_std=0.005,  # so small that the script is louder than the layers
        )
    ).eval()
    known = json.loads((starter / "config.json").read_text(encoding="utf-8"))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:  # equal norms and biases would be stored once
                parameter.add_(0.001 * torch.randn_like(parameter))
        _write_script(model.model.decoder, vocabulary, known["suppress_ids"], tokens)
        spec = WhisperLoader().get_model_spec(model)
        del model
        spec.register_vocabulary(vocabulary)
        for name in ("suppress_ids", "suppress_ids_begin", "lang_ids"):
            spec.config.add_attribute(name, known[name])
        last = range(decoder_layers // 2, decoder_layers)
        alignment = [[layer, head] for layer in last for head in range(heads)][:10]
        spec.config.add_attribute("alignment_heads", alignment)
        spec.validate()
        spec.optimize(quantization=stored)
        spec.save(str(folder))
    (folder / "tokenizer.json").write_bytes((starter / "tokenizer.json").read_bytes())
    (folder / "preprocessor_config.json").write_text(json.dumps({"feature_size": mels}))
    return folder


def _write_script(decoder, vocabulary: list[str], suppressed: list[int], tokens: int) -> None:
    import torch

    words = [
        index
        for index, token in enumerate(vocabulary)
        if re.fullmatch("Ġ[a-z]{3,8}", token) and index not in suppressed
    ]
    start = vocabulary.index("<|0.00|>")
    said = [start, *words[: tokens - 1]]
    end = vocabulary.index("<|endoftext|>")
    width = decoder.embed_tokens.weight.shape[1]
    directions = torch.nn.functional.normalize(torch.randn(len(said) + 1, width), dim=1)
    positions = decoder.embed_positions.weight
    for index, token in enumerate([*said, end]):
        decoder.embed_tokens.weight[token] = _TOKEN_NORM * directions[index]
        positions[_PROMPT_LAST + index] = _POINTER_NORM * directions[index]
    positions[_PROMPT_LAST + len(said) :] = _POINTER_NORM * directions[-1]
