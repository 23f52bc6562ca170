"""Whether a model fits, from an estimate and what is free: arithmetic only, nothing is loaded."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from workbench.errors import UnknownOption
from workbench.memory import devices
from workbench.memory.cost import PredictedTime
from workbench.memory.devices import Budget
from workbench.memory.facts import ModelFacts
from workbench.memory.fixes import cheapest_fixes, flags, smallest
from workbench.memory.formats import compute_type
from workbench.memory.machine import Machine, get_machine
from workbench.memory.matrix import check, device_kind, is_proven
from workbench.memory.request import LoadOptions, RequestSize
from workbench.memory.search import Scales, Weighed, host_upper_bytes, ranked
from workbench.memory.terms import Estimate, Term
from workbench.units import format_bytes

_TABLE_LINES, _TABLE_WIDTH = 25, 100


class MemoryPlan(BaseModel):
    """The answer to "does it fit here?" with every number that led to it. Sizes are in bytes.

    ``terms`` are those of the peak (what stays, and what is live in ``binding_phase``);
    ``phases`` is the peak of each phase. The host's bytes are what waits in host memory while the
    rest is on another device; 0 on a CPU. ``cheapest_fixes`` are flags of ``workbench plan`` that
    were planned and fit, ``notes`` what a reader must know about the numbers.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    task: str
    engine: str
    family: str
    device: str
    fits: bool
    peak_bytes: int
    upper_bytes: int
    available_bytes: int
    reason: str
    host_bytes: int = 0
    host_upper_bytes: int = 0
    host_available_bytes: int | None = None
    terms: tuple[Term, ...]
    phases: dict[str, int]
    binding_phase: str
    time: PredictedTime
    is_known: bool
    options: LoadOptions
    size: RequestSize
    choices: dict[str, Any]
    cheapest_fixes: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    #: before anything learned from runs and with the engine's context, for the history
    estimate: Estimate = Field(exclude=True, repr=False)

    @property
    def predicted_seconds(self) -> float:
        return self.time.seconds

    def to_dict(self) -> dict[str, Any]:
        """The plan as JSON types."""
        return self.model_dump(mode="json")

    def refusal(self) -> str:
        """One line that says why it does not fit."""
        if self.upper_bytes <= self.available_bytes:
            return (
                f"{self.model} keeps {format_bytes(self.host_upper_bytes)} in host memory, and "
                f"{format_bytes(self.host_available_bytes or 0)} can be used there."
            )
        return (
            f"{self.model} needs {format_bytes(self.upper_bytes)} and "
            f"{format_bytes(self.available_bytes)} can be used ({self.reason})."
        )

    def remedy(self) -> str:
        """One line that says what would make it fit; empty where it fits."""
        return "; or ".join(self.cheapest_fixes)

    def table(self) -> str:
        """The plan as a table of at most 25 lines of at most 100 characters."""
        verdict = "fits" if self.fits else "DOES NOT FIT"
        chosen = ", ".join(f"{name} {value}" for name, value in self.choices.items())
        head = [f"{self.model} on {self.device}: {verdict}", f"  with {chosen}"]
        head += [f"  {'term':<20}{'median':>12}{'at most':>12}  from"]
        tail = [_row("peak", self.peak_bytes, self.upper_bytes, f"in {self.binding_phase}")]
        tail += [_row("available", None, self.available_bytes, self.reason)]
        if self.host_upper_bytes:
            free = self.host_available_bytes
            note = "in host memory" + (f", free: {format_bytes(free)}" if free is not None else "")
            tail += [_row("host", self.host_bytes, self.host_upper_bytes, note)]
        for name, size in self.phases.items():
            mark = "  <- makes the peak" if name == self.binding_phase else ""
            tail += [f"  {'phase ' + name:<20}{format_bytes(size):>12}{mark}"]
        tail += [f"  time  about {_seconds(self.time.seconds)} for {self.time.request} (coarse)"]
        tail += [f"  note: {note}" for note in self.notes]
        tail += [f"  fix: {fix}" for fix in self.cheapest_fixes]
        room = _TABLE_LINES - len(head) - len(tail)
        rows = [_row(t.name, t.size_bytes, t.upper_bytes, t.provenance) for t in self._few(room)]
        lines = [*head, *rows, *tail]
        return "\n".join(
            line if len(line) <= _TABLE_WIDTH else line[: _TABLE_WIDTH - 1] + "…" for line in lines
        )

    def _few(self, room: int) -> list[Term]:
        """At most ``room`` terms: the smallest ones are shown as one."""
        terms = [term for term in self.terms if term.upper_bytes]
        if len(terms) <= room:
            return terms
        by_size = sorted(terms, key=lambda term: -term.upper_bytes)
        kept, others = by_size[: max(0, room - 1)], by_size[max(0, room - 1) :]
        joined = Term(
            name=f"{len(others)} others",
            size_bytes=sum(term.size_bytes for term in others),
            upper_bytes=sum(term.upper_bytes for term in others),
            provenance=", ".join(term.name for term in others),
        )
        return [*(term for term in terms if term in kept), joined]

    def _repr_html_(self) -> str:
        from workbench.memory.plan_html import plan_html

        return plan_html(self)


def plan_model(
    facts: ModelFacts,
    budget: Budget,
    options: LoadOptions | None = None,
    size: RequestSize | None = None,
    machine: Machine | None = None,
    held_engines: Collection[str] = (),
    host: Budget | None = None,
) -> MemoryPlan:
    """Compare what the model and one request of ``size`` need with what ``budget`` gives.

    An engine in ``held_engines`` is in this process already: its libraries take nothing more.
    ``host`` is the budget of host memory where ``budget`` is another device's; None: what is
    free there now. Raises UnknownOption where the matrix does not allow the options.
    """
    options, size = options or LoadOptions(), size or RequestSize()
    scales = _scales(facts, budget, host, options, machine, held_engines)
    check(facts.model, facts.engine, facts.task, options)
    found = scales.weigh(options, size)
    return _plan(scales, found, with_advice=not found.fits)


def rank_plans(
    facts: ModelFacts,
    budget: Budget,
    options: LoadOptions | None = None,
    size: RequestSize | None = None,
    machine: Machine | None = None,
    held_engines: Collection[str] = (),
    host: Budget | None = None,
    fixed: Collection[str] = (),
) -> list[MemoryPlan]:
    """Every allowed way to load for the request: what fits first, and then by predicted time.

    The first is the choice. What ``options`` say stays as it is where it differs from the
    default; ``fixed`` names fields that stay though they are at their default. Only the first
    plan has fixes, if it does not fit. Raises UnknownOption where nothing is allowed.
    """
    options, size = options or LoadOptions(), size or RequestSize()
    scales = _scales(facts, budget, host, options, machine, held_engines)
    order = ranked(scales.allowed(options, size, fixed))
    if not order:
        reason = scales.refusal(options) or "nothing that is left to choose agrees with it"
        raise UnknownOption(
            f"{facts.model} cannot be loaded so: {reason}.", "Fix fewer options, or other ones."
        )
    first = order[0]
    rest = (_plan(scales, found, with_advice=False) for found in order[1:])
    return [_plan(scales, first, with_advice=not first.fits), *rest]


# -- inside ----------------------------------------------------------------------------------


def _scales(
    facts: ModelFacts,
    budget: Budget,
    host: Budget | None,
    options: LoadOptions,
    machine: Machine | None,
    held_engines: Collection[str],
) -> Scales:
    if host is None and device_kind(options.device) != "cpu":
        host = devices.budget(devices.cpu_device(), 0)
    return Scales(facts, budget, host, machine or get_machine(), frozenset(held_engines))


def _plan(scales: Scales, weighed: Weighed, *, with_advice: bool) -> MemoryPlan:
    """The plan of a candidate; with what would make it fit, which takes some planning itself."""
    facts, found, budget = scales.facts, weighed.found, scales.budget
    return MemoryPlan(
        model=facts.model,
        task=facts.task,
        engine=facts.engine,
        family=found.family,
        device=budget.device,
        fits=weighed.fits,
        peak_bytes=found.peak_bytes,
        upper_bytes=found.upper_bytes,
        available_bytes=budget.available_bytes,
        reason=budget.reason,
        host_bytes=sum(term.size_bytes for term in found.host),
        host_upper_bytes=host_upper_bytes(found),
        host_available_bytes=scales.host.available_bytes if scales.host else None,
        terms=(*found.resident, *found.binding_phase.terms),
        phases={p.name: found.resident_bytes + p.size_bytes for p in found.phases},
        binding_phase=found.binding_phase.name,
        time=weighed.time,
        is_known=found.is_known,
        options=weighed.options,
        size=weighed.size,
        choices=_choices(facts, weighed),
        cheapest_fixes=cheapest_fixes(scales, weighed) if with_advice else (),
        notes=(*_notes(scales, weighed), *(_least(scales, weighed) if with_advice else ())),
        estimate=weighed.raw,
    )


def _choices(facts: ModelFacts, weighed: Weighed) -> dict[str, Any]:
    """What the plan is made for, in words of `LoadOptions` and `RequestSize`."""
    options, size = weighed.options, weighed.size
    chosen: dict[str, Any] = {}
    if facts.engine != "llama_cpp":
        chosen["compute_type"] = compute_type(facts, options)
    if facts.task == "chat":
        chosen["context_tokens"] = options.context_tokens or facts.context_tokens
    for name in ("quantization", "cache_type", "gpu_layers", "vae_tiling", "vae_slicing"):
        chosen[name] = getattr(options, name) or None
    chosen["offload"] = None if options.offload == "none" else options.offload
    chosen["prompt_tokens"] = size.prompt_tokens
    if size.width and size.height:
        chosen["size"] = f"{size.width}x{size.height}"
    if size.batch > 1:
        chosen["batch"] = size.batch
    if facts.task == "speech":
        chosen |= {"audio_seconds": size.audio_seconds, "beams": size.beams}
        chosen["words"] = size.words or None
    if options.gpu_layers is not None:
        chosen["gpu_layers"] = options.gpu_layers
    return {name: value for name, value in chosen.items() if value is not None}


def _notes(scales: Scales, weighed: Weighed) -> tuple[str, ...]:
    facts, found = scales.facts, weighed.found
    notes = []
    if not found.is_known:
        names = " or ".join(dict.fromkeys(repr(part.architecture) for part in facts.components))
        notes.append(f"the architecture {names} is not described here, so the bound is wide")
    learned = [term.provenance for term in found.resident if term.name == "learned"]
    notes += learned
    if not scales.machine.is_measured:
        notes.append("speeds are reference values: `workbench doctor --calibrate` measures yours")
    device = weighed.options.device
    if device_kind(device) != "cpu" and not is_proven(facts.engine, device):
        notes.append(f"{facts.engine} on {device} follows its documentation; it was not run there")
    return tuple(notes)


def _least(scales: Scales, refused: Weighed) -> tuple[str, ...]:
    """What the smallest way to load needs, where not even that fits."""
    least = smallest(scales, refused)
    if least.fits:
        return ()
    needs = format_bytes(least.found.upper_bytes)
    how = flags(scales.facts, refused, least)
    return (f"no way to load it fits this request; the smallest needs {needs}: {how or 'this'}",)


def _row(name: str, size_bytes: int | None, upper_bytes: int, provenance: str) -> str:
    size = "" if size_bytes is None else format_bytes(size_bytes)
    return f"  {name:<20}{size:>12}{format_bytes(upper_bytes):>12}  {provenance}"


def _seconds(seconds: float) -> str:
    if seconds < 0.1:
        return f"{1000 * seconds:.0f} ms"
    return f"{seconds:.1f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
