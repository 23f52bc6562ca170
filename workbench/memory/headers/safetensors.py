"""Tensor bytes of ``.safetensors`` files: an 8-byte length and JSON."""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path

from workbench.memory.headers.base import WeightsHeader, broken, kind_of_tensor

#: The format's own limit on a header.
HEADER_LIMIT_BYTES = 100_000_000
_BITS = {
    "F64": 64, "F32": 32, "F16": 16, "BF16": 16, "I64": 64, "I32": 32, "I16": 16, "I8": 8,
    "U64": 64, "U32": 32, "U16": 16, "U8": 8, "BOOL": 8, "F8_E4M3": 8, "F8_E5M2": 8,
}  # fmt: skip


def read_safetensors(path: Path) -> WeightsHeader:
    """Tensor bytes of one ``.safetensors`` file. Source: the format's specification.

    Raises UserInputError for a file that is cut off or a header that lies.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        raw = file.read(8)
        if len(raw) < 8:
            raise broken(path, "it is shorter than its header")
        (length,) = struct.unpack("<Q", raw)
        if length > min(size - 8, HEADER_LIMIT_BYTES):
            raise broken(path, f"its header claims {length} bytes of {size}")
        return parse_safetensors(path, file.read(length), size)


def parse_safetensors(path: Path | str, header: bytes, size: int) -> WeightsHeader:
    """The same from the JSON ``header`` of a file of ``size`` bytes. Raises UserInputError."""
    try:
        tensors = json.loads(header)
    except (ValueError, RecursionError):
        raise broken(path, "its header is not JSON") from None
    if not isinstance(tensors, dict):
        raise broken(path, "its header is not a JSON object")
    facts = tensors.pop("__metadata__", {})
    by_dtype: dict[str, int] = {}
    by_kind: dict[str, dict[str, int]] = {}
    room = size - 8 - len(header)
    for name, tensor in tensors.items():
        dtype, dimensions, stop, count = _checked(path, name, tensor)
        if stop > room:
            raise broken(path, f"its tensors end at byte {size - room + stop} of {size} ({name!r})")
        by_dtype[dtype] = by_dtype.get(dtype, 0) + count
        kind = by_kind.setdefault(kind_of_tensor(name, dimensions), {})
        kind[dtype] = kind.get(dtype, 0) + count
    return WeightsHeader(
        weights_bytes=sum(by_dtype.values()),
        bytes_by_dtype=by_dtype,
        facts=dict(facts) if isinstance(facts, dict) else {},
        bytes_by_kind=by_kind,
    )


def _checked(path: Path | str, name: str, tensor: object) -> tuple[str, int, int, int]:
    """dtype, number of dimensions, last byte and bytes of one entry. Raises UserInputError."""
    wrong = broken(path, f"its header does not describe the tensor {name!r}")
    if not isinstance(tensor, dict):
        raise wrong
    dtype, shape = tensor.get("dtype"), tensor.get("shape")
    offsets = tensor.get("data_offsets")
    if not (
        isinstance(dtype, str)
        and isinstance(shape, list)
        and isinstance(offsets, list)
        and len(offsets) == 2
        and all(type(number) is int and number >= 0 for number in (*shape, *offsets))
    ):
        raise wrong
    start, stop = offsets
    bits = _BITS.get(dtype)
    if stop < start or (bits is not None and math.prod(shape) * bits != (stop - start) * 8):
        raise wrong
    return dtype, len(shape), stop, stop - start
