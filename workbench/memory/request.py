"""What is asked of memory: how a model is loaded, and how large one request to it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

#: Where the weights wait while they are not computed with. ``none``: all stay on the device.
Offload = Literal["none", "model", "group", "group_stream", "sequential", "disk"]
Quantization = Literal["int8", "int4", "nf4", "fp8"]
CacheType = Literal["f16", "bf16", "f32", "q8_0", "q4_0"]


@dataclass(frozen=True)
class LoadOptions:
    """How to load: everything that makes two loaded copies of one model different.

    ``None`` leaves the choice to the catalogue entry, then to the engine.

    * ``compute_type``: what is computed in (float32, bfloat16, ...; CTranslate2's names there).
    * ``quantization``: what the large linear weights are stored in, where the engine quantizes
      while it loads; the rest stays in ``compute_type``.
    * ``gpu_layers``: layers of a GGUF model that are kept on the device; ``cache_type``: what its
      key-value cache is stored in.
    * ``vae_tiling``, ``vae_slicing``: decode a picture tile by tile, a batch one by one.
    """

    device: str = "cpu"
    compute_type: str | None = None
    context_tokens: int | None = None
    threads: int | None = None
    quantization: Quantization | None = None
    offload: Offload = "none"
    gpu_layers: int | None = None
    cache_type: CacheType | None = None
    vae_tiling: bool = False
    vae_slicing: bool = False


@dataclass(frozen=True)
class RequestSize:
    """How large a request is. ``None``: the largest that the loaded model takes by itself.

    ``prompt_tokens`` is all that is read before the first new token; ``batch`` counts sequences,
    recordings' windows or pictures computed together; ``guided`` pictures compute every step
    twice; ``beams`` are candidates of a transcription, ``vad`` looks for speech first.
    """

    prompt_tokens: int | None = None
    batch: int = 1
    audio_seconds: float | None = None
    beams: int = 5
    words: bool = False
    vad: bool = True
    width: int | None = None
    height: int | None = None
    guided: bool = True
