"""Whether a model fits, from its headers and what is free: arithmetic only, nothing is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from workbench.memory.devices import Budget
from workbench.memory.headers import WeightsHeader, read_weights
from workbench.models.spec import ModelSpec
from workbench.units import format_bytes

#: Bytes per weight that an engine computes in, by the name used in catalogue entries.
DTYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2, "int8": 1}
_SAFETENSORS_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I8": 1, "U8": 1, "I64": 8, "I32": 4}

#: What an engine takes beside weights and cache up to the end of a first short request: its
#: libraries, buffers and activations. Measured on the starters as growth of the process (peak
#: RSS, Linux x86_64) less weights and cache; the largest of each engine, rounded up.
_RUNTIME_BYTES = {
    "llama_cpp": 160 * 2**20,
    "ctranslate2": 230 * 2**20,
    "diffusers": 460 * 2**20,
    "transformers": 340 * 2**20,
}


class Term(BaseModel):
    """One part of the peak, in bytes, and where the number comes from."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    size_bytes: int
    provenance: str


class MemoryPlan(BaseModel):
    """The answer to "does it fit here?" with every number that led to it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    device: str
    fits: bool
    peak_bytes: int
    upper_bytes: int
    available_bytes: int
    reason: str
    terms: tuple[Term, ...]
    phases: dict[str, int]
    choices: dict[str, Any]
    cheapest_fixes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """The plan as JSON types."""
        return self.model_dump(mode="json")

    def table(self) -> str:
        """The plan as a table for a terminal."""
        rows = [f"{self.model} on {self.device}: {'fits' if self.fits else 'DOES NOT FIT'}"]
        for term in self.terms:
            rows.append(f"  {term.name:<16}{format_bytes(term.size_bytes):>12}  {term.provenance}")
        rows.append(f"  {'peak':<16}{format_bytes(self.peak_bytes):>12}")
        rows.append(f"  {'upper bound':<16}{format_bytes(self.upper_bytes):>12}")
        rows.append(f"  {'available':<16}{format_bytes(self.available_bytes):>12}  {self.reason}")
        rows += [f"  fix: {fix}" for fix in self.cheapest_fixes]
        return "\n".join(rows)

    def _repr_html_(self) -> str:
        import html

        return f"<pre>{html.escape(self.table())}</pre>"


def plan_model(
    spec: ModelSpec,
    path: Path,
    budget: Budget,
    context_tokens: int | None = None,
    compute_type: str | None = None,
) -> MemoryPlan:
    """Compare what ``spec`` needs with what ``budget`` gives.

    Terms: weights (from the headers), key-value cache (llama.cpp), the engine's runtime.
    Activations of larger requests (a long recording, a large picture) are not predicted yet:
    the upper bound adds a quarter of the weights for them.
    """
    header = read_weights(path)
    dtype = compute_type or spec.options.get("compute_type") or spec.dtype
    terms = [Term(name="weights", size_bytes=_weights(header, dtype), provenance="file headers")]
    choices: dict[str, Any] = {"dtype": dtype, "quantization": spec.quantization}
    if spec.engine == "llama_cpp":
        context = context_tokens or spec.context_tokens or 4096
        choices["context_tokens"] = context
        terms.append(
            Term(
                name="kv_cache",
                size_bytes=kv_cache_bytes(header.facts, context),
                provenance=f"GGUF header, {context} tokens, float16",
            )
        )
    terms.append(
        Term(
            name="runtime",
            size_bytes=_RUNTIME_BYTES.get(spec.engine, 0),
            provenance=f"measured once for {spec.engine}",
        )
    )
    peak = sum(term.size_bytes for term in terms)
    upper = peak + terms[0].size_bytes // 4
    fits = upper <= budget.available_bytes
    return MemoryPlan(
        model=spec.id,
        device=budget.device,
        fits=fits,
        peak_bytes=peak,
        upper_bytes=upper,
        available_bytes=budget.available_bytes,
        reason=budget.reason,
        terms=tuple(terms),
        phases={"load": terms[0].size_bytes, "run": peak},
        choices=choices,
        cheapest_fixes=() if fits else _fixes(upper - budget.available_bytes, choices),
    )


def kv_cache_bytes(facts: dict[str, object], context_tokens: int, bytes_per_value: int = 2) -> int:
    """``2 * layers * kv_heads * head_dim * tokens * bytes`` of full attention.

    The facts are those of a GGUF header. Source: llama.cpp's ``llama_kv_cache``.
    """
    architecture = facts.get("general.architecture")

    def number(key: str, default: int = 0) -> int:
        found = facts.get(f"{architecture}.{key}", default)
        return found if isinstance(found, int) else default

    heads = number("attention.head_count", 1)
    head_dim = number("attention.key_length", number("embedding_length") // max(1, heads))
    kv_heads = number("attention.head_count_kv", heads)
    return 2 * number("block_count") * kv_heads * head_dim * context_tokens * bytes_per_value


def _weights(header: WeightsHeader, dtype: str | None) -> int:
    """Bytes after the engine cast the floating weights to ``dtype``."""
    target = DTYPE_BYTES.get(dtype or "")
    if target is None:
        return header.weights_bytes
    if header.facts.get("format") == "CTranslate2":
        # the starters are stored in float16; CTranslate2 converts when it loads
        return header.weights_bytes * target // 2
    if not header.bytes_by_dtype:
        return header.weights_bytes
    total = 0
    for stored, size in header.bytes_by_dtype.items():
        floating = stored.startswith(("F", "BF"))
        total += size * target // _SAFETENSORS_BYTES[stored] if floating else size
    return total


def _fixes(missing_bytes: int, choices: dict[str, Any]) -> tuple[str, ...]:
    fixes = [f"free {format_bytes(missing_bytes)}: close other programs or raise the limit"]
    context = choices.get("context_tokens")
    if context and context > 1024:
        fixes.append(f"use a shorter context: --context {context // 2}")
    fixes.append("choose a smaller model or quantization: `workbench models list`")
    return tuple(fixes)
