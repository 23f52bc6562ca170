"""Whisper's log-Mel features of a recording of any length in little memory.

faster-whisper transforms the whole recording at once, which takes 50 MB of memory a minute (3 GB
for an hour). Here the same transform goes block by block, and only the result is kept: 1.9 MB a
minute. The numbers differ by rounding alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_BLOCK_FRAMES = 6000  # one minute


class BlockFeatures:
    """Stands in for a ``faster_whisper.feature_extractor.FeatureExtractor``."""

    def __init__(self, extractor: Any) -> None:
        self._extractor = extractor

    def __getattr__(self, name: str) -> Any:
        return getattr(self._extractor, name)

    def __call__(
        self, waveform: NDArray[np.float32], padding: int = 160, chunk_length: int | None = None
    ) -> NDArray[np.float32]:
        """Features of ``waveform`` (shape ``(n,)``) followed by ``padding`` zeros.

        The shape is ``(mels, (n + padding) // hop_length)``. Source: ``log_mel_spectrogram`` of
        openai/whisper; the window of a frame is centred on it and mirrored at both ends.
        """
        import numpy as np

        whisper = self._extractor
        hop, half = whisper.hop_length, whisper.n_fft // 2
        frames = (len(waveform) + padding) // hop
        if frames <= _BLOCK_FRAMES or chunk_length is not None:
            features: NDArray[np.float32] = whisper(waveform, padding, chunk_length)
            return features
        window = np.hanning(whisper.n_fft + 1)[:-1].astype(np.float32)
        features = np.empty((len(whisper.mel_filters), frames), np.float32)
        for first in range(0, frames, _BLOCK_FRAMES):
            last = min(first + _BLOCK_FRAMES, frames)
            low, high = first * hop - half, (last - 1) * hop + half
            piece = waveform[max(low, 0) : high]
            if low < 0:
                piece = np.pad(piece, (-low, 0), mode="reflect")
            if high > len(waveform):
                piece = np.pad(np.pad(piece, (0, padding)), (0, half), mode="reflect")
                piece = piece[: high - low]
            spectrum = whisper.stft(
                piece, whisper.n_fft, hop, window=window, center=False, return_complex=True
            )
            mel = whisper.mel_filters @ np.abs(spectrum.astype(np.complex64)) ** 2
            np.log10(np.maximum(mel, 1e-10), out=features[:, first:last])
        # one scale for the whole recording, as for a short one
        np.maximum(features, features.max() - 8.0, out=features)
        features += 4.0
        features /= 4.0
        return features
