"""What a transcription gives back."""

from __future__ import annotations

import html
import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from workbench.engines.base import Segment
from workbench.errors import UnknownOption, UserInputError
from workbench.tasks.record import Record
from workbench.tasks.speech import formats
from workbench.tasks.speech.score import UNSPACED_LANGUAGES


@dataclass(frozen=True)
class SpeechTimings:
    """Where the time went. Waiting for the reader of a stream does not count.

    ``first_segment_seconds`` is from the call to the first segment; None: there was none.
    ``realtime_factor`` is processing (decode, detect, transcribe; not loading the model) by the
    length of the recording: 0.1 is ten times as fast as listening.
    """

    decode_seconds: float
    load_seconds: float
    detect_seconds: float
    transcribe_seconds: float
    first_segment_seconds: float | None
    total_seconds: float
    realtime_factor: float


@dataclass(frozen=True)
class Transcript:
    """What was said, when.

    ``language`` is the one spoken, also when it was ``translated`` into English; it is empty
    when it was to be detected and nobody spoke. ``cancelled``: stopped before the end.
    """

    segments: tuple[Segment, ...]
    language: str
    language_probability: float
    duration_seconds: float
    model: str
    timings: SpeechTimings
    record: Record
    translated: bool = False
    cancelled: bool = False

    @property
    def text(self) -> str:
        """The whole text on one line."""
        return join_text(self.segments, "en" if self.translated else self.language)

    def to_txt(self) -> str:
        """One line a segment."""
        return formats.to_txt(self)

    def to_srt(self) -> str:
        """SubRip subtitles: cut at words, two lines of 42 characters, 7 s at most."""
        return formats.to_srt(self)

    def to_vtt(self) -> str:
        """WebVTT subtitles, cut like `to_srt`."""
        return formats.to_vtt(self)

    def to_tsv(self) -> str:
        """One row a segment: start and end in milliseconds, text."""
        return formats.to_tsv(self)

    def to_json(self) -> str:
        """`to_dict` as JSON."""
        return formats.to_json(self)

    def to_format(self, name: str) -> str:
        """The text of the format ``name``: txt, srt, vtt, tsv, json. Raises UnknownOption."""
        return formats.find_format(name)(self)

    def save(self, path: str | Path) -> Path:
        """Write the file that the suffix of ``path`` names; it is whole or it is not there.

        Raises UnknownOption for a suffix that is not a format, UserInputError where the file
        cannot be written.
        """
        path = Path(path).expanduser()
        if not path.suffix:
            raise UnknownOption(
                f"{str(path)!r} has no suffix that names a format.",
                f"End it with one of: {', '.join('.' + name for name in formats.FORMATS)}.",
            )
        content = self.to_format(path.suffix.removeprefix("."))
        temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                temporary.write_text(content, encoding="utf-8", newline="\n")
                temporary.replace(path)
            finally:
                temporary.unlink(missing_ok=True)
        except OSError as error:
            raise UserInputError(
                f"{str(path)!r} cannot be written: {error.strerror}.", "Choose another place."
            ) from None
        return path

    def to_dict(self) -> dict[str, Any]:
        """The transcript as JSON types."""
        return {
            "text": self.text,
            "language": self.language,
            "language_probability": self.language_probability,
            "translated": self.translated,
            "cancelled": self.cancelled,
            "duration_seconds": self.duration_seconds,
            "model": self.model,
            "segments": [
                {**asdict(s), "words": [asdict(w) for w in s.words]} for s in self.segments
            ],
            "timings": asdict(self.timings),
            "quality": dict(self.record.quality),
        }

    def __str__(self) -> str:
        return self.text

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{formats.clock(round(s.start_seconds * 1000))}</td>"
            f"<td>{formats.clock(round(s.end_seconds * 1000))}</td>"
            f'<td style="text-align:left">{html.escape(s.text)}</td></tr>'
            for s in self.segments
        )
        language = html.escape(self.language or "no speech")
        stopped = ", stopped" if self.cancelled else ""
        return (
            "<table><thead><tr><th>start</th><th>end</th><th>text</th></tr></thead>"
            f"<tbody>{rows}</tbody></table>"
            f"<p>{language}, {self.duration_seconds:.1f} s, "
            f"real-time factor {self.timings.realtime_factor:.3f}{stopped}</p>"
        )


def join_text(segments: Sequence[Segment], language: str) -> str:
    """Segments as one text, without spaces between them where the language has none."""
    mark = "" if language in UNSPACED_LANGUAGES else " "
    return mark.join(text for s in segments if (text := " ".join(s.text.split())))
