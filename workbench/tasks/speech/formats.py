"""A transcript as a text file: TXT, SRT, VTT, TSV, JSON. All are UTF-8.

Sources: SubRip as players read it; WebVTT, https://www.w3.org/TR/webvtt1/; TSV as Whisper's own
command writes it (whole milliseconds).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING

from workbench.errors import UnknownOption
from workbench.tasks.speech.subtitles import cues

if TYPE_CHECKING:
    from workbench.tasks.speech.types import Transcript


def to_txt(transcript: Transcript) -> str:
    """One line a segment."""
    return "".join(f"{_one_line(segment.text)}\n" for segment in transcript.segments)


def to_srt(transcript: Transcript) -> str:
    """SubRip subtitles. It has no escapes: a player may read ``<i>`` in a text as a tag."""
    return "\n".join(
        f"{number}\n{clock(cue.start_ms, ',')} --> {clock(cue.end_ms, ',')}\n"
        + "".join(f"{line}\n" for line in cue.lines)
        for number, cue in enumerate(cues(transcript.segments), start=1)
    )


def to_vtt(transcript: Transcript) -> str:
    """WebVTT subtitles, with ``&``, ``<`` and ``>`` escaped."""
    return "WEBVTT\n" + "".join(
        f"\n{clock(cue.start_ms, '.')} --> {clock(cue.end_ms, '.')}\n"
        + "".join(f"{_escape(line)}\n" for line in cue.lines)
        for cue in cues(transcript.segments)
    )


def to_tsv(transcript: Transcript) -> str:
    """One row a segment: start and end in whole milliseconds, and the text without tabs."""
    return "start\tend\ttext\n" + "".join(
        f"{round(segment.start_seconds * 1000)}\t{round(segment.end_seconds * 1000)}\t"
        f"{_one_line(segment.text)}\n"
        for segment in transcript.segments
    )


def to_json(transcript: Transcript) -> str:
    """Everything, as `Transcript.to_dict` gives it."""
    return json.dumps(transcript.to_dict(), ensure_ascii=False, indent=2) + "\n"


#: name, which is also the suffix of a file -> writer
FORMATS: dict[str, Callable[[Transcript], str]] = {
    "txt": to_txt,
    "srt": to_srt,
    "vtt": to_vtt,
    "tsv": to_tsv,
    "json": to_json,
}


def find_format(name: str) -> Callable[[Transcript], str]:
    """The writer called ``name``. Raises UnknownOption."""
    writer = FORMATS.get(name.lower())
    if writer is None:
        raise UnknownOption(
            f"There is no transcript format {name!r}.", f"Use one of: {', '.join(FORMATS)}."
        )
    return writer


def clock(milliseconds: int, mark: str = ".") -> str:
    """``3661042`` -> ``"01:01:01.042"``; ``mark`` stands before the milliseconds."""
    seconds, rest = divmod(milliseconds, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{seconds:02}{mark}{rest:03}"


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _escape(line: str) -> str:
    return line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
