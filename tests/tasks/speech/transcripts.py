"""Transcripts made by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from workbench.engines.base import Segment
from workbench.tasks.record import Record
from workbench.tasks.speech import SpeechTimings, Transcript


def make_transcript(segments: Sequence[Segment], **values: Any) -> Transcript:
    """A transcript of ``segments``, in Vietnamese unless said otherwise."""
    defaults = {
        "language": "vi",
        "language_probability": 0.9,
        "duration_seconds": 10.0,
        "model": "stub",
        "timings": SpeechTimings(0.1, 0.0, 0.2, 0.7, 0.5, 1.0, 0.1),
        "record": Record(task="speech", model="stub", engine="stub", model_sha256=None, request={}),
    }
    return Transcript(segments=tuple(segments), **{**defaults, **values})
