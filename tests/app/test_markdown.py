"""What a model writes cannot become HTML or a request, and code stays as it was written."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token

from apps.markdown import harmless

_PARSER = MarkdownIt("commonmark", {"html": True}).enable("table")
_PIECES = (
    "<script>alert(1)</script>",
    "<img src=x onerror=y>",
    "<http://a.b>",
    "<b",
    "![a](http://e.x/i.png)",
    "![r]",
    "[r]: http://a\n",
    "```",
    "````",
    "~~~",
    "`",
    "``",
    "\\",
    "&lt;",
    "> ",
    "- ",
    "1. ",
    "    ",
    "\t",
    "\n",
    "\n\n",
    "\r",
    "\r\n",
    "\u2028",
    "\u00a0",
    "\x0b",
    "a",
    " ",
    "|",
)


def tokens(text: str) -> Iterator[Token]:
    for token in _PARSER.parse(text):
        yield token
        yield from token.children or ()


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.sampled_from(_PIECES), max_size=25).map("".join))
def test_no_html_and_no_picture_is_left(text: str) -> None:
    kinds = {token.type for token in tokens(harmless(text))}
    assert not kinds & {"html_block", "html_inline", "image"}


@pytest.mark.parametrize(
    "code",
    [
        "```html\n<b>bold</b>\n```",
        "Text\n\n```sql\nSELECT a <b FROM t\n```\n\nmore",
        "```python\nprint('![x](y)')  # still streaming, not closed",
        "1 < 2 and `a <- 3`",
    ],
)
def test_code_and_comparisons_are_left_alone(code: str) -> None:
    assert harmless(code) == code


@pytest.mark.parametrize("text", ["<b>x</b>", "![x](http://e.x)", "- ```\n  <b>\n  ```\n<i>"])
def test_what_is_changed_looks_the_same(text: str) -> None:
    changed = harmless(text)
    assert changed != text
    assert changed.replace("\u200b", "") == text
