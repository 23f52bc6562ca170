"""Scores of an answer against the true one."""

from __future__ import annotations

import unicodedata

import pytest

from workbench.tasks.chat.score import score


@pytest.mark.parametrize(
    ("reference", "text", "exact", "contains"),
    [
        ("Paris", "Paris", 1, 1),
        ("Paris", " paris. ", 1, 1),
        ("Paris", "It is Paris, of course.", 0, 1),
        ("par", "Paris", 0, 0),
        ("42", "The answer is 42!", 0, 1),
        ("Hà Nội", unicodedata.normalize("NFD", "hà nội"), 1, 1),
        ("Hà Nội", "Ha Noi", 0, 0),
        ("the sea", "sea", 0, 0),
        ("yes", "", 0, 0),
    ],
)
def test_scores(reference: str, text: str, exact: float, contains: float):
    assert score(reference, text) == {"exact_match": exact, "contains": contains}
