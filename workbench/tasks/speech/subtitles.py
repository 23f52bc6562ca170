"""Cuts segments into subtitles: at words, two lines of 42 characters, seven seconds at most.

Without word times, a segment's time is shared out by characters. Where a script has no spaces
(Chinese, Japanese, Thai, Lao, Khmer, Burmese), a cut may fall between any two characters that
belong to different syllables; it does not know words there. Wide characters count twice.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from workbench.engines.base import Segment

LINE_CHARACTERS = 42
LINES = 2
MAX_SECONDS = 7.0
#: A pause of this length between two words starts a new subtitle.
_PAUSE_SECONDS = 1.5
#: Nobody takes longer for a character; a longer segment without word times ends in silence.
_SLOWEST_SECONDS = 0.5
_SENTENCE_ENDS = tuple(".?!…。？！")

#: Inclusive ranges of scripts that are written without spaces.
_UNSPACED = (
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x1000, 0x109F),  # Burmese
    (0x1780, 0x17FF),  # Khmer
    (0x3000, 0x30FF),  # CJK punctuation, kana
    (0x3400, 0x4DBF),
    (0x4E00, 0x9FFF),
    (0xF900, 0xFAFF),
    (0xFF00, 0xFFEF),  # full-width forms
    (0x20000, 0x3FFFF),
)
#: Thai and Lao vowels written before their consonant, and the Khmer and Burmese stackers.
_GLUED_TO_NEXT = frozenset("เแโใไເແໂໃໄ\u17d2\u1039")
_SMALL_KANA = frozenset("ぁぃぅぇぉっゃゅょゎァィゥェォッャュョヮ")


@dataclass(frozen=True)
class Cue:
    """One subtitle: whole milliseconds and one or two lines."""

    start_ms: int
    end_ms: int
    lines: tuple[str, ...]


@dataclass(frozen=True)
class _Unit:
    """A piece of text that is never cut. ``spaced``: a space stands before it."""

    text: str
    spaced: bool
    start_seconds: float
    end_seconds: float


def cues(segments: Iterable[Segment]) -> list[Cue]:
    """The subtitles of ``segments``, in their order, without overlaps.

    Every character except white space is kept. A single word longer than a line stands alone on
    a longer line.
    """
    made: list[Cue] = []
    earliest_ms = 0
    for segment in segments:
        for group in _groups(list(_units(segment))):
            start_ms = max(round(group[0].start_seconds * 1000), earliest_ms)
            end_ms = min(round(group[-1].end_seconds * 1000), start_ms + int(MAX_SECONDS * 1000))
            end_ms = max(end_ms, start_ms + 1)
            made.append(Cue(start_ms, end_ms, _lines(group)))
            earliest_ms = end_ms
    return made


def _units(segment: Segment) -> Iterator[_Unit]:
    pieces = [(word.text, word.start_seconds, word.end_seconds) for word in segment.words]
    if "".join(text for text, _, _ in pieces).split() != segment.text.split():
        # no word times, or a text that was edited since: the text counts
        start = segment.start_seconds
        slowest = start + _SLOWEST_SECONDS * len(segment.text.strip())
        pieces = [(segment.text, start, min(segment.end_seconds, slowest))]
    text, spaced, space_seen, first, last = "", False, False, 0.0, 0.0
    for piece, start, end in pieces:
        said = piece.strip()
        space_seen = space_seen or piece[:1].isspace()
        step = (end - start) / max(1, len(said))
        for number, character in enumerate(said):
            if character.isspace():
                space_seen = True
                continue
            if text and (space_seen or _may_cut(text[-1], character)):
                yield _Unit(text, spaced, first, last)
                text, spaced = "", space_seen
            if not text:
                first = start + number * step
            text += character
            last = start + (number + 1) * step
            space_seen = False
        space_seen = space_seen or piece[-1:].isspace()
    if text:
        yield _Unit(text, spaced, first, last)


def _may_cut(before: str, after: str) -> bool:
    """Whether two neighbours without a space between them may be parted."""
    if not (_is_unspaced(before) or _is_unspaced(after)):
        return False
    if before in _GLUED_TO_NEXT or after in _SMALL_KANA:
        return False
    category = unicodedata.category(after)
    opens = unicodedata.category(before) in ("Ps", "Pi")
    return not opens and category[0] != "M" and category not in ("Pe", "Pf", "Po", "Lm")


def _is_unspaced(character: str) -> bool:
    return any(low <= ord(character) <= high for low, high in _UNSPACED)


def _groups(units: Sequence[_Unit]) -> Iterator[Sequence[_Unit]]:
    """As few subtitles as the rules allow, alike in length, parted at every pause."""
    for run in _runs(units):
        groups = _fill(run, LINES * LINE_CHARACTERS)
        # the least room that does not make one more: no last subtitle of one word
        for room in range(_width(_line(run)) // len(groups), LINES * LINE_CHARACTERS):
            tighter = _fill(run, room)
            if len(tighter) == len(groups):
                groups = tighter
                break
        yield from groups


def _runs(units: Sequence[_Unit]) -> Iterator[Sequence[_Unit]]:
    begin = 0
    for number in range(1, len(units)):
        if units[number].start_seconds - units[number - 1].end_seconds >= _PAUSE_SECONDS:
            yield units[begin:number]
            begin = number
    if units:
        yield units[begin:]


def _fill(units: Sequence[_Unit], room: int) -> list[Sequence[_Unit]]:
    """Fill subtitles of ``room`` characters in order; past its middle one ends at a sentence."""
    groups: list[Sequence[_Unit]] = []
    group: list[_Unit] = []
    for unit in units:
        if group and not _fits([*group, unit], room):
            cut = _last_sentence_end(group)
            if not _fits([*group[cut:], unit], room):
                cut = len(group)
            groups.append(group[:cut])
            group = group[cut:]
        group.append(unit)
    return [*groups, group]


def _last_sentence_end(group: Sequence[_Unit]) -> int:
    for cut in range(len(group) - 1, len(group) // 2, -1):
        if group[cut - 1].text.endswith(_SENTENCE_ENDS):
            return cut
    return len(group)


def _fits(group: Sequence[_Unit], room: int) -> bool:
    if group[-1].end_seconds - group[0].start_seconds > MAX_SECONDS:
        return False
    lines = _lines(group)
    return _width(_line(group)) <= room and all(_width(line) <= LINE_CHARACTERS for line in lines)


def _lines(group: Sequence[_Unit]) -> tuple[str, ...]:
    """One line where that is enough, else the two that are most alike in length."""
    whole = _line(group)
    if _width(whole) <= LINE_CHARACTERS or len(group) == 1:
        return (whole,)
    pairs = ((_line(group[:cut]), _line(group[cut:])) for cut in range(1, len(group)))
    return min(pairs, key=lambda pair: max(map(_width, pair)))


def _line(group: Sequence[_Unit]) -> str:
    return group[0].text + "".join(" " * unit.spaced + unit.text for unit in group[1:])


def _width(line: str) -> int:
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in line)
