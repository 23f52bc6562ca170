"""Whether a model fits, from an estimate and what is free: arithmetic only, nothing is loaded."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict

from workbench.memory.devices import Budget
from workbench.memory.estimate import estimate
from workbench.memory.facts import ModelFacts
from workbench.memory.machine import Machine, get_machine
from workbench.memory.request import LoadOptions, RequestSize
from workbench.memory.terms import Term
from workbench.units import format_bytes


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
    facts: ModelFacts,
    budget: Budget,
    options: LoadOptions | None = None,
    size: RequestSize | None = None,
    machine: Machine | None = None,
) -> MemoryPlan:
    """Compare what the model and one request of ``size`` need with what ``budget`` gives."""
    options, size = options or LoadOptions(), size or RequestSize()
    found = estimate(facts, options, size, machine or get_machine())
    fits = found.upper_bytes <= budget.available_bytes
    choices = {"dtype": options.compute_type or facts.dtype}
    if options.context_tokens or facts.context_tokens:
        choices["context_tokens"] = options.context_tokens or facts.context_tokens
    return MemoryPlan(
        model=facts.model,
        device=budget.device,
        fits=fits,
        peak_bytes=found.peak_bytes,
        upper_bytes=found.upper_bytes,
        available_bytes=budget.available_bytes,
        reason=budget.reason,
        terms=(*found.resident, *found.binding_phase.terms),
        phases={p.name: found.resident_bytes + p.size_bytes for p in found.phases},
        choices=choices,
        cheapest_fixes=() if fits else _fixes(found.upper_bytes - budget.available_bytes, choices),
    )


def _fixes(missing_bytes: int, choices: dict[str, Any]) -> tuple[str, ...]:
    fixes = [f"free {format_bytes(missing_bytes)}: close other programs or raise the limit"]
    context = choices.get("context_tokens")
    if context and context > 1024:
        fixes.append(f"use a shorter context: --context {context // 2}")
    fixes.append("choose a smaller model or quantization: `workbench models list`")
    return tuple(fixes)
