"""Sound files made on the spot."""

from __future__ import annotations

import io
import wave

import numpy as np
from numpy.typing import NDArray

RATE = 16_000


def tone(seconds: float, hertz: float = 440.0) -> NDArray[np.float32]:
    """A sine of half the full scale: 16 kHz mono."""
    time = np.arange(int(seconds * RATE)) / RATE
    return (0.5 * np.sin(2 * np.pi * hertz * time)).astype(np.float32)


def encode(
    samples: NDArray[np.float32],
    form: str,
    codec: str,
    rate: int = RATE,
    layout: str = "mono",
    picture: bool = False,
) -> bytes:
    """``samples`` as the bytes of a file, with a one-frame video track if ``picture``."""
    import av

    file = io.BytesIO()
    with av.open(file, "w", format=form) as container:
        video = container.add_stream("mpeg4", rate=25, width=16, height=16) if picture else None
        stream = container.add_stream(codec, rate=rate, layout=layout)
        if video is not None:
            still = av.VideoFrame.from_ndarray(np.zeros((16, 16, 3), np.uint8), format="rgb24")
            container.mux([*video.encode(still), *video.encode(None)])
        frame = av.AudioFrame.from_ndarray(
            (samples * 32767).astype(np.int16)[None, :], format="s16", layout="mono"
        )
        frame.sample_rate = RATE
        resampler = av.AudioResampler(
            format=stream.codec_context.format,
            layout=layout,
            rate=rate,
            frame_size=stream.codec_context.frame_size or 1024,
        )
        for part in [*resampler.resample(frame), *resampler.resample(None)]:
            container.mux(stream.encode(part))
        container.mux(stream.encode(None))
    return file.getvalue()


def wav(samples: NDArray[np.float32]) -> bytes:
    """``samples`` as a WAV file; it may be empty."""
    file = io.BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(RATE)
        sound.writeframes((samples * 32767).astype("<i2").tobytes())
    return file.getvalue()


def silent_video() -> bytes:
    """A video without an audio track."""
    import av

    file = io.BytesIO()
    with av.open(file, "w", format="matroska") as container:
        video = container.add_stream("mpeg4", rate=25, width=16, height=16)
        still = av.VideoFrame.from_ndarray(np.zeros((16, 16, 3), np.uint8), format="rgb24")
        container.mux([*video.encode(still), *video.encode(None)])
    return file.getvalue()
