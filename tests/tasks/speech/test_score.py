from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.tasks.speech.score import edit_distance, normalize, score


@pytest.mark.parametrize(
    ("wanted", "found", "distance"),
    [
        ("", "", 0),
        ("abc", "", 3),
        ("", "abc", 3),
        ("kitten", "sitting", 3),
        ("flaw", "lawn", 2),
        (["a", "b"], ["b", "a"], 2),
    ],
)
def test_edit_distance(wanted, found, distance: int):
    assert edit_distance(wanted, found) == distance


def _table(a: str, b: str) -> int:
    """The textbook table."""
    rows = [[i + j if not i * j else 0 for j in range(len(b) + 1)] for i in range(len(a) + 1)]
    for i in range(1, len(a) + 1):
        for j in range(1, len(b) + 1):
            rows[i][j] = min(
                rows[i - 1][j] + 1,
                rows[i][j - 1] + 1,
                rows[i - 1][j - 1] + (a[i - 1] != b[j - 1]),
            )
    return rows[-1][-1]


@settings(deadline=None)  # a busy machine is no failure
@given(st.text("abc", max_size=12), st.text("abc", max_size=12))
def test_edit_distance_equals_the_textbook(a: str, b: str):
    assert edit_distance(a, b) == _table(a, b) == edit_distance(b, a)


def test_two_hours_of_words_are_compared_in_memory_of_one_row():
    words = [str(random.Random(i).random()) for i in range(3000)]
    assert edit_distance(words, words[10:]) == 10


@pytest.mark.parametrize(
    ("language", "text", "normal"),
    [
        ("vi", "Xin CHÀO,  các bạn!", "xin chào các bạn"),
        ("vi", "Tie\u0302\u0301ng Vie\u0323\u0302t", "tiếng việt"),  # composed and decomposed
        ("de", "Straße – 10 %", "strasse 10"),
        ("fr", "L’eau qu'il « boit »", "l'eau qu'il boit"),
        ("zh", "你好，世界。", "你好 世界"),
        ("", "No language: the basic rules.", "no language the basic rules"),
        ("en", "Mr. Smith won't pay twenty dollars!", "mister smith will not pay $20"),
    ],
)
def test_normalize(language: str, text: str, normal: str):
    assert normalize(text, language) == normal


@pytest.mark.parametrize(
    ("language", "reference", "hypothesis", "rates"),
    [
        ("vi", "xin chào các bạn", "Xin chào các bạn.", {"wer": 0, "cer": 0}),
        ("vi", "xin chào các bạn", "xin chao các bạn", {"wer": 1 / 4, "cer": 1 / 16}),
        ("es", "hola", "hola y adiós", {"wer": 2.0, "cer": 2.0}),
        ("zh", "你好世界", "你好，时界", {"cer": 1 / 4}),
        ("th", "สวัสดี ครับ", "สวัสดีครับ", {"cer": 0}),
        ("ko", "한 옆으로", "한옆으로", {"wer": 1.0, "cer": 0}),
        ("en", "It's 10 o'clock", "it is ten o'clock", {"wer": 0, "cer": 0}),
    ],
)
def test_score(language: str, reference: str, hypothesis: str, rates: dict[str, float]):
    assert score(reference, hypothesis, language, 10.0) == pytest.approx(rates)


@pytest.mark.parametrize(
    ("language", "hypothesis", "per_minute"),
    [("en", "", 0), ("en", "Thank you.", 4), ("zh", "谢谢", 4), ("", "um", 2)],
)
def test_words_where_nobody_spoke_are_counted(language: str, hypothesis: str, per_minute: float):
    assert score("", hypothesis, language, 30.0) == {"hallucinated_words_per_minute": per_minute}
