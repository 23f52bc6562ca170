"""Scores of an answer against the true one."""

from __future__ import annotations

import unicodedata


def normalise(text: str) -> str:
    """Lower case, composed characters, no punctuation, single spaces.

    Source: the SQuAD evaluation script (Rajpurkar et al., 2016), without its removal of English
    articles, which are words in other languages.
    """
    letters = unicodedata.normalize("NFC", text).casefold()
    kept = (" " if unicodedata.category(c).startswith("P") else c for c in letters)
    return " ".join("".join(kept).split())


def score(reference: str, text: str) -> dict[str, float]:
    """``exact_match``: the answer is the reference; ``contains``: it has it as whole words."""
    wanted, given = normalise(reference), normalise(text)
    return {
        "exact_match": float(wanted == given),
        "contains": float(f" {wanted} " in f" {given} "),
    }
