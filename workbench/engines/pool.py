"""The only place that loads or frees a model.

``with pool.acquire(spec) as model:`` plans, frees idle models if it must, loads, and counts who
uses it. A busy model is never freed. Idle models stay loaded until their memory is needed.
"""

from __future__ import annotations

import gc
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from workbench.engines import registry
from workbench.engines.base import Model
from workbench.errors import DoesNotFit, WorkbenchError
from workbench.memory.devices import Device, budget, cpu_device, process_bytes, trim_process
from workbench.memory.facts import read_facts
from workbench.memory.plan import MemoryPlan, plan_model
from workbench.memory.request import LoadOptions
from workbench.models import sources
from workbench.models.spec import ModelSpec
from workbench.units import format_bytes

Key = tuple[str, LoadOptions]


@dataclass
class _Slot:
    """One model, loaded or being loaded. ``ready`` is set when ``model`` or ``error`` is."""

    spec: ModelSpec
    options: LoadOptions
    users: int = 0
    last_used: float = 0.0
    load_seconds: float = 0.0
    plan: MemoryPlan | None = None
    measured_bytes: int = 0
    model: Model | None = None
    error: BaseException | None = None
    ready: threading.Event = field(default_factory=threading.Event)


@dataclass(frozen=True)
class LoadedModel:
    """One row of `ModelPool.loaded`: what is loaded, how big, who uses it."""

    id: str
    engine: str
    options: LoadOptions
    users: int
    planned_bytes: int
    measured_bytes: int
    load_seconds: float
    idle_seconds: float


class ModelPool:
    """Loads models on demand and shares them between requests. Thread-safe."""

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        device: Callable[[], Device] = cpu_device,
    ) -> None:
        self._clock = clock
        self._device = device
        self._slots: dict[Key, _Slot] = {}
        self._lock = threading.Lock()
        # one load at a time: two loads would each see the other's memory as free
        self._loading = threading.Lock()
        self._decisions: deque[dict[str, Any]] = deque(maxlen=500)

    @contextmanager
    def acquire(self, spec: ModelSpec, options: LoadOptions | None = None) -> Iterator[Any]:
        """The loaded model, for as long as the block runs.

        Raises ModelMissing, EngineMissing, ChecksumMismatch or DoesNotFit before anything is
        loaded.
        """
        slot = self._enter(spec, options or LoadOptions())
        try:
            yield slot.model
        finally:
            with self._lock:
                slot.users -= 1
                slot.last_used = self._clock()

    def loaded(self) -> list[LoadedModel]:
        """What is loaded now, most recently used first."""
        with self._lock:
            slots = [slot for slot in self._slots.values() if slot.model is not None]
        now = self._clock()
        rows = [
            LoadedModel(
                id=slot.spec.id,
                engine=slot.spec.engine,
                options=slot.options,
                users=slot.users,
                planned_bytes=slot.plan.peak_bytes if slot.plan else 0,
                measured_bytes=slot.measured_bytes,
                load_seconds=slot.load_seconds,
                idle_seconds=0.0 if slot.users else now - slot.last_used,
            )
            for slot in slots
        ]
        return sorted(rows, key=lambda row: row.idle_seconds)

    def log(self) -> list[dict[str, Any]]:
        """The last decisions (load, evict, refuse) with their reasons, oldest first."""
        return list(self._decisions)

    def plan(self, spec: ModelSpec, options: LoadOptions | None = None) -> MemoryPlan:
        """What loading ``spec`` now would take, counting idle models as free."""
        options = options or LoadOptions()
        path = sources.require(spec)
        with self._lock:
            idle = sum(s.plan.peak_bytes for s in self._slots.values() if s.plan and not s.users)
        return self._plan(spec, path, options, freed_bytes=idle)

    def unload(self, model_id: str | None = None) -> list[str]:
        """Free the idle models, or the idle ones called ``model_id``; return what was freed."""
        with self._lock:
            keys = [
                key
                for key, slot in self._slots.items()
                if slot.model is not None and not slot.users and model_id in (None, slot.spec.id)
            ]
            slots = [self._slots.pop(key) for key in keys]
        for slot in slots:
            self._close(slot, "asked to unload")
        return [slot.spec.id for slot in slots]

    # -- inside ------------------------------------------------------------------------------

    def _enter(self, spec: ModelSpec, options: LoadOptions) -> _Slot:
        key = (spec.id, options)
        while True:
            with self._lock:
                slot = self._slots.get(key)
                is_loader = slot is None
                if slot is None:
                    slot = self._slots[key] = _Slot(spec, options)
                slot.users += 1
            if is_loader:
                self._load(key, slot)
                return slot
            slot.ready.wait()
            if slot.error is None:
                return slot
            # the loader failed and removed the slot; try again, to meet the error first-hand
            with self._lock:
                slot.users -= 1

    def _load(self, key: Key, slot: _Slot) -> None:
        try:
            with self._loading:
                spec = slot.spec
                registry.find_engine(spec.engine)
                if spec.is_remote or spec.engine == "stub":
                    path = Path()
                else:
                    path = sources.require(spec)
                    slot.plan = self._make_room(spec, path, slot.options)
                before = process_bytes()
                started = time.perf_counter()
                slot.model = registry.load(spec, path, slot.options)
                slot.load_seconds = time.perf_counter() - started
                slot.measured_bytes = max(0, process_bytes() - before)
            self._note("load", spec.id, f"asked for; took {slot.load_seconds:.2f} s")
        except BaseException as error:
            slot.error = error
            with self._lock:
                self._slots.pop(key, None)
            gc.collect()
            if isinstance(error, MemoryError):
                raise DoesNotFit(
                    f"Memory ran out while loading {slot.spec.id}.",
                    "Close other programs or choose a smaller model.",
                    slot.plan,
                ) from None
            raise
        finally:
            slot.ready.set()

    def _make_room(self, spec: ModelSpec, path: Path, options: LoadOptions) -> MemoryPlan:
        """Free idle models, longest idle first, until the plan fits. Raises DoesNotFit."""
        while True:
            plan = self._plan(spec, path, options)
            if plan.fits:
                return plan
            with self._lock:
                idle = [
                    (slot.last_used, key)
                    for key, slot in self._slots.items()
                    if slot.model is not None and not slot.users
                ]
                victim = self._slots.pop(min(idle, key=lambda pair: pair[0])[1]) if idle else None
            if victim is None:
                self._note("refuse", spec.id, f"needs {format_bytes(plan.upper_bytes)}")
                raise DoesNotFit(
                    f"{spec.id} needs {format_bytes(plan.upper_bytes)} and "
                    f"{format_bytes(plan.available_bytes)} can be used ({plan.reason}).",
                    f"To make it fit: {'; or '.join(plan.cheapest_fixes)}.",
                    plan,
                )
            self._close(victim, f"to make room for {spec.id}")

    def _plan(
        self, spec: ModelSpec, path: Path, options: LoadOptions, freed_bytes: int = 0
    ) -> MemoryPlan:
        device = self._device()
        device = Device(device.name, device.total_bytes, device.free_bytes + freed_bytes)
        with self._lock:
            held = sum(s.plan.peak_bytes for s in self._slots.values() if s.plan)
        return plan_model(
            read_facts(spec, path), budget(device, max(0, held - freed_bytes)), options
        )

    def _close(self, slot: _Slot, reason: str) -> None:
        assert slot.model is not None
        try:
            slot.model.close()
        except WorkbenchError as error:
            reason += f"; closing said: {error}"
        slot.model = None
        gc.collect()
        trim_process()
        self._note("evict", slot.spec.id, reason)

    def _note(self, action: str, model_id: str, reason: str) -> None:
        self._decisions.append(
            {"at": time.time(), "action": action, "model": model_id, "reason": reason}
        )


@cache
def _default_pool() -> ModelPool:
    return ModelPool()


def default_pool() -> ModelPool:
    """The pool of this process, made when it is first needed."""
    with _default_lock:  # `cache` alone may call twice when two threads are first
        return _default_pool()


_default_lock = threading.Lock()
