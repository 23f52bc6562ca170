from __future__ import annotations

import io
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from tests.tasks.speech import media
from workbench.errors import Cancelled, InvalidMedia
from workbench.tasks.speech.audio import check_samples, decode_audio, read_audio

FORMS = {
    "wav": ("wav", "pcm_s16le", 16_000, "mono"),
    "flac": ("flac", "flac", 44_100, "stereo"),
    "mp3": ("mp3", "libmp3lame", 44_100, "stereo"),
    "m4a": ("mp4", "aac", 48_000, "stereo"),
    "ogg": ("ogg", "libopus", 48_000, "mono"),
    "webm": ("webm", "libopus", 48_000, "stereo"),
}


@pytest.mark.parametrize("name", FORMS)
def test_every_format_gives_the_same_sound(name: str, tmp_path: Path):
    sound = media.tone(3.0)
    form, codec, rate, layout = FORMS[name]
    data = media.encode(sound, form, codec, rate, layout)
    path = tmp_path / f"âm thanh.{name}"
    path.write_bytes(data)

    samples = decode_audio(path)

    assert samples.dtype == np.float32
    assert samples.ndim == 1
    assert len(samples) == pytest.approx(len(sound), abs=2000)
    # the pitch survives: 440 Hz is the strongest frequency
    spectrum = np.abs(np.fft.rfft(samples))
    assert spectrum.argmax() * media.RATE / len(samples) == pytest.approx(440, abs=1)
    assert 0.3 < np.abs(samples).max() < 0.8
    assert np.array_equal(decode_audio(data), samples)
    assert np.array_equal(decode_audio(str(path)), samples)


@pytest.mark.parametrize("name", FORMS)
def test_samples_equal_those_of_faster_whisper(name: str):
    from faster_whisper.audio import decode_audio as peer

    data = media.encode(media.tone(40.0), *FORMS[name])  # more than one block
    assert np.array_equal(decode_audio(data), peer(io.BytesIO(data)))


def test_the_sound_of_a_video():
    data = media.encode(media.tone(2.0), "matroska", "aac", 48_000, picture=True)
    assert len(decode_audio(data)) == pytest.approx(2 * media.RATE, abs=2000)


def test_samples_pass_without_a_copy():
    sound = media.tone(1.0)
    assert np.shares_memory(read_audio(sound).samples, sound)
    assert read_audio(sound.astype(np.float64)).samples.dtype == np.float32


def test_the_source_names_what_was_read(tmp_path: Path):
    import hashlib

    data = media.wav(media.tone(0.5))
    path = tmp_path / "a.wav"
    path.write_bytes(data)
    digest = hashlib.sha256(data).hexdigest()
    assert read_audio(path).source == {"file": str(path), "sha256": digest}
    assert read_audio(data).source == {"size_bytes": len(data), "sha256": digest}
    assert read_audio(path).duration_seconds == pytest.approx(0.5)


def test_one_damaged_packet_does_not_lose_the_rest(caplog: pytest.LogCaptureFixture):
    data = bytearray(media.encode(media.tone(60.0), "mp3", "libmp3lame"))
    third = len(data) // 3
    data[third : third + 2000] = np.random.default_rng(1).bytes(2000)

    audio = read_audio(bytes(data))

    assert audio.damaged_packets > 0
    assert audio.duration_seconds > 55  # faster_whisper.decode_audio keeps 20 s of it
    assert "damaged packets were left out" in caplog.text


def test_a_file_cut_short_keeps_its_beginning():
    data = media.wav(media.tone(4.0))
    assert 1.9 < read_audio(data[: len(data) // 2]).duration_seconds < 2.1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: folder / "none.wav", "There is no file"),
        (lambda folder: folder, "is a folder"),
        (lambda folder: _file(folder, b""), "is empty"),
        (lambda folder: _file(folder, b"no sound " * 100), "no audio track|cannot be decoded"),
        (lambda folder: _file(folder, media.silent_video()), "has no audio track"),
        (lambda folder: _file(folder, media.wav(media.tone(0))), "holds no sound"),
        (lambda folder: _file(folder, _playlist()), "cannot be decoded"),
        (lambda folder: _file(folder, b"x").with_name("a\0b"), "no file|cannot be read"),
        (lambda folder: b"", "has no bytes"),
        (lambda folder: b"RIFF", "cannot be decoded"),
        (lambda folder: media.encode(media.tone(3), "mp4", "aac")[:4000], "cannot be decoded"),
        (lambda folder: [0.1, 0.2], "A list is not audio"),
        (lambda folder: np.zeros((2, 9), np.float32), "shape"),
        (lambda folder: np.zeros(9, np.int16), "int16 and not float"),
        (lambda folder: np.zeros(0, np.float32), "no samples"),
        (lambda folder: np.array([0.1, np.nan], np.float32), "not between"),
        (lambda folder: np.array([0.1, 20_000], np.float32), "not between"),
    ],
)
def test_what_is_not_sound_is_refused(make, message: str, tmp_path: Path):
    with pytest.raises(InvalidMedia, match=message) as caught:
        read_audio(make(tmp_path))
    assert caught.value.remedy
    assert "\n" not in str(caught.value)


def test_a_file_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = _file(tmp_path, media.wav(media.tone(0.1)))

    def refuse(self: Path, *args: object, **kwargs: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(InvalidMedia, match="cannot be read: Permission denied"):
        read_audio(path)


def test_decoding_stops_when_asked():
    with pytest.raises(Cancelled):
        read_audio(media.wav(media.tone(1.0)), lambda: True)


def test_memory_is_one_buffer():
    data = media.wav(media.tone(240.0))
    tracemalloc.start()
    try:
        samples = decode_audio(data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # a block of 500,000 samples on its way, and one second to spare
    assert peak < samples.nbytes + 6 * 2**20


def test_check_samples_makes_strided_samples_contiguous():
    stereo = np.stack([media.tone(0.1), media.tone(0.1)], axis=1)
    assert check_samples(stereo[:, 0]).flags.c_contiguous


def _file(folder: Path, data: bytes) -> Path:
    path = folder / "upload.bin"
    path.write_bytes(data)
    return path


def _playlist() -> bytes:
    return (
        b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n"
    )
