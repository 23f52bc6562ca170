"""Tensor bytes and metadata of ``.gguf`` files."""

from __future__ import annotations

import struct
from pathlib import Path

from workbench.memory.headers.base import WeightsHeader, broken

_GGUF_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q"}
_GGUF_SCALARS[12] = "d"


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
                raise broken(path, "it ends inside its header")
            return struct.unpack("<" + form, raw)[0]

        def count() -> int:
            number = unpack("Q")
            assert isinstance(number, int)
            if number > size:
                raise broken(path, f"its header claims a length of {number} in {size} bytes")
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
                raise broken(path, f"its header has an unknown value type {kind}")
            return unpack(_GGUF_SCALARS[kind])

        if file.read(4) != b"GGUF":
            raise broken(path, "it does not start with GGUF")
        version = unpack("I")
        if version not in (2, 3):
            raise broken(path, f"GGUF version {version} is not known")
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
                raise broken(path, f"a tensor claims {dimensions} dimensions")
            file.seek(8 * dimensions + 4 + 8, 1)
        header_bytes = file.tell()
    if header_bytes > size:
        raise broken(path, "it ends inside its header")
    facts["tensor_count"] = tensors
    return WeightsHeader(weights_bytes=size - header_bytes, facts=facts)
