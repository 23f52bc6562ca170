"""Bytes of weights after an engine cast or quantized them."""

from __future__ import annotations

from collections.abc import Mapping

from workbench.memory.headers import WeightsHeader

#: Bytes per weight that an engine computes in, by the name used in catalogue entries.
DTYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2, "int8": 1}
#: Bytes per value of the dtypes that safetensors names.
STORED_BYTES = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U64": 8,
    "U32": 4, "U16": 2, "U8": 1, "BOOL": 1, "F8_E4M3": 1, "F8_E5M2": 1,
}  # fmt: skip
_NAMES = {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}
#: Bytes per weight of a quantized linear layer, with its scales: torchao's int8 has one scale a
#: row (at most 1 % of it) and int4 a scale and a zero of 2 bytes for 128 weights; nf4 of
#: bitsandbytes one float32 for 64.
QUANTIZED_BYTES = {"int8": 1.002, "int4": 0.5 + 4 / 128, "nf4": 0.5 + 4 / 64, "fp8": 1.0}


def cast_bytes(header: WeightsHeader, dtype: str | None) -> int:
    """Bytes after all floating weights were cast to ``dtype``; None: as they are stored."""
    if not header.bytes_by_dtype:
        return header.weights_bytes
    return _cast(header.bytes_by_dtype, dtype)


def is_cast(header: WeightsHeader, dtype: str | None) -> bool:
    """Whether loading as ``dtype`` makes a copy instead of mapping the file."""
    wanted = _NAMES.get(dtype or "")
    return wanted is not None and any(
        _is_floating(stored) and stored != wanted for stored in header.bytes_by_dtype
    )


def quantized_bytes(header: WeightsHeader, dtype: str | None, quantization: str | None) -> int:
    """Bytes after the linear layers were quantized and the rest was cast to ``dtype``.

    Embeddings, the output head, norms, convolutions and stacked experts stay in ``dtype``: the
    backends replace ``Linear`` modules only, and leave the head.
    """
    per_weight = QUANTIZED_BYTES.get(quantization or "")
    if per_weight is None or not header.bytes_by_kind:
        return cast_bytes(header, dtype)
    total = 0.0
    for kind, sizes in header.bytes_by_kind.items():
        if kind != "linear":
            total += _cast(sizes, dtype)
            continue
        for stored, size in sizes.items():
            total += size / STORED_BYTES.get(stored, 2) * per_weight
    return round(total)


def _cast(sizes: Mapping[str, int], dtype: str | None) -> int:
    target = DTYPE_BYTES.get(dtype or "")
    if target is None:
        return sum(sizes.values())
    return sum(
        size * target // STORED_BYTES.get(stored, target) if _is_floating(stored) else size
        for stored, size in sizes.items()
    )


def _is_floating(stored: str) -> bool:
    return stored.startswith(("F", "BF"))
