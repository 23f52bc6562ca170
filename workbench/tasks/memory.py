"""Predicted memory next to measured memory, for every task run.

**The ground.** A process is never empty, so a run is judged by what it adds. If the run loaded
its model, the ground is what the process held with the engine's libraries and before the model;
predicted is the whole plan but those libraries. If the model was there, the ground is what the
process held when the run began; predicted is what the plan has live in its binding phase alone.

**What teaches.** Only a run that loaded its model, whose size is known, that finished, and beside
which no other work ran: a warm run is not clean, as its allocator still holds pages of the runs
before it, and its growth may be nothing at all.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from workbench.engines.slots import Lease
from workbench.memory.correction import learned_runs, parts_of
from workbench.memory.history import Observation
from workbench.memory.meter import MemoryPeaks, PeakMemory
from workbench.memory.plan import MemoryPlan


class MemoryRecord(BaseModel):
    """What a run was predicted to add to ``baseline_bytes``, and what it added, in bytes.

    ``terms`` are the predicted ones, ``phases`` the measured peaks above the ground.
    ``learned_n`` is how many runs had corrected the prediction. ``is_clean``: it teaches.
    """

    model_config = ConfigDict(extra="forbid")

    predicted_bytes: int
    upper_bytes: int
    measured_bytes: int
    baseline_bytes: int
    method: str
    terms: dict[str, int] = Field(default_factory=dict)
    phases: dict[str, int] = Field(default_factory=dict)
    learned_n: int = 0
    is_clean: bool = False

    @property
    def error_ratio(self) -> float | None:
        """``predicted / measured - 1``: below 0 is under-predicted. None: nothing was added."""
        return self.predicted_bytes / self.measured_bytes - 1 if self.measured_bytes else None


def compare(lease: Lease, meter: PeakMemory, started: float, *, alone: bool) -> MemoryRecord | None:
    """The record of a run that began at ``started`` (`time.perf_counter`).

    None: nothing was planned (a stub, a provider), or the model has a process of its own.
    """
    plan = lease.plan
    if plan is None or lease.baseline_bytes is None:
        return None
    peak = _peak_bytes(meter.peaks, plan)
    if peak is None:
        return None
    has_loaded = lease.load_started >= started
    phase = plan.estimate.binding_phase
    live = {term.name for term in phase.terms}
    terms = [
        term for term in plan.terms if term.name != "context" and (has_loaded or term.name in live)
    ]
    ground = lease.baseline_bytes if has_loaded else meter.start_bytes
    phases = {name: _peak_bytes(peaks, plan) for name, peaks in meter.phases.items()}
    return MemoryRecord(
        predicted_bytes=sum(term.size_bytes for term in terms),
        # of all phases: the bound of a rare one can be above that of the one that makes the peak
        upper_bytes=plan.upper_bytes
        - sum(term.upper_bytes for term in plan.terms if term not in terms),
        measured_bytes=max(0, peak - ground),
        baseline_bytes=ground,
        method=_method(meter, plan),
        terms=_summed(terms),
        phases={name: max(0, found - ground) for name, found in phases.items() if found},
        learned_n=learned_runs(plan.terms),
        is_clean=has_loaded and alone and not lease.others_busy and _knows_size(plan),
    )


def observation(found: MemoryRecord, plan: MemoryPlan, versions: dict[str, str]) -> Observation:
    """The row of the history that a clean run makes; its measured peak has the context in it."""
    parts = parts_of(plan.estimate)
    return Observation(
        model=plan.model,
        family=plan.family,
        device=plan.options.device.partition(":")[0],
        options=_changed(plan.options),
        size=_changed(plan.size),
        terms={
            "context": parts.context_bytes,
            "weights": parts.weights_bytes,
            "dynamic": parts.dynamic_bytes,
        },
        predicted_bytes=parts.context_bytes + found.predicted_bytes,
        upper_bytes=parts.context_bytes + found.upper_bytes,
        measured_bytes=parts.context_bytes + found.measured_bytes,
        method=found.method,
        versions=versions,
    )


# -- inside ----------------------------------------------------------------------------------


def _peak_bytes(peaks: MemoryPeaks, plan: MemoryPlan) -> int | None:
    """The peak where the model is; the driver's count before torch's, which misses others."""
    if plan.options.device == "cpu":
        return peaks.process_bytes
    return peaks.device_bytes if peaks.device_bytes is not None else peaks.reserved_bytes


def _method(meter: PeakMemory, plan: MemoryPlan) -> str:
    if plan.options.device == "cpu":
        return meter.method
    return "torch reserved" if meter.peaks.device_bytes is None else "sampled NVML"


def _knows_size(plan: MemoryPlan) -> bool:
    """Whether the plan was made for the request as it was, not for the largest one."""
    if plan.engine == "llama_cpp":
        return True  # caches and buffers are made for the whole context when it is loaded
    if plan.task == "chat":
        return False  # tokens are bounded before the model is there to count them
    return plan.task != "speech" or plan.size.audio_seconds is not None


def _summed(terms: list[Any]) -> dict[str, int]:
    sums: dict[str, int] = {}
    for term in terms:
        sums[term.name] = sums.get(term.name, 0) + term.size_bytes
    return sums


def _changed(options: Any) -> dict[str, Any]:
    """The fields that are not at their default."""
    usual = vars(type(options)())
    return {name: value for name, value in vars(options).items() if value != usual[name]}
