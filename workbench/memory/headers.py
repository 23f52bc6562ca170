"""Bytes of weights read from file headers, without loading a tensor.

Formats: GGUF (ggml's documented header), safetensors (8-byte length and JSON), CTranslate2
(the file itself is the weights). Raises InvalidModelFile-like UserInputError on a header that
lies about its length.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from pathlib import Path

from workbench.errors import UserInputError

_SAFETENSORS_HEADER_LIMIT_BYTES = 100 * 2**20
_GGUF_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q"}
_GGUF_SCALARS[12] = "d"


@dataclass(frozen=True)
class WeightsHeader:
    """Bytes of all tensors, by dtype where the format names one, and the header's own facts."""

    weights_bytes: int
    bytes_by_dtype: dict[str, int]
    facts: dict[str, object]


def _broken(path: Path, why: str) -> UserInputError:
    return UserInputError(
        f"{path} is not a usable model file: {why}.", "Fetch it again; it may be cut off."
    )


def read_safetensors(path: Path) -> WeightsHeader:
    """Tensor bytes of one ``.safetensors`` file. Source: the format's specification."""
    size = path.stat().st_size
    with path.open("rb") as file:
        raw = file.read(8)
        if len(raw) < 8:
            raise _broken(path, "it is shorter than its header")
        (length,) = struct.unpack("<Q", raw)
        if length > min(size - 8, _SAFETENSORS_HEADER_LIMIT_BYTES):
            raise _broken(path, f"its header claims {length} bytes of {size}")
        try:
            header = json.loads(file.read(length))
        except ValueError:
            raise _broken(path, "its header is not JSON") from None
    by_dtype: dict[str, int] = {}
    facts = header.pop("__metadata__", {})
    end = 0
    for tensor in header.values():
        start, stop = tensor["data_offsets"]
        by_dtype[tensor["dtype"]] = by_dtype.get(tensor["dtype"], 0) + stop - start
        end = max(end, stop)
    if 8 + length + end > size:
        raise _broken(path, f"its tensors end at byte {8 + length + end} of {size}")
    return WeightsHeader(sum(by_dtype.values()), by_dtype, dict(facts))


def read_gguf(path: Path) -> WeightsHeader:
    """Tensor bytes and metadata of a ``.gguf`` file: arrays (vocabularies) are skipped.

    Weights are everything after the header, which is what llama.cpp maps or reads.
    Source: ggml/docs/gguf.md.
    """
    size = path.stat().st_size
    facts: dict[str, object] = {}
    with path.open("rb") as file:

        def unpack(form: str) -> object:
            raw = file.read(struct.calcsize("<" + form))
            if len(raw) < struct.calcsize("<" + form):
                raise _broken(path, "it ends inside its header")
            return struct.unpack("<" + form, raw)[0]

        def count() -> int:
            number = unpack("Q")
            assert isinstance(number, int)
            if number > size:
                raise _broken(path, f"its header claims a length of {number} in {size} bytes")
            return number

        def text() -> str:
            return file.read(count()).decode("utf-8", "replace")

        def value(kind: int) -> object:
            if kind == 8:
                return text()
            if kind == 9:
                inner, length = unpack("I"), count()
                assert isinstance(inner, int)
                if inner in _GGUF_SCALARS:
                    file.seek(struct.calcsize(_GGUF_SCALARS[inner]) * length, 1)
                else:
                    for _ in range(length):
                        value(inner)
                return length
            if kind not in _GGUF_SCALARS:
                raise _broken(path, f"its header has an unknown value type {kind}")
            return unpack(_GGUF_SCALARS[kind])

        if file.read(4) != b"GGUF":
            raise _broken(path, "it does not start with GGUF")
        version = unpack("I")
        if version not in (2, 3):
            raise _broken(path, f"GGUF version {version} is not known")
        tensors, keys = count(), count()
        for _ in range(keys):
            key = text()
            kind = unpack("I")
            assert isinstance(kind, int)
            facts[key] = value(kind)
        for _ in range(tensors):
            text()
            dimensions = unpack("I")
            assert isinstance(dimensions, int)
            if dimensions > 8:
                raise _broken(path, f"a tensor claims {dimensions} dimensions")
            file.seek(8 * dimensions + 4 + 8, 1)
        header_bytes = file.tell()
    if header_bytes > size:
        raise _broken(path, "it ends inside its header")
    facts["tensor_count"] = tensors
    return WeightsHeader(size - header_bytes, {}, facts)


def read_weights(path: Path) -> WeightsHeader:
    """The weights of a model file or folder, whatever its format.

    Raises UserInputError for a truncated file or a header that lies.
    """
    if path.is_file():
        if path.suffix == ".gguf":
            return read_gguf(path)
        if path.suffix == ".safetensors":
            return read_safetensors(path)
        return WeightsHeader(path.stat().st_size, {}, {})
    files = _preferred_variant(sorted(path.rglob("*.safetensors")))
    if files:
        headers = [read_safetensors(file) for file in files]
        by_dtype: dict[str, int] = {}
        for header in headers:
            for dtype, size in header.bytes_by_dtype.items():
                by_dtype[dtype] = by_dtype.get(dtype, 0) + size
        return WeightsHeader(sum(by_dtype.values()), by_dtype, {"files": len(files)})
    if (path / "model.bin").is_file():
        return WeightsHeader((path / "model.bin").stat().st_size, {}, {"format": "CTranslate2"})
    raise _broken(path, "no weights were found in it")


def _preferred_variant(files: list[Path]) -> list[Path]:
    """Of ``model.safetensors`` and ``model.fp16.safetensors`` in one folder, the one loaded."""
    chosen: dict[Path, Path] = {}
    for file in files:
        base = file.with_name(file.name.replace(".fp16.", "."))
        if base not in chosen or ".fp16." in file.name:
            chosen[base] = file
    return list(chosen.values())
