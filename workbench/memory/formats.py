"""What weights are stored and computed in once they are loaded: bytes, speed and what is lost."""

from __future__ import annotations

from dataclasses import dataclass

from workbench.memory.facts import Component, ModelFacts
from workbench.memory.headers.ggml_types import GGML_TYPES
from workbench.memory.matrix import device_kind
from workbench.memory.request import LoadOptions

#: Bytes a weight by the dtypes that headers name: safetensors', CTranslate2's and ggml's.
_STORED_BYTES: dict[str, float] = {
    **{form.name: form.block_bytes / form.block_values for form in GGML_TYPES.values()},
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1,
    "BOOL": 1, "F8_E4M3": 1, "F8_E5M2": 1,
}  # fmt: skip
#: Where a header has no dtypes: half a byte and its scale for llama.cpp, 16 bit for the others.
_UNKNOWN_BYTES = {"llama_cpp": 0.6}

_DTYPE_BITS = {
    "float32": 32, "bfloat16": 16, "float16": 16, "int16": 16, "int8": 8, "int8_float32": 8,
    "int8_float16": 8, "int8_bfloat16": 8,
}  # fmt: skip
_QUANTIZED_BITS = {"int8": 8, "fp8": 8, "int4": 4, "nf4": 4}
#: (kind of device, format) -> compute beside that of the dtype it computes in. CTranslate2 has
#: int8 kernels; torchao, bitsandbytes and layerwise casting widen the weights before each product,
#: which costs most where there are few cores.
_SPEEDS: dict[tuple[str, str], float] = {
    ("cpu", "ctranslate2/int8"): 2.0, ("cuda", "ctranslate2/int8"): 1.2,
    ("cpu", "ctranslate2/int16"): 1.3,
    ("cpu", "int8"): 0.5, ("cpu", "fp8"): 0.5, ("cpu", "nf4"): 0.2,
    ("cuda", "int8"): 0.8, ("cuda", "fp8"): 0.8, ("cuda", "int4"): 0.7, ("cuda", "nf4"): 0.5,
}  # fmt: skip
_CACHE_LOSS = {"q8_0": 1, "q4_0": 2}


@dataclass(frozen=True)
class Format:
    """``compute`` is the dtype of products, ``speed`` a factor on the compute of the device."""

    compute: str
    bytes_per_weight: float
    speed: float


def format_of(facts: ModelFacts, options: LoadOptions) -> Format:
    """How the weights of a model are computed with under ``options``."""
    kind = device_kind(options.device)
    if facts.engine == "llama_cpp":
        return Format("float32" if kind == "cpu" else "float16", _mean_bytes(facts), 1.0)
    compute = compute_type(facts, options)
    bits = _DTYPE_BITS.get(compute, 16)
    speed = 1.0
    if facts.engine == "ctranslate2":
        name, _, rest = compute.partition("_")
        speed = _SPEEDS.get((kind, f"ctranslate2/{name}"), 1.0)
        # what is not a large product stays wide
        return Format(rest or ("float32" if name.startswith("int") else name), bits / 8, speed)
    if options.quantization is not None:
        speed = _SPEEDS.get((kind, options.quantization), 1.0)
        # scales and what stays wide: about an eighth more
        bits = 1.125 * _QUANTIZED_BITS[options.quantization]  # type: ignore[assignment]
    return Format(compute, bits / 8, speed)


def compute_type(facts: ModelFacts, options: LoadOptions) -> str:
    """The option, else the catalogue's, else what the files are stored in."""
    found = options.compute_type or facts.options.get("compute_type") or facts.dtype
    return str(found or {32: "float32"}.get(stored_bits(facts), "bfloat16"))


def stored_bits(facts: ModelFacts) -> int:
    """Bits of the dtype that most bytes of the files have; 16 where they do not say."""
    totals: dict[str, int] = {}
    for part in facts.components:
        for dtype, size in part.weights.bytes_by_dtype.items():
            totals[dtype] = totals.get(dtype, 0) + size
    if not totals:
        return 16
    return round(8 * _STORED_BYTES.get(max(totals, key=lambda dtype: totals[dtype]), 2))


def weights_count(part: Component, kind: str | None = None) -> float:
    """How many weights a part has, or those of one kind (``linear``, ``expert`` ...)."""
    header = part.weights
    sizes = header.bytes_by_kind.get(kind, {}) if kind else header.bytes_by_dtype
    if not sizes and kind is None:
        unknown = 0.6 if "general.architecture" in part.config else 2.0
        return header.weights_bytes / unknown
    return sum(size / _STORED_BYTES.get(dtype, 2) for dtype, size in sizes.items())


def quality_loss(facts: ModelFacts, options: LoadOptions) -> tuple[int, int, int]:
    """What a way of loading loses beside the files: weights, cache, seams. (0, 0, 0): nothing.

    Weights: 0 as wide as they are stored, 1 16 bit of 32, 2 8 bit, 3 4 bit.
    """
    if options.quantization is not None:
        weights = 2 if _QUANTIZED_BITS[options.quantization] == 8 else 3
    else:
        bits = _DTYPE_BITS.get(compute_type(facts, options), 16)
        stored = stored_bits(facts)
        narrow = bits < stored and facts.engine != "llama_cpp"
        weights = (1 if bits == 16 else 2) if narrow else 0
    return weights, _CACHE_LOSS.get(options.cache_type or "", 0), int(options.vae_tiling)


def _mean_bytes(facts: ModelFacts) -> float:
    """Bytes a weight has on average in the files."""
    count = sum(weights_count(part) for part in facts.components)
    return facts.weights_bytes / count if count else _UNKNOWN_BYTES["llama_cpp"]
