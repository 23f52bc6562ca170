"""An engine that computes nothing, so that logic can be tested in milliseconds.

It exists for tests only: no catalogue entry of the project uses it. Behaviour is set by
``spec.options``: ``reply`` (chat text; default: the last message backwards), ``fail`` (raise
ProviderError with this text), ``load_fail`` (raise it while loading), ``hold_bytes`` (memory to
take while loaded).
"""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from workbench.engines.base import (
    ChatDelta,
    ChatOptions,
    DrawnImages,
    ImageOptions,
    ImageStep,
    Message,
    Segment,
    SpeechInfo,
    SpeechOptions,
    StopCheck,
    Usage,
    Word,
    never_stop,
)
from workbench.errors import Cancelled, ProviderError, UnknownOption
from workbench.memory.request import LoadOptions

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from workbench.models.spec import ModelSpec

_SAMPLE_RATE_HZ = 16_000
_SILENCE = 1e-4


class StubModel:
    """All four capabilities, each a pure function of its input."""

    def __init__(self, spec: ModelSpec) -> None:
        self.spec = spec
        self._held: bytearray | None = bytearray(int(spec.options.get("hold_bytes", 0)))

    def close(self) -> None:
        self._held = None

    def stream(
        self,
        messages: Sequence[Message],
        options: ChatOptions,
        should_stop: StopCheck = never_stop,
    ) -> Generator[ChatDelta, None, None]:
        self._maybe_fail()
        reply = str(self.spec.options.get("reply", messages[-1].content[::-1]))
        pieces = reply.split(" ")
        prompt_tokens = sum(len(message.content.split()) for message in messages)
        finish = "stop"
        sent = 0
        for number, piece in enumerate(pieces):
            if should_stop():
                finish = "cancelled"
                break
            if number == options.max_tokens:
                finish = "length"
                break
            yield ChatDelta(text=piece if number == 0 else " " + piece)
            sent += 1
        usage = Usage(prompt_tokens, sent)
        if finish == "cancelled":
            yield ChatDelta(finish_reason="cancelled", usage=usage)
        elif finish == "length":
            yield ChatDelta(finish_reason="length", usage=usage)
        else:
            yield ChatDelta(finish_reason="stop", usage=usage)

    def transcribe(
        self,
        samples: NDArray[np.float32],
        options: SpeechOptions,
        should_stop: StopCheck = never_stop,
    ) -> tuple[SpeechInfo, Iterator[Segment]]:
        self._maybe_fail()
        seconds = len(samples) / _SAMPLE_RATE_HZ
        loud = [
            second
            for second in range(int(seconds) + 1)
            if (part := samples[second * _SAMPLE_RATE_HZ : (second + 1) * _SAMPLE_RATE_HZ]).size
            and abs(part).max() > _SILENCE
        ]

        def segments() -> Iterator[Segment]:
            for second in loud:
                if should_stop():
                    return
                end = min(second + 1.0, seconds)
                text = f" second {second}"
                words = (Word(second, end, text, 1.0),) if options.words else ()
                yield Segment(float(second), end, text, words=words)

        info = SpeechInfo(options.language or "en", 1.0, seconds, float(len(loud)))
        return info, segments()

    def draw(
        self, options: ImageOptions, should_stop: StopCheck = never_stop
    ) -> Iterator[ImageStep | DrawnImages]:
        from PIL import Image

        self._maybe_fail()
        if options.sampler.startswith("no such"):
            raise UnknownOption(f"There is no sampler {options.sampler!r}.", "Use DPM++ 2M.")
        for step in range(options.steps):
            if should_stop():
                raise Cancelled("The drawing was stopped.")
            yield ImageStep(step + 1, options.steps)
        size = (options.width or 32, options.height or 32)
        colours = [
            hashlib.sha256(f"{options.prompt}{options.seed + i}".encode()).digest()[:3]
            for i in range(options.batch)
        ]
        images = tuple(Image.new("RGB", size, (c[0], c[1], c[2])) for c in colours)
        yield DrawnImages(images, {"encode_prompt": 0.0, "denoise": 0.0, "decode": 0.0})

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        import numpy as np

        self._maybe_fail()
        vectors: NDArray[np.float32] = np.empty((len(texts), 8), dtype=np.float32)
        for row, text in enumerate(texts):
            digest = hashlib.sha256(text.encode()).digest()
            vectors[row] = np.frombuffer(digest[:8], dtype=np.uint8).astype(np.float32) + 1
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors

    def _maybe_fail(self) -> None:
        if "fail" in self.spec.options:
            raise ProviderError(str(self.spec.options["fail"]), "Stop failing.")


def load(spec: ModelSpec, path: Path, options: LoadOptions) -> StubModel:
    """Make the stub; ``path`` and ``options`` do not matter."""
    if "load_fail" in spec.options:
        raise ProviderError(str(spec.options["load_fail"]), "Stop failing.")
    return StubModel(spec)
