"""Bytes of the variables in a CTranslate2 ``model.bin``."""

from __future__ import annotations

from pathlib import Path

from workbench.memory.headers.base import WeightsHeader


def read_ctranslate2(path: Path) -> WeightsHeader:
    """The file itself is the weights; they are converted when they are loaded."""
    return WeightsHeader(weights_bytes=path.stat().st_size, facts={"format": "CTranslate2"})
