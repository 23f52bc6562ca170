"""`workbench.transcribe`: from a recording to a `Transcript`."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import ExitStack
from dataclasses import asdict
from typing import Literal, overload

from workbench import models
from workbench.engines.base import Segment, SpeechInfo, SpeechModel, SpeechOptions, StopCheck
from workbench.engines.pool import default_pool
from workbench.errors import Cancelled
from workbench.memory.request import LoadOptions, RequestSize
from workbench.settings import get_settings
from workbench.tasks.record import Recorder
from workbench.tasks.speech.audio import SAMPLE_RATE, Audio, AudioInput, read_audio
from workbench.tasks.speech.score import score
from workbench.tasks.speech.types import SpeechTimings, Transcript, join_text
from workbench.tasks.stream import Stream

SpeechEvent = SpeechInfo | Segment


@overload
def transcribe(
    audio: AudioInput,
    *,
    model: str | None = ...,
    language: str | None = ...,
    translate: bool = ...,
    words: bool = ...,
    vad: bool = ...,
    beam_size: int = ...,
    prompt: str | None = ...,
    hotwords: str | None = ...,
    compute_type: str | None = ...,
    stream: Literal[False] = ...,
    reference: str | None = ...,
) -> Transcript: ...


@overload
def transcribe(
    audio: AudioInput,
    *,
    model: str | None = ...,
    language: str | None = ...,
    translate: bool = ...,
    words: bool = ...,
    vad: bool = ...,
    beam_size: int = ...,
    prompt: str | None = ...,
    hotwords: str | None = ...,
    compute_type: str | None = ...,
    stream: Literal[True],
    reference: str | None = ...,
) -> Stream[SpeechEvent, Transcript]: ...


def transcribe(
    audio: AudioInput,
    *,
    model: str | None = None,
    language: str | None = None,
    translate: bool = False,
    words: bool = False,
    vad: bool = True,
    beam_size: int = 5,
    prompt: str | None = None,
    hotwords: str | None = None,
    compute_type: str | None = None,
    stream: bool = False,
    reference: str | None = None,
) -> Transcript | Stream[SpeechEvent, Transcript]:
    """Turn speech into text.

    ``audio`` is the path or the bytes of any sound or video file, or float samples (16 kHz,
    mono, shape ``(n,)``, -1 to 1).

    * ``language``: a code such as ``vi``; None detects it. ``translate``: into English.
    * ``words``: with the time and confidence of every word.
    * ``vad``: skip what is not speech; all times stay those of the recording. Without it Whisper
      invents text for silence, noise and music.
    * ``prompt``: text that sets style and names for the first 30 s; ``hotwords``: words to
      prefer all along.
    * ``compute_type``: such as ``int8`` or ``float32``; None leaves it to the catalogue.
    * ``reference``: the true text; `score` puts error rates into ``record.quality``.

    With ``stream`` the events are one `SpeechInfo`, then a `Segment` each; the result is the
    `Transcript`, of what there was when it was stopped.

    Raises UnknownModel, UnknownOption, InvalidMedia, ModelMissing, DoesNotFit.
    """
    spec = models.get(model or get_settings().models.speech, task="speech")
    options = SpeechOptions(
        language=language,
        translate=translate,
        beam_size=beam_size,
        vad=vad,
        words=words,
        prompt=prompt,
        hotwords=hotwords,
    )
    request = {**asdict(options), "compute_type": compute_type, "reference": reference}
    recorder = Recorder("speech", spec, request)
    load = LoadOptions(compute_type=compute_type)
    running: Stream[SpeechEvent, Transcript] = Stream(
        lambda should_stop: _run(audio, options, load, recorder, reference, should_stop)
    )
    return running if stream else running.result


def _run(
    audio: AudioInput,
    options: SpeechOptions,
    load: LoadOptions,
    recorder: Recorder,
    reference: str | None,
    should_stop: StopCheck,
) -> Generator[SpeechEvent, None, Transcript]:
    info = SpeechInfo(options.language or "", 0.0, 0.0, 0.0)
    segments: list[Segment] = []
    first_segment_seconds: float | None = None
    with recorder, ExitStack() as held:
        try:
            with recorder.phase("decode"):
                sound = read_audio(audio, should_stop)
            recorder.request["audio"] = sound.source
            recorder.metrics["damaged_packets"] = sound.damaged_packets
            with recorder.phase("load"):
                model: SpeechModel = held.enter_context(
                    default_pool().acquire(
                        recorder.spec, load, _request_size(sound, options), should_stop=should_stop
                    )
                )
                recorder.uses(model)
            with recorder.phase("detect"):
                info, found = model.transcribe(sound.samples, options, should_stop)
            yield info
            while True:
                # timed one by one, so that waiting for the reader of the stream does not count
                with recorder.phase("transcribe"):
                    segment = next(found, None)
                if segment is None:
                    break
                if first_segment_seconds is None:
                    first_segment_seconds = sum(recorder.phase_seconds.values())
                segments.append(segment)
                yield segment
        except Cancelled:
            pass  # what there is until here is the result
    cancelled = should_stop()
    timings = _timings(recorder, info, first_segment_seconds)
    if reference is not None and not cancelled:
        text_language = "en" if options.translate else info.language
        text = join_text(segments, text_language)
        recorder.quality.update(score(reference, text, text_language, info.duration_seconds))
    return Transcript(
        segments=tuple(segments),
        language=info.language,
        language_probability=info.language_probability,
        duration_seconds=info.duration_seconds,
        model=recorder.spec.id,
        timings=timings,
        record=recorder.finish(),
        translated=options.translate,
        cancelled=cancelled,
    )


def _request_size(sound: Audio, options: SpeechOptions) -> RequestSize:
    seconds = len(sound.samples) / SAMPLE_RATE
    return RequestSize(
        audio_seconds=seconds, beams=options.beam_size, words=options.words, vad=options.vad
    )


def _timings(
    recorder: Recorder, info: SpeechInfo, first_segment_seconds: float | None
) -> SpeechTimings:
    """The phases as timings; the numbers worth comparing also become metrics of the record."""
    decode, load, detect, transcribe_ = (
        recorder.phase_seconds.get(phase, 0.0)
        for phase in ("decode", "load", "detect", "transcribe")
    )
    processing = decode + detect + transcribe_
    timings = SpeechTimings(
        decode_seconds=decode,
        load_seconds=load,
        detect_seconds=detect,
        transcribe_seconds=transcribe_,
        first_segment_seconds=first_segment_seconds,
        total_seconds=load + processing,
        realtime_factor=processing / info.duration_seconds if info.duration_seconds else 0.0,
    )
    recorder.metrics.update(
        realtime_factor=timings.realtime_factor,
        total_seconds=timings.total_seconds,
        audio_seconds=info.duration_seconds,
        speech_seconds=info.speech_seconds,
    )
    if first_segment_seconds is not None:
        recorder.metrics["first_segment_seconds"] = first_segment_seconds
    return timings
