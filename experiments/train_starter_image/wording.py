"""Stage `tokenizer`, and the captions of training: trained wordings with stray words in between.

Without them the model understands only its templates: a first version of this model scored 0 % on
"please draw ...". Stray words and made-up ones teach the text encoder to ignore the unknown.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
from transformers import CLIPTokenizer

from workbench.tasks.image.shapes.captions import (
    ENDINGS,
    PREFIXES,
    TRAINED,
    Language,
    caption_units,
    join,
)
from workbench.tasks.image.shapes.lexicon import LEXICONS
from workbench.tasks.image.shapes.scene import Scene

TOKENS = 77
START, END = "<|startoftext|>", "<|endoftext|>"
WORDS_FILE = Path(__file__).with_name("everyday_words.txt")
VIETNAMESE_SHARE = 0.4
# Ignoring these would change what a sentence means.
_NEGATIONS = frozenset(["no", "not", "without", "never", "except", "instead", "không", "chưa"])
_ONSETS = "b bl br c ch d dr f fl g gr h j k kh l m n ng nh p ph pr qu r s sh st t th tr v w x z"
_RHYMES = "a an at ay e en er ick im in o on oo or ot u un ung us y ai anh ên iêu ông ươi ốt ầm"


@cache
def everyday_words() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The English and the Vietnamese words of `everyday_words.txt`."""
    sections: list[list[str]] = []
    for line in WORDS_FILE.read_text(encoding="utf-8").splitlines():
        if line in ("# English", "# Vietnamese"):
            sections.append([])
        elif not line.startswith("#"):
            sections[-1] += line.split()
    english, vietnamese = (tuple(dict.fromkeys(words)) for words in sections)
    return english, vietnamese


@cache
def _lexicon_words(language: Language) -> frozenset[str]:
    """Every word of the language that has a meaning for the picture."""
    words = LEXICONS[language]
    phrases: list[str] = []
    for names in (words.colours, words.shapes, words.sizes, words.positions,
                  words.backgrounds, words.relations, words.sides):  # fmt: skip
        phrases += [phrase for synonyms in names.values() for phrase in synonyms]
    phrases += [*words.background_phrases, *words.background_nouns, *words.any_shape]
    phrases += [*words.axis, *words.markers, *words.links, *words.prepositions]
    return frozenset(re.findall(r"[^\W\d_]+", " ".join(phrases)))


@cache
def _fillers(language: Language) -> tuple[str, ...]:
    # Only the words of the same language are left out: many mean nothing in the other one.
    english, vietnamese = everyday_words()
    words = english if language == "en" else vietnamese
    return tuple(w for w in words if w not in _lexicon_words(language) | _NEGATIONS)


def _filler(rng: np.random.Generator, language: Language) -> str:
    """A word without meaning for the picture; one in five is made up."""
    if rng.random() < 0.2:
        onsets, rhymes = _ONSETS.split(), _RHYMES.split()
        made_up = ""
        while not made_up or made_up in _lexicon_words("en") | _lexicon_words("vi"):
            made_up = "".join(
                onsets[int(rng.integers(len(onsets)))] + rhymes[int(rng.integers(len(rhymes)))]
                for _ in range(int(rng.integers(1, 4)))
            )
        return made_up
    if language == "en" and rng.random() < 0.04:
        return "to"  # large in Vietnamese, nothing in English: one word in 800 would be too rare
    words = _fillers(language)
    return words[int(rng.integers(len(words)))]


def stray_words(rng: np.random.Generator, language: Language, most: int) -> list[str]:
    """None to `most` words, few more often than many."""
    count = min(int(rng.geometric(0.4)) - 1, most)
    return [_filler(rng, language) for _ in range(count)]


def training_caption(scene: Scene, rng: np.random.Generator, noise: float) -> str:
    """A caption with a trained wording; with chance `noise` stray words stand in it.

    A scene without things gives the empty prompt or stray words only.
    """
    language: Language = "vi" if rng.random() < VIETNAMESE_SHARE else "en"
    if not scene.things:
        return "" if rng.random() < 0.6 else " ".join(stray_words(rng, language, 8))
    units = caption_units(scene, rng, language)
    if rng.random() < noise:
        mixed = stray_words(rng, language, 6)
        for unit in units:
            mixed.append(unit)
            if rng.random() < 0.07:
                mixed.append(_filler(rng, language))
        units = mixed + stray_words(rng, language, 6)
    return join(units)


def _byte_letters() -> dict[int, str]:
    """CLIP's printable stand-in for every byte."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = {byte: chr(byte) for byte in printable}
    rest = [byte for byte in range(256) if byte not in letters]
    return letters | {byte: chr(256 + i) for i, byte in enumerate(rest)}


def _vocabulary() -> list[str]:
    """All words that shall be one token: everyday, lexicon and template words."""
    texts = [" ".join(words) for words in everyday_words()]
    for table in (TRAINED, PREFIXES, ENDINGS):
        for language in LEXICONS:
            texts += table[language]  # type: ignore[index]
    texts += [" ".join(_lexicon_words(language)) for language in ("en", "vi")]
    words = re.findall(r"[^\W\d_]+", re.sub(r"\{\w\}", " ", " ".join(texts)).lower())
    return sorted({unicodedata.normalize("NFC", word) for word in words})


def _learn_merges(words: list[str]) -> list[tuple[str, str]]:
    """Byte-pair merges, most frequent first, until every word is one token."""
    letters = _byte_letters()
    spelled = []
    for word in words:
        symbols = [letters[byte] for byte in word.encode()]
        symbols[-1] += "</w>"
        spelled.append(symbols)
    merges: list[tuple[str, str]] = []
    open_words = [symbols for symbols in spelled if len(symbols) > 1]
    while open_words:
        pairs = Counter(pair for s in open_words for pair in pairwise(s))
        # The name breaks ties, so that the tokenizer is the same on every machine.
        best = max(pairs, key=lambda pair: (pairs[pair], pair))
        merges.append(best)
        for symbols in open_words:
            at = 0
            while at < len(symbols) - 1:
                if (symbols[at], symbols[at + 1]) == best:
                    symbols[at : at + 2] = ["".join(best)]
                at += 1
        open_words = [symbols for symbols in open_words if len(symbols) > 1]
    return merges


@cache
def new_tokenizer() -> CLIPTokenizer:
    """A CLIP tokenizer of 77 positions in which every known word is one token."""
    merges = _learn_merges(_vocabulary())
    letters = list(_byte_letters().values())
    names = [*letters, *(f"{letter}</w>" for letter in letters)]
    names += ["".join(pair) for pair in merges]
    names = [*dict.fromkeys(names), START, END]
    return CLIPTokenizer(
        vocab={name: index for index, name in enumerate(names)},
        merges=merges,
        model_max_length=TOKENS,
    )
