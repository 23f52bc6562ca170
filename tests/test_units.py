"""Sizes as people write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.errors import UserInputError
from workbench.units import format_bytes, parse_bytes, parse_size


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [("12GiB", 12 * 2**30), ("800 MB", 800 * 10**6), ("1.5gib", 3 * 2**29), ("7 B", 7)],
)
def test_parse_bytes(text: str, size_bytes: int):
    assert parse_bytes(text) == size_bytes


@pytest.mark.parametrize("text", ["12", "-1GiB", "GiB", "1 parsec", "", "1e9B", "1GiB 2"])
def test_parse_bytes_refuses(text: str):
    with pytest.raises(UserInputError, match="not a memory size"):
        parse_bytes(text)


@given(st.integers(0, 2**50))
def test_format_bytes_can_be_read_back(size_bytes: int):
    assert parse_bytes(format_bytes(size_bytes)) == pytest.approx(size_bytes, rel=0.006, abs=0.5)


@pytest.mark.parametrize(("text", "size"), [("512x768", (512, 768)), (" 32 X 32 ", (32, 32))])
def test_parse_size(text: str, size: tuple[int, int]):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["512", "0x512", "-1x5", "axb", "1x2x3", ""])
def test_parse_size_refuses(text: str):
    with pytest.raises(UserInputError, match="not a picture size"):
        parse_size(text)
