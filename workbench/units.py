"""Sizes and durations as people write them. Knows nothing about models or devices."""

from __future__ import annotations

import re

from workbench.errors import UserInputError

_FACTOR_BYTES = {
    "b": 1,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
    "tb": 10**12,
    "kib": 2**10,
    "mib": 2**20,
    "gib": 2**30,
    "tib": 2**40,
}
_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([a-zA-Z]+)\s*")


def parse_bytes(text: str) -> int:
    """Bytes in ``"12GiB"``, ``"800 MB"``. A unit is required: a bare number is ambiguous.

    Raises UserInputError for anything else.
    """
    match = _SIZE.fullmatch(text)
    factor = _FACTOR_BYTES.get(match[2].lower()) if match else None
    if match is None or factor is None:
        raise UserInputError(
            f"{text!r} is not a memory size.", "Write a number and a unit, such as 12GiB or 800MB."
        )
    return int(float(match[1]) * factor)


def format_bytes(size_bytes: int) -> str:
    """``1117320768`` -> ``"1.04 GiB"``."""
    size = float(size_bytes)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(size) < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.2f} {unit}"
        size /= 1024
    return f"{size:.2f} TiB"


def parse_size(text: str) -> tuple[int, int]:
    """(width, height) in pixels from ``"512x512"``.

    Raises UserInputError for anything else.
    """
    match = re.fullmatch(r"\s*(\d+)\s*[xX×]\s*(\d+)\s*", text)
    if match is None or not int(match[1]) or not int(match[2]):
        raise UserInputError(
            f"{text!r} is not a picture size.", "Write width x height in pixels, such as 512x512."
        )
    return int(match[1]), int(match[2])


_SECONDS = {"s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}


def parse_seconds(text: str) -> float:
    """Seconds in ``"90s"``, ``"10m"``, ``"1.5h"``. A unit is required: a bare number is ambiguous.

    Raises UserInputError for anything else.
    """
    match = _SIZE.fullmatch(text)
    factor = _SECONDS.get(match[2].lower()) if match else None
    if match is None or factor is None:
        raise UserInputError(
            f"{text!r} is not a length of time.", "Write a number and a unit: 90s, 10m or 1.5h."
        )
    return float(match[1]) * factor
