"""What an engine promises. One Protocol per capability; knows no runtime.

An engine is a module with one function::

    def load(spec: ModelSpec, path: Path, options: LoadOptions) -> Model

``path`` is what `workbench.models.sources.locate` returned (the empty path for remote models).
What it returns is one of the Protocols below. Engines raise only errors of
`workbench.errors`; they check ``should_stop`` per token, per segment and per step.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image

    from workbench.models.spec import ModelSpec

#: Asked often while an engine works; True means: stop now and keep what there is.
StopCheck = Callable[[], bool]


def never_stop() -> bool:
    """The `StopCheck` of work that nobody can cancel."""
    return False


@runtime_checkable
class Model(Protocol):
    """Anything that is loaded. ``spec`` says what it is; `close` gives its memory back."""

    spec: ModelSpec

    def close(self) -> None:
        """Free the memory. Calling it twice does nothing."""


@runtime_checkable
class ParkableModel(Model, Protocol):
    """A model on an accelerator that can wait in host memory, which is quicker than a reload.

    The pool calls these only while nobody uses the model.
    """

    def park(self) -> None:
        """Move the weights to host memory and free those on the device."""

    def unpark(self) -> None:
        """Move them back."""


# -- chat ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Message:
    """One turn of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True)
class ChatOptions:
    """How to answer. ``temperature=0`` is greedy. ``seed`` makes sampling repeatable.

    ``grammar`` is GBNF, ``json_schema`` a JSON schema; at most one of them. An engine that
    cannot honour one raises UnknownOption: nothing is ignored.

    ``reuse_prefix`` lets an engine that still holds the beginning of this prompt from the last
    request not compute it again. The first token comes sooner, but rounding differs, so the text
    can differ from that of a fresh run even when decoding is greedy. It only makes things faster:
    an engine may do without.
    """

    max_tokens: int = 512
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    stop: tuple[str, ...] = ()
    grammar: str | None = None
    json_schema: dict[str, Any] | None = None
    reuse_prefix: bool = False


@dataclass(frozen=True)
class Usage:
    """Tokens of one answer."""

    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True)
class EngineSpeed:
    """Tokens per second as the engine itself counts them; nobody's reading slows them down.

    The prompt's counts only tokens that were computed, not a reused prefix; the decoding's
    leaves out the first token, which comes with the prompt. None: too few tokens to tell.
    """

    prompt_tokens_per_second: float | None
    tokens_per_second: float | None


@dataclass(frozen=True)
class ChatDelta:
    """A piece of an answer. Only the last one has ``finish_reason`` and, where the engine knows
    them, ``usage`` and ``speed``."""

    text: str = ""
    reasoning: str = ""
    finish_reason: Literal["stop", "length", "cancelled"] | None = None
    usage: Usage | None = None
    speed: EngineSpeed | None = None


class ChatModel(Model, Protocol):
    """A language model that continues a conversation."""

    def stream(
        self,
        messages: Sequence[Message],
        options: ChatOptions,
        should_stop: StopCheck = never_stop,
    ) -> Generator[ChatDelta, None, None]:
        """Yield the answer in pieces. Never splits a UTF-8 character.

        Closing the generator stops the computation and waits until the model is free.
        """


# -- speech ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class SpeechOptions:
    """How to transcribe. ``language=None``: detect it. ``vad``: skip what is not speech."""

    language: str | None = None
    translate: bool = False
    beam_size: int = 5
    vad: bool = True
    words: bool = False
    prompt: str | None = None
    hotwords: str | None = None


@dataclass(frozen=True)
class Word:
    """One word with its place in the recording and the model's confidence (0 to 1)."""

    start_seconds: float
    end_seconds: float
    text: str
    probability: float


@dataclass(frozen=True)
class Segment:
    """One stretch of speech in the time of the original recording."""

    start_seconds: float
    end_seconds: float
    text: str
    speaker: str | None = None
    words: tuple[Word, ...] = ()


@dataclass(frozen=True)
class SpeechInfo:
    """What the model found out before the first segment."""

    language: str
    language_probability: float
    duration_seconds: float
    speech_seconds: float


class SpeechModel(Model, Protocol):
    """A model that turns speech into text."""

    def transcribe(
        self,
        samples: NDArray[np.float32],
        options: SpeechOptions,
        should_stop: StopCheck = never_stop,
    ) -> tuple[SpeechInfo, Iterator[Segment]]:
        """Transcribe 16 kHz mono samples (shape ``(n,)``, -1 to 1), segment by segment."""


# -- image -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class ImageOptions:
    """What to draw. Image ``i`` of a batch uses ``seed + i`` on its own generator: all its noise
    is that of a single picture with that seed. Sums over a batch are rounded in another order,
    so a value of the finished picture may differ in its last bit."""

    prompt: str
    negative_prompt: str = ""
    width: int | None = None
    height: int | None = None
    steps: int = 20
    guidance_scale: float = 7.0
    sampler: str = "DPM++ 2M"
    seed: int = 0
    batch: int = 1


@dataclass(frozen=True)
class ImageStep:
    """Progress of a drawing: step ``done`` of ``total``, with a preview where it is cheap."""

    done: int
    total: int
    preview: Image | None = None


@dataclass(frozen=True)
class DrawnImages:
    """Finished pictures, with seconds per phase (encode_prompt, denoise, decode).

    ``runtime`` is what the engine chose by itself and a recipe must hold, as JSON types: the
    scheduler with its configuration, dtype, device.
    """

    images: tuple[Image, ...]
    phase_seconds: dict[str, float] = field(default_factory=dict)
    runtime: dict[str, Any] = field(default_factory=dict)


class ImageModel(Model, Protocol):
    """A model that draws pictures from a text."""

    def draw(
        self, options: ImageOptions, should_stop: StopCheck = never_stop
    ) -> Iterator[ImageStep | DrawnImages]:
        """Yield one `ImageStep` a step, then one `DrawnImages`.

        Raises Cancelled when ``should_stop`` says so, within one step. Raises UnknownOption for
        a sampler or a size that this model cannot make.
        """


# -- embedding -------------------------------------------------------------------------------


class EmbeddingModel(Model, Protocol):
    """A model that turns texts into vectors."""

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """One unit vector a text: shape ``(len(texts), dimension)``."""
