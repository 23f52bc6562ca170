from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import workbench as wb
from tests.tasks.speech import media
from workbench.engines.base import Segment, SpeechInfo
from workbench.engines.pool import ModelPool
from workbench.errors import InvalidMedia, ProviderError, UnknownModel
from workbench.tasks.record import Record, observe
from workbench.tasks.speech import Transcript

pytestmark = pytest.mark.usefixtures("stub_models", "own_pool")

#: The stub hears "second N" in every second that is not silent.
SOUND = np.concatenate([media.tone(2.0), np.zeros(media.RATE, np.float32), media.tone(1.0)])


def test_a_recording_becomes_segments_with_times():
    transcript = wb.transcribe(media.wav(SOUND), words=True)

    assert isinstance(transcript, Transcript)
    assert transcript.text == str(transcript) == "second 0 second 1 second 3"
    assert [s.start_seconds for s in transcript.segments] == [0.0, 1.0, 3.0]
    assert [s.words[0].text for s in transcript.segments] == [" second 0", " second 1", " second 3"]
    assert (transcript.language, transcript.language_probability) == ("en", 1.0)
    assert transcript.duration_seconds == 4.0
    assert not transcript.cancelled


def test_paths_bytes_and_samples_give_the_same(tmp_path: Path):
    data = media.wav(SOUND)
    path = tmp_path / "ghi âm.wav"
    path.write_bytes(data)
    texts = {wb.transcribe(audio).text for audio in (path, str(path), data, SOUND)}
    assert texts == {"second 0 second 1 second 3"}


def test_the_dictionary_has_the_keys_of_the_interface():
    found = wb.transcribe(SOUND, words=True).to_dict()
    assert {"text", "language", "duration_seconds", "segments", "timings"} <= set(found)
    assert set(found["segments"][0]) == {"start_seconds", "end_seconds", "text", "speaker", "words"}
    assert set(found["segments"][0]["words"][0]) == {
        "start_seconds",
        "end_seconds",
        "text",
        "probability",
    }
    assert "realtime_factor" in found["timings"]
    assert json.loads(json.dumps(found)) == found


def test_streaming_gives_the_info_then_the_segments():
    stream = wb.transcribe(SOUND, stream=True)
    info, *segments = stream
    assert isinstance(info, SpeechInfo)
    assert all(isinstance(segment, Segment) for segment in segments)
    assert stream.result.segments == tuple(segments)


def test_stopping_keeps_what_was_said_and_frees_the_model(own_pool: ModelPool):
    stream = wb.transcribe(SOUND, stream=True, reference="second 0")
    for event in stream:
        if isinstance(event, Segment):
            stream.stop()
    assert stream.result.text == "second 0"
    assert stream.result.cancelled
    assert stream.result.to_dict()["cancelled"]
    assert stream.result.record.quality == {}  # a part has no error rate
    assert [loaded.users for loaded in own_pool.loaded()] == [0]


def test_stopping_while_the_file_is_decoded_gives_an_empty_transcript(own_pool: ModelPool):
    stream = wb.transcribe(media.wav(SOUND), stream=True)
    stream.stop()
    assert list(stream) == []
    assert stream.result.cancelled
    assert stream.result.text == ""
    assert own_pool.loaded() == []  # nothing was loaded for it


def test_closing_a_stream_frees_the_model(own_pool: ModelPool):
    stream = wb.transcribe(SOUND, stream=True)
    next(iter(stream))
    assert [loaded.users for loaded in own_pool.loaded()] == [1]
    stream.close()
    assert [loaded.users for loaded in own_pool.loaded()] == [0]


def test_the_record_says_how_to_do_it_again(tmp_path: Path):
    path = tmp_path / "a.wav"
    path.write_bytes(media.wav(SOUND))
    heard: list[Record] = []
    with observe(heard.append):
        transcript = wb.transcribe(path, language="vi", beam_size=2, hotwords="Phở")

    record = transcript.record
    assert heard == [record]
    assert (record.task, record.model, record.engine) == ("speech", "stub-speech", "stub")
    assert record.request["language"] == "vi"
    assert record.request["beam_size"] == 2
    assert record.request["hotwords"] == "Phở"
    assert record.request["audio"]["file"] == str(path)
    assert len(record.request["audio"]["sha256"]) == 64
    assert set(record.phase_seconds) == {"decode", "load", "detect", "transcribe", "total"}
    assert {"realtime_factor", "first_segment_seconds", "audio_seconds"} <= set(record.metrics)
    assert record.error is None


def test_timings_do_not_count_a_slow_reader(monkeypatch: pytest.MonkeyPatch):
    clock = {"now": 100.0}
    monkeypatch.setattr("workbench.tasks.record.time.perf_counter", lambda: clock["now"])
    stream = wb.transcribe(SOUND, stream=True)
    for _ in stream:
        clock["now"] += 60.0
    timings = stream.result.timings
    assert timings.total_seconds == timings.realtime_factor == timings.first_segment_seconds == 0


def test_the_real_time_factor_is_processing_by_duration():
    timings = wb.transcribe(SOUND).timings
    processing = timings.decode_seconds + timings.detect_seconds + timings.transcribe_seconds
    assert timings.realtime_factor == pytest.approx(processing / 4.0)
    assert timings.total_seconds == pytest.approx(processing + timings.load_seconds)
    assert timings.first_segment_seconds is not None
    assert 0 < timings.first_segment_seconds <= timings.total_seconds


def test_a_reference_gives_error_rates():
    quality = wb.transcribe(SOUND, language="vi", reference="Second 0, second 2!").record.quality
    assert quality["wer"] == pytest.approx(3 / 4)
    assert 0 < quality["cer"] < 1


def test_an_english_translation_is_scored_as_english():
    quality = wb.transcribe(
        media.tone(1.0), language="vi", translate=True, reference="second zero"
    ).record.quality
    assert quality["wer"] == 0


def test_silence_has_no_text_and_invents_nothing():
    transcript = wb.transcribe(np.zeros(media.RATE * 3, np.float32), reference="")
    assert transcript.segments == ()
    assert transcript.text == transcript.to_txt() == ""
    assert transcript.timings.first_segment_seconds is None
    assert "first_segment_seconds" not in transcript.record.metrics
    assert transcript.record.quality == {"hallucinated_words_per_minute": 0.0}


def test_a_language_without_spaces_is_joined_without_spaces():
    assert wb.transcribe(SOUND, language="zh").text == "second 0second 1second 3"
    assert wb.transcribe(SOUND, language="zh", translate=True).text == "second 0 second 1 second 3"


@pytest.mark.parametrize(
    ("values", "error"),
    [
        ({"audio": "nowhere.wav"}, InvalidMedia),
        ({"audio": SOUND, "model": "no-such-model"}, UnknownModel),
        ({"audio": SOUND, "model": "stub-chat"}, UnknownModel),
    ],
)
def test_mistakes_are_told(values: dict[str, Any], error: type[Exception]):
    with pytest.raises(error):
        wb.transcribe(**values)


def test_an_unknown_model_is_told_before_anybody_iterates():
    with pytest.raises(UnknownModel):
        wb.transcribe(SOUND, model="no-such-model", stream=True)


def test_a_failing_engine_is_recorded_and_freed(write_model, own_pool: ModelPool):
    write_model("broken", task="speech", options={"fail": "The engine broke."})
    heard: list[Record] = []
    with observe(heard.append), pytest.raises(ProviderError, match="The engine broke"):
        wb.transcribe(SOUND, model="broken")
    assert "The engine broke" in (heard[0].error or "")
    assert [loaded.users for loaded in own_pool.loaded()] == [0]


def test_two_recordings_at_once():
    texts: list[str] = []
    threads = [
        threading.Thread(target=lambda n=n: texts.append(wb.transcribe(media.tone(n)).text))
        for n in (1.0, 2.0)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(texts) == ["second 0", "second 0 second 1"]
