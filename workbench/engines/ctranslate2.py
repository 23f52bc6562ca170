"""Whisper in CTranslate2 form, run by faster-whisper, on a folder that is already here.

What this file adds to faster-whisper: nothing is ever fetched from a hub, options that a model
cannot honour are refused instead of ignored, the work can be stopped while a window is being
decoded, recordings without speech cost no decoding, and times do not drift over skipped silence.

It does not know: diarization, batched decoding, and languages that change inside a recording
(the first 30 s of speech decide).
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.engines.base import Segment, SpeechInfo, SpeechOptions, StopCheck, Word, never_stop
from workbench.errors import ModelMissing, SettingsError, Unavailable, UnknownOption
from workbench.memory.request import LoadOptions
from workbench.settings import get_settings

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from workbench.models.spec import ModelSpec

SAMPLE_RATE = 16_000
#: Whisper reads at most half of its 448 tokens as context; faster-whisper cuts off the rest.
_PROMPT_TOKENS = 223
_STOP_CHECK_SECONDS = 0.05


def load(spec: ModelSpec, path: Path, options: LoadOptions) -> WhisperCT2:
    """Open the folder ``path``.

    The compute type is that of the request, else of the catalogue entry, else int8 on a CPU and
    float16 elsewhere. Raises UnknownOption (compute type or device), ModelMissing (files),
    Unavailable (files that CTranslate2 cannot read).
    """
    import ctranslate2
    from faster_whisper import WhisperModel

    from workbench.engines.whisper_features import BlockFeatures

    unknown = set(spec.options) - {"compute_type"}
    if unknown:
        raise SettingsError(
            f"The catalogue entry {spec.id} has the unknown option {min(unknown)!r}.",
            "The engine ctranslate2 reads compute_type only.",
        )
    # without tokenizer.json faster-whisper would ask the hub for one
    for name in ("model.bin", "config.json", "tokenizer.json"):
        if not (path / name).is_file():
            raise ModelMissing(
                f"The model {spec.id} in {path} lacks {name}.",
                f"Fetch it again with `workbench models pull {spec.id} --force`.",
            )
    compute_type = _choose_compute_type(
        options.compute_type or spec.options.get("compute_type"), options.device
    )
    # a fresh process gives the same text again, even where decoding falls back to sampling
    ctranslate2.set_random_seed(0)
    try:
        whisper = WhisperModel(
            str(path),
            device=options.device,
            compute_type=compute_type,
            cpu_threads=options.threads or get_settings().threads or 0,
        )
    except (RuntimeError, ValueError) as error:
        raise Unavailable(
            f"The model {spec.id} cannot be opened: {error}.",
            f"Check it with `workbench models verify {spec.id}`.",
        ) from error
    whisper.feature_extractor = BlockFeatures(whisper.feature_extractor)
    return WhisperCT2(spec, whisper)


def _choose_compute_type(wanted: str | None, device: str) -> str:
    import ctranslate2

    try:
        supported = sorted(ctranslate2.get_supported_compute_types(device))
    except (RuntimeError, ValueError) as error:
        raise UnknownOption(
            f"The device {device!r} cannot be used: {error}.", "Use the device cpu."
        ) from error
    chosen = wanted or ("int8" if device == "cpu" else "float16")
    if chosen not in supported:
        raise UnknownOption(
            f"The compute type {chosen!r} is not supported on {device}.",
            f"Use one of: {', '.join(supported)}.",
        )
    return chosen


class WhisperCT2:
    """One loaded Whisper. Several threads may transcribe at once; they share the weights."""

    def __init__(self, spec: ModelSpec, whisper: Any) -> None:
        self.spec = spec
        self._whisper: Any = whisper
        # steps in hand; a stopped request no longer waits for its own
        self._running: set[threading.Thread] = set()

    @property
    def languages(self) -> list[str]:
        """Codes of the languages that this model knows (an English-only model: ``en``)."""
        # faster-whisper lists every language of the newest Whisper, also for older models
        known = self._whisper.supported_languages
        if len(known) == 1:
            return list(known)
        find = self._whisper.hf_tokenizer.token_to_id
        return [code for code in known if find(f"<|{code}|>") is not None]

    def close(self) -> None:
        """Free the weights. Calling it twice does nothing."""
        # CTranslate2 crashes when the weights go away under a running step
        for thread in list(self._running):
            thread.join()
        if self._whisper is not None:
            self._whisper.model.unload_model()
            self._whisper = None

    def transcribe(
        self,
        samples: NDArray[np.float32],
        options: SpeechOptions,
        should_stop: StopCheck = never_stop,
    ) -> tuple[SpeechInfo, Iterator[Segment]]:
        """Transcribe 16 kHz mono samples (shape ``(n,)``, -1 to 1), segment by segment.

        ``prompt`` steers the first 30 s window only, ``hotwords`` every window: text is not
        carried over from window to window, because that is how repetition loops spread.
        Segment texts have no spaces around them; the texts of words keep theirs, so that joined
        they give the segment. Without any speech there are no segments, and the language is
        the one asked for or empty.

        ``should_stop`` is asked twenty times a second; a step that runs when it says so (finding
        speech, encoding or decoding one window) ends in the background, and `close` waits for
        it. When it says so before the language is known, there are no segments and the language
        is the one asked for or empty. Raises UnknownOption.
        """
        self._check(options)
        steps = _Steps(should_stop, self._running)
        whisper = copy.copy(self._whisper)
        whisper.model = _StoppableWhisper(whisper.model, steps)
        duration_seconds = len(samples) / SAMPLE_RATE
        language = options.language or ("en" if self.languages == ["en"] else "")
        nothing = SpeechInfo(language, 0.0, duration_seconds, 0.0)
        try:
            chunks = [{"start": 0, "end": len(samples)}]
            if options.vad:
                chunks = steps.run(_find_speech, samples)
            speech = _join(samples, chunks)
            if not len(speech):
                return nothing, iter(())
            found, about = steps.run(
                whisper.transcribe,
                speech,
                language=options.language,
                task="translate" if options.translate else "transcribe",
                beam_size=options.beam_size,
                word_timestamps=options.words,
                initial_prompt=options.prompt,
                hotwords=options.hotwords,
                condition_on_previous_text=False,
            )
        except _Stopped:
            return nothing, iter(())
        info = SpeechInfo(
            language=about.language,
            language_probability=float(about.language_probability),
            duration_seconds=duration_seconds,
            speech_seconds=len(speech) / SAMPLE_RATE,
        )
        return info, _segments(found, _SpeechClock(chunks, duration_seconds), should_stop)

    def _check(self, options: SpeechOptions) -> None:
        """Refuse what this model would ignore. Raises UnknownOption."""
        languages = self.languages
        if options.language is not None and options.language not in languages:
            only = "speaks English only" if languages == ["en"] else "does not know it"
            raise UnknownOption(
                f"The language {options.language!r} cannot be used: {self.spec.id} {only}.",
                "Choose a multilingual model such as whisper-base."
                if languages == ["en"]
                else f"Its languages are: {', '.join(languages)}.",
            )
        if options.translate and languages == ["en"]:
            raise UnknownOption(
                f"The model {self.spec.id} speaks English only and cannot translate.",
                "Choose a multilingual model such as whisper-base.",
            )
        if options.beam_size < 1:
            raise UnknownOption(
                f"The beam size {options.beam_size} is not positive.", "Give 1 (greedy) or more."
            )
        context = [text.strip() for text in (options.prompt, options.hotwords) if text]
        encode = self._whisper.hf_tokenizer.encode
        tokens = sum(len(encode(" " + text, add_special_tokens=False).ids) for text in context)
        if tokens > _PROMPT_TOKENS:
            raise UnknownOption(
                f"The prompt and hotwords have {tokens} tokens; Whisper reads {_PROMPT_TOKENS}.",
                "Shorten them.",
            )


def _find_speech(samples: NDArray[np.float32]) -> list[dict[str, int]]:
    """Stretches of speech as sample positions, by Silero VAD with faster-whisper's defaults."""
    from faster_whisper.vad import get_speech_timestamps

    found: list[dict[str, int]] = get_speech_timestamps(samples)
    return found


def _join(samples: NDArray[np.float32], chunks: list[dict[str, int]]) -> NDArray[np.float32]:
    import numpy as np

    parts = [samples[chunk["start"] : chunk["end"]] for chunk in chunks]
    if len(parts) == 1:
        return parts[0]  # a view: most short recordings need no copy
    return np.concatenate(parts) if parts else samples[:0]


class _SpeechClock:
    """From the time in the joined speech to the time in the recording.

    faster-whisper maps a segment's two ends on their own, so an end that Whisper puts 20 ms past
    the silence that was cut out lands after that silence: the subtitle stays for its whole
    length. VAD pads each stretch with 0.4 s that is not speech; the end of a segment that falls
    into that pad belongs to the stretch before it, and a start to the stretch after it.
    """

    def __init__(self, chunks: list[dict[str, int]], duration_seconds: float) -> None:
        from faster_whisper.vad import SpeechTimestampsMap, VadOptions

        self._map = SpeechTimestampsMap(chunks, SAMPLE_RATE, time_precision=3)
        ends = [end / SAMPLE_RATE for end in self._map.chunk_end_sample]
        self._bounds = list(zip([0.0, *ends[:-1]], ends, strict=True))
        self._pad_seconds = VadOptions().speech_pad_ms / 1000
        self._duration_seconds = duration_seconds

    def span(self, start: float, end: float) -> tuple[float, float]:
        """The span of a segment."""
        first, last = self._map.get_chunk_index(start), self._map.get_chunk_index(end)
        if first < last and self._bounds[first][1] - start <= self._pad_seconds:
            first += 1
            start = self._bounds[first][0]
        if first < last and end - self._bounds[last][0] <= self._pad_seconds:
            last -= 1
            end = self._bounds[last][1]
        return self._original(start, first), self._original(end, last)

    def word(self, start: float, end: float) -> tuple[float, float]:
        """The span of a word, which is never on both sides of a silence."""
        chunk = self._map.get_chunk_index((start + end) / 2)
        return self._original(start, chunk), self._original(end, chunk)

    def _original(self, seconds: float, chunk: int) -> float:
        original = float(self._map.get_original_time(seconds, chunk))
        return round(min(max(0.0, original), self._duration_seconds), 3)


def _segments(found: Iterator[Any], clock: _SpeechClock, stop: StopCheck) -> Iterator[Segment]:
    try:
        for segment in found:
            words = []
            for word in segment.words or ():
                start, end = clock.word(word.start, word.end)
                words.append(Word(start, end, word.word, float(word.probability)))
            if words:
                start, end = words[0].start_seconds, words[-1].end_seconds
            else:
                start, end = clock.span(segment.start, segment.end)
            yield Segment(start, end, segment.text.strip(), words=tuple(words))
            if stop():
                return
    except _Stopped:
        return  # what was yielded until here is the result


class _Stopped(Exception):
    """Unwinds faster-whisper's loop."""


class _Steps:
    """Runs one step after another and stops waiting for a step when ``should_stop`` says so.

    Neither CTranslate2 nor onnxruntime can be broken off, and one window takes seconds to decode,
    six times as long where it falls back to sampling. A step that nobody waits for ends by itself.
    """

    def __init__(self, should_stop: StopCheck, running: set[threading.Thread]) -> None:
        self._should_stop = should_stop
        self._running = running

    def run(self, step: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """What ``step`` returns or raises. Raises _Stopped."""
        if self._should_stop is never_stop:
            return step(*args, **kwargs)
        answer: Future[Any] = Future()

        def work() -> None:
            try:
                answer.set_result(step(*args, **kwargs))
            except BaseException as error:
                answer.set_exception(error)
            finally:
                self._running.discard(threading.current_thread())

        # a thread of its own, so that no polling delays a result that is ready; not a daemon,
        # because CTranslate2 crashes when Python ends under a running decoder
        thread = threading.Thread(target=work, name="whisper")
        self._running.add(thread)
        thread.start()
        while True:
            if self._should_stop():
                raise _Stopped
            try:
                return answer.result(timeout=_STOP_CHECK_SECONDS)
            except TimeoutError:
                if answer.done():
                    raise


class _StoppableWhisper:
    """A CTranslate2 Whisper whose slow calls are steps."""

    def __init__(self, model: Any, steps: _Steps) -> None:
        self._model = model
        self._steps = steps

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def encode(self, *args: Any, **kwargs: Any) -> Any:
        return self._steps.run(self._model.encode, *args, **kwargs)

    def generate(self, *args: Any, **kwargs: Any) -> Any:
        return self._steps.run(self._model.generate, *args, **kwargs)

    def align(self, *args: Any, **kwargs: Any) -> Any:
        return self._steps.run(self._model.align, *args, **kwargs)
