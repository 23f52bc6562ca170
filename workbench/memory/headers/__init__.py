"""Bytes of weights read from file headers, without loading a tensor.

Raises UserInputError for a truncated file or a header that lies about its length.
"""

from __future__ import annotations

from pathlib import Path

from workbench.memory.headers.base import WeightsHeader, broken
from workbench.memory.headers.ctranslate2 import read_ctranslate2
from workbench.memory.headers.gguf import read_gguf
from workbench.memory.headers.safetensors import read_safetensors

__all__ = [
    "WeightsHeader",
    "joined",
    "read_ctranslate2",
    "read_gguf",
    "read_safetensors",
    "read_weights",
]


def read_weights(path: Path) -> WeightsHeader:
    """The weights of a model file or folder, whatever its format.

    Raises UserInputError for a truncated file or a header that lies.
    """
    if path.is_file():
        if path.suffix == ".gguf":
            return read_gguf(path)
        if path.suffix == ".safetensors":
            return read_safetensors(path)
        return WeightsHeader(weights_bytes=path.stat().st_size)
    files = _preferred_variant(sorted(path.rglob("*.safetensors")))
    if files:
        headers = [read_safetensors(file) for file in files]
        return joined(headers)
    if (path / "model.bin").is_file():
        return read_ctranslate2(path / "model.bin")
    raise broken(path, "no weights were found in it")


def joined(headers: list[WeightsHeader]) -> WeightsHeader:
    """The header of all the files together."""
    by_dtype: dict[str, int] = {}
    by_kind: dict[str, dict[str, int]] = {}
    for header in headers:
        for dtype, size in header.bytes_by_dtype.items():
            by_dtype[dtype] = by_dtype.get(dtype, 0) + size
        for kind, sizes in header.bytes_by_kind.items():
            total = by_kind.setdefault(kind, {})
            for dtype, size in sizes.items():
                total[dtype] = total.get(dtype, 0) + size
    return WeightsHeader(
        weights_bytes=sum(by_dtype.values()),
        bytes_by_dtype=by_dtype,
        facts={"files": len(headers)},
        bytes_by_kind=by_kind,
    )


def _preferred_variant(files: list[Path]) -> list[Path]:
    """Of ``model.safetensors`` and ``model.fp16.safetensors`` in one folder, the one loaded."""
    chosen: dict[Path, Path] = {}
    for file in files:
        base = file.with_name(file.name.replace(".fp16.", "."))
        if base not in chosen or ".fp16." in file.name:
            chosen[base] = file
    return list(chosen.values())
