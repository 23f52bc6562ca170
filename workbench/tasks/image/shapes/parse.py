"""Reads a prompt back into the scene that it asks for, so that its picture can be scored.

It spots the words of the lexicon and binds them by order, so it reads any wording that names the
things plainly; text that it cannot read with certainty gives None rather than a guess.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from functools import cache

from workbench.tasks.image.shapes.lexicon import LEXICONS, Lexicon
from workbench.tasks.image.shapes.scene import POSITIONS, RELATIONS, Scene, Thing


@dataclass(frozen=True)
class _Token:
    kind: str  # colour, background, shape, size, axis or word
    value: str


@cache
def _phrases(language: str) -> dict[tuple[str, ...], _Token]:
    """Every phrase of the lexicon as words; longer ones win when reading."""
    words = LEXICONS[language]
    table: dict[tuple[str, ...], _Token] = {}
    for kind, names in (
        ("colour", words.colours),
        ("background", words.backgrounds),
        ("shape", words.shapes),
        ("size", words.sizes),
    ):
        for value, synonyms in names.items():
            for synonym in synonyms:
                table[tuple(synonym.split())] = _Token(kind, value)
    for name in words.axis:
        table[tuple(name.split())] = _Token("axis", name)
    return table


def _tokens(text: str, language: str) -> list[_Token]:
    plain = unicodedata.normalize("NFC", text).lower()
    # Punctuation stays, as a border that no background phrase crosses.
    words = re.findall(r"\w+|[^\w\s]", plain)
    table, tokens, at = _phrases(language), [], 0
    longest = max(map(len, table))
    while at < len(words):
        for length in range(longest, 0, -1):
            found = table.get(tuple(words[at : at + length]))
            if found:
                tokens.append(found)
                at += length
                break
        else:
            tokens.append(_Token("word", words[at]))
            at += 1
    return tokens


def _take_background(
    tokens: list[_Token], words: Lexicon
) -> tuple[str | None, list[_Token]] | None:
    """The background's name and the tokens without its phrase; None when it is not certain."""
    places = [i for i, token in enumerate(tokens) if token.kind == "background"]
    if not places:
        return None, tokens
    if len(places) > 1:
        return None
    start = stop = places[0]
    marked = False
    # Leftwards up to the first preposition ("trên" of "trên nền"), as one more may be a position;
    # what stands before the noun itself ("nền") can only be its preposition.
    while start > 0:
        word = tokens[start - 1].value
        links = frozenset() if marked else words.links
        if word not in words.markers | words.prepositions | links:
            break
        start -= 1
        marked |= word in words.markers | words.prepositions
        if word in words.prepositions:
            break
    while stop + 1 < len(tokens) and tokens[stop + 1].value in words.markers | {"all"}:
        stop += 1
        marked |= tokens[stop].value in words.markers
    if not marked:
        return None
    return tokens[places[0]].value, tokens[:start] + tokens[stop + 1 :]


def _side(column: int, row: int) -> str:
    return next(name for name, place in RELATIONS.items() if place == (column, row))


def _read_pair(background: str | None, tokens: list[_Token], words: Lexicon) -> Scene | None:
    shapes = [i for i, token in enumerate(tokens) if token.kind == "shape"]
    colours = [token.value for token in tokens if token.kind == "colour"]
    axes = [i for i, token in enumerate(tokens) if token.kind == "axis"]
    if len(colours) != 2 or any(token.kind == "size" for token in tokens):
        return None
    things = tuple(
        Thing(colour, tokens[i].value) for colour, i in zip(colours, shapes, strict=True)
    )
    if not axes:
        return Scene(things, background)
    sides = [words.axis[tokens[i].value] for i in axes]
    if (0, 0) in sides or len(axes) > 2:
        return None
    if len(axes) == 2:
        # "x on the left and y on the right": each side belongs to its own thing.
        opposite = (-sides[0][0], -sides[0][1])
        return Scene(things, background, _side(*sides[0])) if sides[1] == opposite else None
    # "x above y", but "above y is x" and "y with x above it".
    if not shapes[0] < axes[0] < shapes[1]:
        things = things[::-1]
    return Scene(things, background, _side(*sides[0]))


def _read_single(background: str | None, tokens: list[_Token], words: Lexicon) -> Scene | None:
    said: dict[str, str] = {}
    columns, rows = set(), set()
    for token in tokens:
        if token.kind == "axis":
            column, row = words.axis[token.value]
            columns.add(column)
            rows.add(row)
        elif token.kind != "word":
            if token.kind in said:
                return None
            said[token.kind] = token.value
    position = None
    if columns:
        # "top" and "left" together are a corner; the zeros of the other axis do not count.
        across, down = columns - {0} or {0}, rows - {0} or {0}
        if len(across) > 1 or len(down) > 1:
            return None
        place = (across.pop(), down.pop())
        position = next(name for name, where in POSITIONS.items() if where == place)
    if "colour" not in said and "shape" not in said:
        return None
    thing = Thing(said.get("colour"), said.get("shape"), said.get("size"), position)
    return Scene((thing,), background)


def parse_caption(text: str) -> Scene | None:
    """The scene that `text` asks for (attributes not said are None), or None if it is not clear.

    Vietnamese is told from English by its letters outside ASCII.
    """
    language = "en" if text.isascii() else "vi"
    words = LEXICONS[language]
    taken = _take_background(_tokens(text, language), words)
    if taken is None:
        return None
    background, tokens = taken
    shapes = sum(token.kind == "shape" for token in tokens)
    if shapes == 2:
        return _read_pair(background, tokens, words)
    return _read_single(background, tokens, words) if shapes < 2 else None
