"""Bytes of weights after an engine cast them."""

from __future__ import annotations

from workbench.memory.headers import WeightsHeader

#: Bytes per weight that an engine computes in, by the name used in catalogue entries.
DTYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2, "int8": 1}
#: Bytes per value of the dtypes that safetensors names.
STORED_BYTES = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1,
    "BOOL": 1, "F8_E4M3": 1, "F8_E5M2": 1,
}  # fmt: skip


def cast_bytes(header: WeightsHeader, dtype: str | None) -> int:
    """Bytes after all floating weights were cast to ``dtype``; None: as they are stored."""
    target = DTYPE_BYTES.get(dtype or "")
    if target is None or not header.bytes_by_dtype:
        return header.weights_bytes
    total = 0
    for stored, size in header.bytes_by_dtype.items():
        floating = stored.startswith(("F", "BF"))
        total += size * target // STORED_BYTES[stored] if floating else size
    return total
