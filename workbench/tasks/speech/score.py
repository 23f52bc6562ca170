"""Word and character error rates.

English is made comparable by Whisper's own normaliser (`workbench.engines.whisper_text` says what
that does not do). Every other language: Unicode NFKC, case folded, punctuation and symbols taken
as spaces, accents and Vietnamese tone marks kept. That does not turn numbers or abbreviations
into words, and takes traditional and simplified Chinese characters as different.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Hashable, Sequence

from workbench.engines.whisper_text import normalize_english

#: Written without spaces: words are not marked, so there is no word error rate.
UNSPACED_LANGUAGES = frozenset({"zh", "yue", "ja", "th", "lo", "my", "km"})


def score(
    reference: str, hypothesis: str, language: str, duration_seconds: float
) -> dict[str, float]:
    """``{"wer": ..., "cer": ...}``; 0 is perfect and more than 1 is possible.

    Languages of `UNSPACED_LANGUAGES` have no ``wer``; their ``cer``, and that of Korean, whose
    spacing varies, is of the text without spaces. A reference without words (silence, noise)
    gives ``{"hallucinated_words_per_minute": ...}`` instead.
    """
    wanted, found = normalize(reference, language), normalize(hypothesis, language)
    if not wanted:
        words = len(found.replace(" ", "") if language in UNSPACED_LANGUAGES else found.split())
        return {"hallucinated_words_per_minute": words / (duration_seconds / 60)}
    rates = {}
    if language not in UNSPACED_LANGUAGES:
        rates["wer"] = edit_distance(wanted.split(), found.split()) / len(wanted.split())
    if language in UNSPACED_LANGUAGES or language == "ko":
        wanted, found = wanted.replace(" ", ""), found.replace(" ", "")
    rates["cer"] = edit_distance(wanted, found) / len(wanted)
    return rates


def normalize(text: str, language: str) -> str:
    """``text`` as it is compared: words with single spaces between them."""
    if language == "en":
        return " ".join(normalize_english(text).split())
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    # an apostrophe inside a word joins (l'eau); every other mark parts
    kept = (" " if unicodedata.category(c)[0] in "PSZC" and c not in "'’" else c for c in folded)
    words = "".join(kept).replace("’", "'").split()
    return " ".join(word for word in (w.strip("'") for w in words) if word)


def edit_distance(wanted: Sequence[Hashable], found: Sequence[Hashable]) -> int:
    """The fewest insertions, deletions and substitutions that make one out of the other.

    One row of the table at a time: memory is linear, time ``len(wanted) * len(found)`` in numpy.
    Source: Levenshtein 1966; the insertions of a row are a running minimum.
    """
    import numpy as np

    codes: dict[Hashable, int] = {}
    a = np.array([codes.setdefault(item, len(codes)) for item in wanted], dtype=np.int64)
    b = np.array([codes.setdefault(item, len(codes)) for item in found], dtype=np.int64)
    columns = np.arange(len(b) + 1)
    row = columns
    for number, code in enumerate(a, start=1):
        best = np.empty_like(row)
        best[0] = number
        np.minimum(row[:-1] + (b != code), row[1:] + 1, out=best[1:])
        row = np.minimum.accumulate(best - columns) + columns
    return int(row[-1])
