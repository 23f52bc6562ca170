"""Tensor bytes of ``.safetensors`` files: an 8-byte length and JSON."""

from __future__ import annotations

import json
import struct
from pathlib import Path

from workbench.memory.headers.base import WeightsHeader, broken, kind_of_tensor

_HEADER_LIMIT_BYTES = 100 * 2**20


def read_safetensors(path: Path) -> WeightsHeader:
    """Tensor bytes of one ``.safetensors`` file. Source: the format's specification."""
    size = path.stat().st_size
    with path.open("rb") as file:
        raw = file.read(8)
        if len(raw) < 8:
            raise broken(path, "it is shorter than its header")
        (length,) = struct.unpack("<Q", raw)
        if length > min(size - 8, _HEADER_LIMIT_BYTES):
            raise broken(path, f"its header claims {length} bytes of {size}")
        try:
            header = json.loads(file.read(length))
        except ValueError:
            raise broken(path, "its header is not JSON") from None
    by_dtype: dict[str, int] = {}
    by_kind: dict[str, dict[str, int]] = {}
    facts = header.pop("__metadata__", {})
    end = 0
    for name, tensor in header.items():
        start, stop = tensor["data_offsets"]
        dtype, dimensions = tensor["dtype"], len(tensor["shape"])
        by_dtype[dtype] = by_dtype.get(dtype, 0) + stop - start
        kind = by_kind.setdefault(kind_of_tensor(name, dimensions), {})
        kind[dtype] = kind.get(dtype, 0) + stop - start
        end = max(end, stop)
    if 8 + length + end > size:
        raise broken(path, f"its tensors end at byte {8 + length + end} of {size}")
    return WeightsHeader(
        weights_bytes=sum(by_dtype.values()),
        bytes_by_dtype=by_dtype,
        facts=dict(facts),
        bytes_by_kind=by_kind,
    )
