"""An estimate as data: terms in bytes, what stays, and what is live in one phase only."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Term(_Frozen):
    """One part of a peak, in bytes: the median, an upper bound, and where they come from."""

    name: str
    size_bytes: int = Field(ge=0)
    upper_bytes: int = Field(ge=0)
    provenance: str


class Phase(_Frozen):
    """A stretch of a run, and the terms that are live in it beside the resident ones.

    ``is_rare``: few runs have it, so what runs took says nothing against its bound.
    """

    name: str
    terms: tuple[Term, ...] = ()
    is_rare: bool = False

    @property
    def size_bytes(self) -> int:
        return sum(term.size_bytes for term in self.terms)

    @property
    def upper_bytes(self) -> int:
        return sum(term.upper_bytes for term in self.terms)


class Estimate(_Frozen):
    """What a model and one request to it take: ``resident + max(phases)``, in bytes.

    ``family`` is the key under which measurements of the same kind are compared: engine,
    architecture, compute type and attention, joined by ``/``. ``is_known`` is False for an
    architecture that nothing here describes; its bound is wide. ``host`` is what waits in host
    memory while the rest is on another device; it is empty on a CPU.
    """

    family: str
    resident: tuple[Term, ...]
    phases: tuple[Phase, ...] = Field(min_length=1)
    is_known: bool = True
    host: tuple[Term, ...] = ()

    @property
    def binding_phase(self) -> Phase:
        """The phase that makes the peak."""
        return max(self.phases, key=lambda phase: phase.size_bytes)

    @property
    def resident_bytes(self) -> int:
        """What is held between requests."""
        return sum(term.size_bytes for term in self.resident)

    @property
    def peak_bytes(self) -> int:
        return self.resident_bytes + self.binding_phase.size_bytes

    @property
    def upper_bytes(self) -> int:
        resident = sum(term.upper_bytes for term in self.resident)
        return resident + max(phase.upper_bytes for phase in self.phases)

    def term(self, name: str) -> int:
        """Bytes of the terms called ``name``, resident or in the binding phase; 0 if none."""
        terms = (*self.resident, *self.binding_phase.terms)
        return sum(term.size_bytes for term in terms if term.name == name)


def exact(name: str, size_bytes: int, provenance: str) -> Term:
    """A term that is known to the byte."""
    return Term(name=name, size_bytes=size_bytes, upper_bytes=size_bytes, provenance=provenance)


def about(name: str, size_bytes: float, spread: float, provenance: str) -> Term:
    """A term whose true size may be up to ``1 + spread`` times the median."""
    return Term(
        name=name,
        size_bytes=round(size_bytes),
        upper_bytes=round(size_bytes * (1 + spread)),
        provenance=provenance,
    )
