"""The speech engine: what it decides on its own, and what real Whisper models make of sound."""

from __future__ import annotations

import copy
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from workbench import models
from workbench.engines import ctranslate2 as engine
from workbench.engines.base import SpeechOptions
from workbench.errors import ModelMissing, SettingsError, Unavailable, UnknownOption
from workbench.memory.request import LoadOptions
from workbench.models import sources
from workbench.models.spec import ModelSpec
from workbench.project import project_root
from workbench.tasks.speech.audio import decode_audio

RATE = 16_000


def _spec(path: Path, **options: Any) -> ModelSpec:
    return ModelSpec.model_validate(
        {
            "id": "w",
            "title": "w",
            "task": "speech",
            "engine": "ctranslate2",
            "licence": "MIT",
            "sources": [{"kind": "local", "path": str(path)}],
            "options": options,
        }
    )


def _folder(path: Path, without: str = "") -> Path:
    for name in {"model.bin", "config.json", "tokenizer.json"} - {without}:
        (path / name).write_text("{}")
    return path


# -- loading ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["model.bin", "config.json", "tokenizer.json"])
def test_a_missing_file_is_named_and_nothing_is_fetched(name: str, tmp_path: Path):
    with pytest.raises(ModelMissing, match=f"lacks {name}"):
        engine.load(_spec(tmp_path), _folder(tmp_path, without=name), LoadOptions())


def test_files_that_are_no_model(tmp_path: Path):
    with pytest.raises(Unavailable, match="cannot be opened"):
        engine.load(_spec(tmp_path), _folder(tmp_path), LoadOptions())


def test_an_unknown_option_of_the_catalogue(tmp_path: Path):
    with pytest.raises(SettingsError, match="'beams'"):
        engine.load(_spec(tmp_path, beams=3), _folder(tmp_path), LoadOptions())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (LoadOptions(compute_type="float16"), "'float16' is not supported on cpu"),
        (LoadOptions(compute_type="int3"), "int8"),
        (LoadOptions(device="tpu"), "'tpu' cannot be used"),
    ],
)
def test_what_the_device_cannot_do(options: LoadOptions, message: str, tmp_path: Path):
    with pytest.raises(UnknownOption, match=message):
        engine.load(_spec(tmp_path), _folder(tmp_path), options)


def test_compute_type_and_threads_reach_the_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    asked: list[dict[str, Any]] = []

    def open_model(path: str, **values: Any) -> SimpleNamespace:
        asked.append(values)
        return SimpleNamespace(feature_extractor=None)

    monkeypatch.setattr("faster_whisper.WhisperModel", open_model)
    monkeypatch.setenv("WORKBENCH_THREADS", "3")
    folder = _folder(tmp_path)
    engine.load(_spec(tmp_path), folder, LoadOptions())
    engine.load(_spec(tmp_path, compute_type="int8_float32"), folder, LoadOptions())
    wanted = LoadOptions(compute_type="float32", threads=1)
    engine.load(_spec(tmp_path, compute_type="int8"), folder, wanted)
    assert [values["compute_type"] for values in asked] == ["int8", "int8_float32", "float32"]
    assert [values["cpu_threads"] for values in asked] == [3, 3, 1]


# -- times -----------------------------------------------------------------------------------

#: 5 s of speech, 10 s cut out, 5 s of speech, 20 s cut out, 5 s of speech.
CHUNKS = [
    {"start": 0, "end": 5 * RATE},
    {"start": 15 * RATE, "end": 20 * RATE},
    {"start": 40 * RATE, "end": 45 * RATE},
]


@pytest.mark.parametrize(
    ("joined", "original"),
    [
        ((1.0, 4.0), (1.0, 4.0)),
        ((6.0, 9.0), (16.0, 19.0)),
        ((11.0, 99.0), (41.0, 50.0)),  # Whisper ends past the recording
        ((1.0, 5.02), (1.0, 5.0)),  # 20 ms past the cut: not 15.02
        ((1.0, 5.0), (1.0, 5.0)),
        ((4.8, 9.0), (15.0, 19.0)),  # starts in the pad before the cut
        ((4.8, 5.2), (15.0, 15.2)),  # nothing but pads: stays in one stretch
        ((1.0, 9.0), (1.0, 19.0)),  # really over the silence
        ((4.9, 10.1), (15.0, 20.0)),
    ],
)
def test_times_over_skipped_silence(joined: tuple[float, float], original: tuple[float, float]):
    clock = engine._SpeechClock(CHUNKS, duration_seconds=50.0)
    assert clock.span(*joined) == pytest.approx(original)


def test_a_word_is_never_on_both_sides_of_a_silence():
    clock = engine._SpeechClock(CHUNKS, duration_seconds=50.0)
    assert clock.word(4.7, 5.1) == pytest.approx((4.7, 5.1))
    assert clock.word(4.95, 5.5) == pytest.approx((14.95, 15.5))


# -- stopping, without a model ---------------------------------------------------------------


class SlowWhisper:
    """A faster-whisper whose second window is never finished unless ``release`` is set."""

    supported_languages = ("en",)
    hf_tokenizer = SimpleNamespace(
        encode=lambda text, add_special_tokens: SimpleNamespace(ids=text.split())
    )

    def __init__(self) -> None:
        self.release = threading.Event()
        self.entered = threading.Event()
        self.unloaded: list[bool] = []
        self.model = SimpleNamespace(
            generate=self._generate, unload_model=lambda: self.unloaded.append(True)
        )

    def _generate(self, window: int) -> int:
        if window:
            self.entered.set()
            assert self.release.wait(30)
        return window

    def transcribe(self, samples: NDArray[np.float32], **options: Any) -> Any:
        def segments() -> Iterator[Any]:
            for window in range(3):
                number = self.model.generate(window)
                yield SimpleNamespace(start=number, end=number + 1, text=f" {number}", words=None)

        return segments(), SimpleNamespace(language="en", language_probability=1.0)


def test_a_window_in_hand_is_given_up_and_close_waits_for_it(tmp_path: Path):
    whisper = SlowWhisper()
    model = engine.WhisperCT2(_spec(tmp_path), copy.copy(whisper))
    stop = threading.Event()
    _, segments = model.transcribe(
        np.zeros(3 * RATE, np.float32), SpeechOptions(vad=False), stop.is_set
    )
    assert next(segments).text == "0"
    threading.Thread(target=lambda: (whisper.entered.wait(30), stop.set())).start()
    assert list(segments) == []  # returns although the second window is not finished

    closing = threading.Thread(target=model.close)
    closing.start()
    assert whisper.unloaded == []
    whisper.release.set()
    closing.join(30)
    assert whisper.unloaded == [True]


def test_an_error_in_a_step_reaches_the_caller(tmp_path: Path):
    whisper = SlowWhisper()

    def fail(*args: Any) -> None:
        raise RuntimeError("out of memory")

    whisper.model.generate = fail
    model = engine.WhisperCT2(_spec(tmp_path), whisper)
    options = SpeechOptions(vad=False)
    _, segments = model.transcribe(np.zeros(RATE, np.float32), options, lambda: False)
    with pytest.raises(RuntimeError, match="out of memory"):
        list(segments)


def test_every_option_reaches_the_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    whisper = SlowWhisper()
    asked: list[dict[str, Any]] = []
    about = SimpleNamespace(language="vi", language_probability=1.0)
    monkeypatch.setattr(
        SlowWhisper, "transcribe", lambda *a, **values: (asked.append(values), (iter(()), about))[1]
    )
    monkeypatch.setattr(SlowWhisper, "supported_languages", ("en", "vi"))
    whisper.hf_tokenizer = SimpleNamespace(
        encode=SlowWhisper.hf_tokenizer.encode, token_to_id={"<|vi|>": 7}.get
    )
    model = engine.WhisperCT2(_spec(tmp_path), whisper)
    assert model.languages == ["vi"]
    options = SpeechOptions(
        language="vi", translate=True, beam_size=3, vad=False, words=True, prompt="p", hotwords="h"
    )
    model.transcribe(np.zeros(RATE, np.float32), options)
    assert asked == [
        {
            "language": "vi",
            "task": "translate",
            "beam_size": 3,
            "word_timestamps": True,
            "initial_prompt": "p",
            "hotwords": "h",
            "condition_on_previous_text": False,
        }
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (SpeechOptions(language="vi"), "English only"),
        (SpeechOptions(translate=True), "cannot translate"),
        (SpeechOptions(beam_size=0), "beam size 0"),
        (SpeechOptions(prompt="word " * 200, hotwords="name " * 24), "224 tokens"),
    ],
)
def test_what_would_be_ignored_is_refused(options: SpeechOptions, message: str, tmp_path: Path):
    model = engine.WhisperCT2(_spec(tmp_path), SlowWhisper())
    with pytest.raises(UnknownOption, match=message):
        model.transcribe(np.zeros(RATE, np.float32), options)


# -- real models -----------------------------------------------------------------------------


def _load(name: str) -> Iterator[Any]:
    spec = models.get(name)
    model = engine.load(spec, sources.require(spec), LoadOptions())
    yield model
    model.close()
    model.close()


@pytest.fixture(scope="module")
def base() -> Iterator[Any]:
    yield from _load("whisper-base")


@pytest.fixture(scope="module")
def tiny_en() -> Iterator[Any]:
    yield from _load("whisper-tiny.en")


def _samples(language: str) -> list[tuple[NDArray[np.float32], str]]:
    folder = project_root() / "data" / "speech"
    entries = [json.loads(line) for line in (folder / "manifest.jsonl").open(encoding="utf-8")]
    return [
        (decode_audio(folder / entry["file"]), entry["text"])
        for entry in entries
        if entry["language"] == language
    ]


@pytest.mark.models
class TestRealModels:
    @pytest.mark.parametrize("words", [False, True])
    def test_text_equals_that_of_faster_whisper(self, tiny_en, words: bool):
        samples, _ = _samples("en")[0]
        info, segments = tiny_en.transcribe(samples, SpeechOptions(words=words))
        found, about = tiny_en._whisper.transcribe(
            samples, vad_filter=True, word_timestamps=words, condition_on_previous_text=False
        )
        assert (info.language, info.speech_seconds) == (about.language, about.duration_after_vad)
        ours, theirs = list(segments), list(found)
        assert [s.text for s in ours] == [s.text.strip() for s in theirs]
        for mine, other in zip(ours, theirs, strict=True):
            # it rounds to hundredths
            assert mine.start_seconds == pytest.approx(other.start, abs=0.011)
            assert mine.end_seconds == pytest.approx(other.end, abs=0.011)
            assert [w.text for w in mine.words] == [w.word for w in other.words or ()]
            assert all(type(w.end_seconds) is float for w in mine.words)

    @pytest.mark.parametrize(("language", "number"), [("en", 0), ("vi", 1)])
    def test_languages_are_told_apart(self, base, language: str, number: int):
        info, _ = base.transcribe(_samples(language)[number][0], SpeechOptions())
        assert info.language == language
        assert 0.3 < info.language_probability <= 1

    def test_a_multilingual_model_names_its_languages(self, base):
        assert len(base.languages) == 99
        assert "vi" in base.languages
        with pytest.raises(UnknownOption, match="does not know it.*vi"):
            base.transcribe(np.zeros(RATE, np.float32), SpeechOptions(language="tlh"))

    def test_an_english_model(self, tiny_en):
        samples, text = _samples("en")[0]
        info, segments = tiny_en.transcribe(samples, SpeechOptions())
        assert (info.language, tiny_en.languages) == ("en", ["en"])
        assert "forward" in " ".join(s.text for s in segments)
        assert "forward" in text

    @pytest.mark.parametrize("language", [None, "vi"])
    def test_silence_is_not_decoded(self, base, language: str | None, monkeypatch):
        def never(*args: Any, **kwargs: Any) -> None:
            raise AssertionError("silence was decoded")

        monkeypatch.setattr(base._whisper, "transcribe", never)
        silence = np.zeros(20 * RATE, np.float32)
        info, segments = base.transcribe(silence, SpeechOptions(language=language))
        assert list(segments) == []
        assert (info.language, info.speech_seconds) == (language or "", 0.0)
        assert info.duration_seconds == 20.0

    @pytest.mark.parametrize("words", [False, True])
    def test_times_are_those_of_the_recording(self, tiny_en, words: bool):
        samples, _ = _samples("en")[0]
        late = np.concatenate([np.zeros(12 * RATE, np.float32), samples])
        _, segments = tiny_en.transcribe(late, SpeechOptions(words=words))
        found = list(segments)
        assert 11.5 < found[0].start_seconds < 14
        assert found[-1].end_seconds <= len(late) / RATE

    def test_samples_are_not_changed(self, tiny_en):
        samples, _ = _samples("en")[0]
        before = samples.copy()
        samples.flags.writeable = False
        list(tiny_en.transcribe(samples, SpeechOptions(vad=False))[1])
        assert np.array_equal(samples, before)

    def test_hotwords_are_heard(self, base):
        samples, _ = _samples("en")[0]
        _, segments = base.transcribe(samples, SpeechOptions(hotwords="metres"))
        assert "metres" in " ".join(s.text for s in segments)  # else it writes "meters"

    def test_the_prompt_sets_the_style(self, base):
        samples, _ = _samples("en")[2]
        _, segments = base.transcribe(samples, SpeechOptions(prompt="Three of clubs."))
        text = " ".join(s.text for s in segments)
        assert text == "Eight of spades, four of clubs, seven of hearts."  # else "4 of close"

    def test_stopped_before_the_first_words(self, tiny_en):
        samples, _ = _samples("en")[0]
        _, segments = tiny_en.transcribe(samples, SpeechOptions(), lambda: True)
        assert list(segments) == []

    def test_two_threads_share_one_model(self, tiny_en):
        wanted = [samples for samples, _ in _samples("en")[:2]]
        alone = [[s.text for s in tiny_en.transcribe(x, SpeechOptions())[1]] for x in wanted]
        found: dict[int, list[str]] = {}

        def work(number: int) -> None:
            _, segments = tiny_en.transcribe(wanted[number], SpeechOptions())
            found[number] = [segment.text for segment in segments]

        threads = [threading.Thread(target=work, args=(n,)) for n in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [found[0], found[1]] == alone
