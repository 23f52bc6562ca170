"""Make the clips in ``data/speech/`` and their ``manifest.jsonl``.

    apt-get install espeak-ng
    pip download --no-deps --no-binary pocketsphinx pocketsphinx==5.1.1
    python data/make_speech.py --recordings pocketsphinx-5.1.1.tar.gz

Three kinds of clip, each 16 kHz mono FLAC: people recorded for PocketSphinx's own tests (BSD), our
sentences read by the espeak-ng synthesiser (a robotic voice, clear in English but hard to follow in
Vietnamese), and digital silence. The manifest says which is which.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import subprocess
import tarfile
import tempfile
import wave
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

HERE = Path(__file__).resolve().parent
SAMPLE_RATE = 16_000
RECORDINGS_SHA256 = "675778b309a22dfc9b7d37f7621976bba491d2a5f8c59696bd77fd6d07271355"
RECORDINGS_FOLDER = "pocketsphinx-5.1.1/test/data/"

Samples = NDArray[np.int16]


@dataclass(frozen=True)
class Recorded:
    """Recordings joined by pauses, with as much silence before and after."""

    file: str
    text: str
    members: tuple[str, ...]
    pause_seconds: float
    language: str = "en"


@dataclass(frozen=True)
class Spoken:
    """A sentence for espeak-ng; ``voice`` is one of its voices, speed in words per minute."""

    file: str
    text: str
    language: str
    voice: str
    words_per_minute: int


RECORDED = (
    Recorded("en_go_forward.flac", "Go forward ten meters.", ("goforward.raw",), 0.3),
    Recorded("en_go_somewhere.flac", "Go somewhere and do something.", ("something.raw",), 0.3),
    Recorded(
        "en_cards_three.flac",
        "Eight of spades, four of clubs, seven of hearts.",
        ("cards/005.wav",),
        0.0,
    ),
    Recorded(
        "en_cards_joined.flac",
        "Ten of clubs. Four queen of clubs. Seven of clubs.",
        ("cards/001.wav", "cards/002.wav", "cards/003.wav"),
        0.4,
    ),
)

SPOKEN = (
    Spoken(
        "en_synthetic_returns.flac",
        "You can return a product within thirty days. Please keep the receipt and the box.",
        "en",
        "en-us",
        150,
    ),
    Spoken(
        "en_synthetic_question.flac",
        "How many orders did the Hanoi store deliver last month?",
        "en",
        "en-gb",
        145,
    ),
    Spoken(
        "vi_synthetic_chao_ban.flac",
        "Xin chào, tôi muốn mua một hộp trà sen và hai gói cà phê.",
        "vi",
        "vi",
        110,
    ),
    Spoken(
        "vi_synthetic_giao_hang.flac",
        "Cửa hàng giao hàng miễn phí cho đơn hàng từ năm trăm nghìn đồng.",
        "vi",
        "vi",
        110,
    ),
)


def read_recording(archive: tarfile.TarFile, member: str) -> Samples:
    """Samples of one 16 kHz mono 16-bit recording, raw (little-endian) or WAV."""
    stored = archive.extractfile(RECORDINGS_FOLDER + member)
    if stored is None:
        raise FileNotFoundError(f"{member} is not in the archive; use pocketsphinx 5.1.1")
    content = stored.read()
    if member.endswith(".wav"):
        with wave.open(io.BytesIO(content)) as sound:
            content = sound.readframes(sound.getnframes())
    return np.frombuffer(content, dtype="<i2").astype(np.int16)


def joined(parts: Sequence[Samples], pause_seconds: float) -> Samples:
    """The parts in a row with a silent pause before, between and after them."""
    pause = np.zeros(round(pause_seconds * SAMPLE_RATE), dtype=np.int16)
    return np.concatenate([pause, *(piece for part in parts for piece in (part, pause))])


def synthesise(clip: Spoken) -> Samples:
    """The clip's text read by espeak-ng, brought from its 22.05 kHz to 16 kHz."""
    with tempfile.TemporaryDirectory() as folder:
        sound = Path(folder) / "speech.wav"
        speed = str(clip.words_per_minute)
        command = ["espeak-ng", "-v", clip.voice, "-s", speed, "-w", str(sound), clip.text]
        subprocess.run(command, check=True)
        resampler = av.AudioResampler(format="s16", layout="mono", rate=SAMPLE_RATE)
        with av.open(str(sound)) as container:
            frames = [f for frame in container.decode(audio=0) for f in resampler.resample(frame)]
    frames += resampler.resample(None)
    return np.concatenate([frame.to_ndarray()[0] for frame in frames])


def write_flac(path: Path, samples: Samples) -> None:
    """Write 16-bit mono samples at 16 kHz."""
    frame = av.AudioFrame.from_ndarray(samples[np.newaxis], format="s16", layout="mono")
    frame.sample_rate = SAMPLE_RATE
    with av.open(str(path), "w", format="flac") as container:
        stream = container.add_stream("flac", rate=SAMPLE_RATE, layout="mono", format="s16")
        for packet in (*stream.encode(frame), *stream.encode(None)):
            container.mux(packet)


def main(arguments: Sequence[str] | None = None) -> None:
    """Write every clip and the manifest."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--recordings", type=Path, required=True, help="pocketsphinx-5.1.1.tar.gz")
    parser.add_argument("--output", type=Path, default=HERE / "speech")
    options = parser.parse_args(arguments)
    if hashlib.sha256(options.recordings.read_bytes()).hexdigest() != RECORDINGS_SHA256:
        parser.error("--recordings is not the pocketsphinx 5.1.1 source archive from PyPI")
    options.output.mkdir(parents=True, exist_ok=True)
    entries: list[dict[str, object]] = []

    def add(file: str, samples: Samples, **fields: object) -> None:
        path = options.output / file
        write_flac(path, samples)
        seconds = round(len(samples) / SAMPLE_RATE, 3)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        entries.append({"file": file, **fields, "duration_seconds": seconds, "sha256": digest})

    with tarfile.open(options.recordings) as archive:
        for clip in RECORDED:
            add(
                clip.file,
                joined([read_recording(archive, m) for m in clip.members], clip.pause_seconds),
                text=clip.text,
                language=clip.language,
                kind="speech",
                source="human: pocketsphinx 5.1.1 (PyPI), test/data/" + ", ".join(clip.members),
                licence="BSD-2-Clause",
            )
    for spoken in SPOKEN:
        add(
            spoken.file,
            synthesise(spoken),
            text=spoken.text,
            language=spoken.language,
            kind="speech",
            source=f"synthetic: espeak-ng 1.51, voice {spoken.voice}; our text",
            licence="CC0-1.0",
        )
    add(
        "silence.flac",
        np.zeros(3 * SAMPLE_RATE, dtype=np.int16),
        text="",
        language="none",
        kind="silence",
        source="generated: digital silence",
        licence="CC0-1.0",
    )
    lines = [json.dumps(entry, ensure_ascii=False) + "\n" for entry in entries]
    (options.output / "manifest.jsonl").write_text("".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
