"""Any recording or video as 16 kHz mono samples, decoded by PyAV (which brings FFmpeg along).

The samples are exactly those of ``faster_whisper.decode_audio`` for a sound file. It is not used
here because it needs 2.5 times the memory (16-bit bytes, then two float copies), drops
everything after the first damaged packet, and raises the errors of PyAV.
"""

from __future__ import annotations

import hashlib
import io
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from workbench.engines.base import StopCheck, never_stop
from workbench.errors import Cancelled, InvalidMedia

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SAMPLE_RATE = 16_000
#: Frames are resampled in blocks: one call for each 20 ms frame would take twice the time.
_BLOCK_SAMPLES = 500_000
_FIRST_SAMPLES = 60 * SAMPLE_RATE
#: A damaged header may claim any duration; pages that stay empty cost nothing up to here.
_EXPECTED_SAMPLES = 4 * 3600 * SAMPLE_RATE

_log = logging.getLogger(__name__)

#: A path, the bytes of a file, or samples: float, 16 kHz, mono, shape (n,), between -1 and 1.
AudioInput: TypeAlias = "str | Path | bytes | NDArray[np.floating[Any]]"


@dataclass(frozen=True)
class Audio:
    """Decoded sound: float32 samples of shape ``(n,)`` and where they come from.

    ``damaged_packets`` counts what could not be decoded and was left out.
    """

    samples: NDArray[np.float32]
    source: dict[str, Any]
    damaged_packets: int = 0

    @property
    def duration_seconds(self) -> float:
        """Length of the recording."""
        return len(self.samples) / SAMPLE_RATE


def decode_audio(audio: AudioInput) -> NDArray[np.float32]:
    """The samples of ``audio``: float32, 16 kHz, mono, shape ``(n,)``. Raises InvalidMedia."""
    return read_audio(audio).samples


def read_audio(audio: AudioInput, should_stop: StopCheck = never_stop) -> Audio:
    """Decode ``audio``: a path, the bytes of a file, or samples (used as they are).

    Of several audio tracks FFmpeg's choice is taken. Raises InvalidMedia for what is missing,
    empty, corrupt, without sound or not readable, and Cancelled when ``should_stop`` says so.
    """
    if isinstance(audio, str | Path):
        path = _check_path(audio)
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        return _decode(path, repr(str(audio)), {"file": str(audio), "sha256": sha256}, should_stop)
    if isinstance(audio, bytes | bytearray | memoryview):
        if not len(audio):
            raise InvalidMedia("The audio has no bytes.", "Give the bytes of a whole file.")
        digest = hashlib.sha256(audio).hexdigest()
        return _decode(
            io.BytesIO(audio),
            "The audio",
            {"size_bytes": len(audio), "sha256": digest},
            should_stop,
        )
    samples = check_samples(audio)
    digest = hashlib.sha256(samples.data).hexdigest()
    return Audio(samples, {"samples": len(samples), "sha256": digest})


def check_samples(samples: Any) -> NDArray[np.float32]:
    """``samples`` as contiguous float32, without a copy where they already are.

    Raises InvalidMedia for anything but a float array of shape ``(n,)`` between -1 and 1.
    """
    import numpy as np

    remedy = "Give a path, bytes, or 16 kHz mono float samples between -1 and 1 of shape (n,)."
    if not isinstance(samples, np.ndarray):
        raise InvalidMedia(f"A {type(samples).__name__} is not audio.", remedy)
    if not np.issubdtype(samples.dtype, np.floating):
        raise InvalidMedia(f"The samples are {samples.dtype} and not float.", remedy)
    if samples.ndim != 1:
        raise InvalidMedia(f"The samples have the shape {samples.shape}.", remedy)
    if not samples.size:
        raise InvalidMedia("There are no samples.", remedy)
    # NaN fails every comparison; a little overshoot is usual after resampling
    if not (samples.min() >= -2 and samples.max() <= 2):
        raise InvalidMedia("The samples are not between -1 and 1.", remedy)
    return np.ascontiguousarray(samples, dtype=np.float32)


def _check_path(audio: str | Path) -> Path:
    path = Path(audio).expanduser()
    name = repr(str(audio))
    try:
        if not path.exists():
            raise InvalidMedia(f"There is no file {name}.", "Check the path.")
        if path.is_dir():
            raise InvalidMedia(f"{name} is a folder.", "Give a sound or video file in it.")
        if path.is_file() and not path.stat().st_size:
            raise InvalidMedia(f"{name} is empty.", "Record or download it again.")
        with path.open("rb"):
            return path
    except (OSError, ValueError) as error:
        if isinstance(error, InvalidMedia):
            raise
        reason = getattr(error, "strerror", None) or error
        raise InvalidMedia(f"{name} cannot be read: {reason}.", "Check the file.") from None


def _decode(
    file: Path | io.BytesIO, name: str, source: dict[str, Any], should_stop: StopCheck
) -> Audio:
    import av

    corrupt = "Check that it plays, or convert it: `ffmpeg -i FILE -ac 1 -ar 16000 out.wav`."
    try:
        # a playlist inside an upload must not make this machine open addresses
        with av.open(
            str(file) if isinstance(file, Path) else file,
            metadata_errors="ignore",
            options={"protocol_whitelist": "file"},
        ) as container:
            stream = container.streams.best("audio")
            if stream is None:
                raise InvalidMedia(f"{name} has no audio track.", "Give a file with sound.")
            samples, damaged_packets = _collect(container, stream, should_stop)
    except (av.error.FFmpegError, OSError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InvalidMedia(f"{name} cannot be decoded: {reason}.", corrupt) from None
    if not samples.size:
        raise InvalidMedia(f"{name} holds no sound that can be decoded.", corrupt)
    if damaged_packets:
        _log.warning("%s: %d damaged packets were left out", name, damaged_packets)
    return Audio(samples, source, damaged_packets)


def _collect(
    container: Any, stream: Any, should_stop: StopCheck
) -> tuple[NDArray[np.float32], int]:
    """All samples in one growing buffer, and how many packets were damaged."""
    import numpy as np

    expected = (container.duration or 0) * SAMPLE_RATE // 1_000_000 + SAMPLE_RATE
    samples = np.empty(min(max(expected, _FIRST_SAMPLES), _EXPECTED_SAMPLES), np.float32)
    blocks = _Blocks(container, stream, should_stop)
    used = 0
    for block in blocks:
        end = used + block.size
        if end > samples.size:
            samples.resize(max(end, 3 * samples.size // 2), refcheck=False)
        np.multiply(block, np.float32(1 / 32768), out=samples[used:end])
        used = end
    samples.resize(used, refcheck=False)
    return samples, blocks.damaged_packets


class _Blocks:
    """16-bit mono blocks at 16 kHz; goes on after packets that cannot be decoded."""

    def __init__(self, container: Any, stream: Any, should_stop: StopCheck) -> None:
        self._container = container
        self._stream = stream
        self._should_stop = should_stop
        self.damaged_packets = 0

    def __iter__(self) -> Iterator[NDArray[np.int16]]:
        import av

        resampler = av.AudioResampler(format="s16", layout="mono", rate=SAMPLE_RATE)
        for frame in self._joined():
            for block in resampler.resample(frame):
                yield block.to_ndarray()[0]
        for block in resampler.resample(None):
            yield block.to_ndarray()[0]

    def _joined(self) -> Iterator[Any]:
        """Frames joined to longer ones; a change of format inside the file starts a new one."""
        import av

        fifo, form = av.AudioFifo(), None
        for frame in self._frames():
            found = (frame.format.name, frame.layout.name, frame.sample_rate)
            if form not in (None, found) or fifo.samples >= _BLOCK_SAMPLES:
                yield fifo.read()
                if form != found:
                    fifo = av.AudioFifo()
            form = found
            frame.pts = None  # gaps in the time stamps are joined, as faster-whisper does
            fifo.write(frame)
        if fifo.samples:
            yield fifo.read()

    def _frames(self) -> Iterator[Any]:
        import av

        for packet in self._container.demux(self._stream):
            if self._should_stop():
                raise Cancelled("The decoding was stopped.", "Start it again.")
            try:
                frames = packet.decode()
            except av.error.InvalidDataError:
                self.damaged_packets += 1
                continue
            yield from frames
