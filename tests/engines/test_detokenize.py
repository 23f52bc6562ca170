"""Whole characters only, and nothing from a stop string on."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from workbench.engines.detokenize import Detokenizer, StopStrings


def _decode_bytes(tokens: list[int]) -> str:
    """A tokenizer whose tokens are bytes: every character beyond ASCII takes several."""
    return bytes(tokens).decode("utf-8", "replace")


@given(st.text())
def test_characters_over_several_tokens_come_out_whole(text: str):
    text = text.replace("\N{REPLACEMENT CHARACTER}", "")
    detokenizer = Detokenizer(_decode_bytes)
    pieces = [detokenizer.push(byte) for byte in text.encode()]
    assert "".join(pieces) == text
    assert all("\N{REPLACEMENT CHARACTER}" not in piece for piece in pieces)


def test_half_a_character_at_the_end_is_not_shown():
    detokenizer = Detokenizer(_decode_bytes)
    assert [detokenizer.push(byte) for byte in "aệ".encode()[:-1]] == ["a", "", ""]


def test_the_context_decides_what_a_token_looks_like():
    words = ["Xin", "chào", "bạn"]

    # like sentencepiece: the space belongs to the word, except at the beginning
    detokenizer = Detokenizer(lambda tokens: " ".join(words[token] for token in tokens))
    assert [detokenizer.push(token) for token in range(3)] == ["Xin", " chào", " bạn"]


PIECES = st.lists(st.text(alphabet="ab", min_size=1, max_size=3), max_size=12)
STOPS = st.lists(st.text(alphabet="ab", min_size=1, max_size=4), max_size=3)


@given(PIECES, STOPS)
def test_the_text_ends_before_the_first_stop_string(pieces: list[str], stops: list[str]):
    cutter = StopStrings(stops)
    shown = ""
    read = ""
    for piece in pieces:
        read += piece
        shown += cutter.push(piece)
        if cutter.found:
            break
    shown += cutter.flush()
    assert read.startswith(shown)
    assert cutter.found == any(stop in read for stop in stops)
    assert not any(stop in shown for stop in stops)
    if not cutter.found:
        assert shown == read


def test_nothing_is_held_without_need():
    cutter = StopStrings(["\n\n"])
    assert cutter.push("one\n") == "one"
    assert cutter.push("two") == "\ntwo"
    assert cutter.push("\n\nthree") == ""
    assert cutter.found
