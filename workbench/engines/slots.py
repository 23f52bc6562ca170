"""What the pool keeps of a loaded model, of a waiting request, and of its own decisions."""

from __future__ import annotations

import itertools
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from workbench.engines.base import StopCheck
from workbench.memory.plan import MemoryPlan
from workbench.memory.request import LoadOptions, RequestSize
from workbench.models.spec import ModelSpec

#: One loaded copy: the model, and how the caller wanted it (not what the planner made of it).
Key = tuple[str, LoadOptions]

_numbers = itertools.count()


@dataclass(eq=False)
class Request:
    """One `ModelPool.acquire`, from its call until the model is free again."""

    spec: ModelSpec
    options: LoadOptions
    size: RequestSize
    keep_alive_seconds: float
    should_stop: StopCheck
    since: float
    deadline: float
    thread: threading.Thread = field(default_factory=threading.current_thread)
    number: int = field(default_factory=lambda: next(_numbers))
    is_nested: bool = False
    #: bytes that it waits for on a device; 0 until it was planned and found no room
    needs_bytes: int = 0
    #: models that were freed for it
    freed: list[str] = field(default_factory=list)

    @property
    def key(self) -> Key:
        return (self.spec.id, self.options)

    @property
    def order(self) -> tuple[bool, int]:
        """First come, first served; but who holds a model already goes before those who do not,
        since they may be waiting for that very model."""
        return (not self.is_nested, self.number)


@dataclass(eq=False)
class Slot:
    """One loaded model, who uses it, and what it is charged with.

    Idle, it is charged with ``resident_bytes``; in use, also with the largest request's growth.
    ``returns_bytes`` is what closing it should give back.
    """

    spec: ModelSpec
    key: Key
    options: LoadOptions
    model: Any
    path: Path
    #: it has a process of its own, with which all of its memory goes
    is_isolated: bool = False
    plan: MemoryPlan | None = None
    reason: str = ""
    load_seconds: float = 0.0
    measured_bytes: int = 0
    #: what the process held with the engine's libraries and before the model, and when that was
    #: (`time.perf_counter`); None: the model has a process of its own
    baseline_bytes: int | None = None
    load_started: float = 0.0
    resident_bytes: int = 0
    returns_bytes: int = 0
    #: bytes that a request of this size adds to the resident ones
    growth: dict[RequestSize, int] = field(default_factory=dict)
    plans: dict[RequestSize, MemoryPlan] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)
    last_used: float = 0.0
    last_thread: threading.Thread | None = None
    keep_alive_seconds: float = -1.0
    is_retired: bool = False
    is_parked: bool = False

    @property
    def device(self) -> str:
        """Where its memory is now."""
        return "cpu" if self.is_parked else self.options.device

    @property
    def is_busy(self) -> bool:
        return bool(self.requests)

    @property
    def growth_bytes(self) -> int:
        """What the running requests may add to the resident bytes."""
        return max((self.growth_of(request.size) or 0 for request in self.requests), default=0)

    def growth_of(self, size: RequestSize) -> int | None:
        """What a request of ``size`` adds, if it or a larger one was planned; else None.

        A little more than it needs is better than planning every prompt by itself.
        """
        if self.plan is None:
            return 0
        if size in self.growth:
            return self.growth[size]
        larger = [growth for planned, growth in self.growth.items() if _covers(planned, size)]
        return min(larger, default=None)

    @property
    def charge_bytes(self) -> int:
        return self.resident_bytes + self.growth_bytes

    def expires_at(self) -> float:
        """When its keep-alive ends; infinity while it is used or if it is kept for ever."""
        if self.is_busy or self.keep_alive_seconds < 0:
            return float("inf")
        return self.last_used + self.keep_alive_seconds

    def is_alive(self) -> bool:
        """False when the process that runs it has ended."""
        return bool(getattr(self.model, "is_alive", True))


def _covers(planned: RequestSize, size: RequestSize) -> bool:
    """Whether ``size`` is nowhere larger than ``planned``. Without a number a prompt is as long
    as the context; a recording or a picture is then of some size that only the engine knows."""
    pairs = [
        (planned.audio_seconds, size.audio_seconds),
        (planned.width, size.width),
        (planned.height, size.height),
    ]
    if planned.prompt_tokens is not None:
        pairs.append((planned.prompt_tokens, size.prompt_tokens))
    return (
        all(a == b or (a is not None and b is not None and a >= b) for a, b in pairs)
        and planned.batch >= size.batch
        and planned.beams >= size.beams
        and planned.words >= size.words
        and planned.guided >= size.guided
    )


@dataclass(frozen=True)
class Lease:
    """What one request was given: the plan for its size, and what it is measured against.

    ``others_busy``: other models were in use when it was asked for.
    """

    plan: MemoryPlan | None
    baseline_bytes: int | None
    load_started: float
    others_busy: bool


@dataclass(frozen=True)
class LoadedModel:
    """One row of `ModelPool.loaded`: what is loaded, how big, who uses it, why it is so.

    ``expires_seconds`` is when the idle model will be freed; None: not by time.
    """

    id: str
    engine: str
    options: LoadOptions
    users: int
    planned_bytes: int
    measured_bytes: int
    load_seconds: float
    idle_seconds: float
    reason: str = ""
    device: str = "cpu"
    is_pinned: bool = False
    is_parked: bool = False
    expires_seconds: float | None = None


def describe(slot: Slot, now: float, is_pinned: bool) -> LoadedModel:
    """The slot as a row."""
    ends = float("inf") if is_pinned else slot.expires_at()
    return LoadedModel(
        id=slot.spec.id,
        engine=slot.spec.engine,
        options=slot.options,
        users=len(slot.requests),
        planned_bytes=slot.plan.peak_bytes if slot.plan else 0,
        measured_bytes=slot.measured_bytes,
        load_seconds=slot.load_seconds,
        idle_seconds=0.0 if slot.is_busy else now - slot.last_used,
        reason=slot.reason,
        device=slot.device,
        is_pinned=is_pinned,
        is_parked=slot.is_parked,
        expires_seconds=None if ends == float("inf") else max(0.0, ends - now),
    )


class Journal:
    """The last decisions with their reasons, and why each model that is gone had to go."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._entries: deque[dict[str, Any]] = deque(maxlen=500)
        self._left: dict[str, tuple[float, str]] = {}

    def note(self, action: str, model_id: str, reason: str, size_bytes: int = 0) -> None:
        """``action``: load, evict, park, keep, refuse, wait, replan, oom, pin or unpin."""
        entry = {"at": time.time(), "action": action, "model": model_id, "reason": reason}
        self._entries.append({**entry, "bytes": size_bytes})
        if action == "evict":
            self._left[model_id] = (self._clock(), reason)

    def why_load(self, model_id: str) -> str:
        """Why a model is loaded now: asked for first, or gone since and why."""
        if model_id not in self._left:
            return "first use"
        at, reason = self._left[model_id]
        return f"again: it was freed {self._clock() - at:.1f} s ago {reason}"

    def entries(self) -> list[dict[str, Any]]:
        """All of them, oldest first."""
        return list(self._entries)
