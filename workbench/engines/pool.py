"""The only place that loads or frees a model.

``with pool.acquire(spec, options, size) as model:`` plans, frees idle models if it must, looks
whether their memory came back, loads, and counts who uses it. A busy or pinned model is never
freed. Requests for models that do not fit together wait in one queue, first come, first served;
requests for one model share it and its load. `ModelPool.log` says what was decided and why.

How a model is loaded is chosen for the machine, not for the moment: a request waits for memory
that others use rather than load with less precision, so its result does not depend on them.
"""

from __future__ import annotations

import math
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from workbench.engines import control, registry
from workbench.engines.accounts import Accounts
from workbench.engines.base import StopCheck, never_stop
from workbench.engines.expiry import Expiry
from workbench.engines.mover import Mover
from workbench.engines.planner import FilePlanner, Planner
from workbench.engines.slots import Journal, Lease, LoadedModel, Request, Slot, describe
from workbench.engines.turns import Turns
from workbench.errors import DoesNotFit, Unavailable, WaitedTooLong
from workbench.memory import devices
from workbench.memory.devices import Device, process_bytes
from workbench.memory.plan import MemoryPlan
from workbench.memory.request import LoadOptions, RequestSize
from workbench.models import sources
from workbench.models.spec import ModelSpec
from workbench.settings import get_settings


def read_device(name: str) -> Device:
    """The device as it is now; the host without the list of other processes, which is slow."""
    return devices.cpu_device() if name == "cpu" else devices.device(name)


def read_used(name: str) -> int:
    """What this process holds on the device: resident memory on a CPU."""
    return process_bytes() if name == "cpu" else devices.device(name).process_bytes


class ModelPool:
    """Loads models on demand and shares them between requests. Thread-safe."""

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        device: Callable[[str], Device] = read_device,
        planner: Planner | None = None,
        used_bytes: Callable[[str], int] = read_used,
    ) -> None:
        self._clock = clock
        self._planner = planner or FilePlanner()
        lock = threading.RLock()
        self._changed = threading.Condition(lock)
        self._accounts = Accounts(device)
        self._turns = Turns(clock)
        self._journal = Journal(clock)
        self._mover = Mover(
            self._changed,
            self._accounts,
            self._turns,
            self._journal,
            self._planner,
            clock,
            used_bytes,
        )
        # who loads or makes room now: two at once would each see the other's memory as free
        self._moving: Request | None = None
        self._expiry = Expiry(self, lock)

    @contextmanager
    def acquire(
        self,
        spec: ModelSpec,
        options: LoadOptions | None = None,
        size: RequestSize | None = None,
        keep_alive_seconds: float | None = None,
        *,
        should_stop: StopCheck = never_stop,
        wait_seconds: float | None = None,
    ) -> Iterator[Any]:
        """The loaded model, for as long as the block runs.

        ``options`` that are left out are chosen: the default, or the next cheaper allowed way
        where that does not fit. ``size`` is how large the request is: one that is larger than
        those before is planned anew, and frees other models if it must. ``keep_alive_seconds`` is
        how long the model stays afterwards (0: not at all; below 0: until its memory is needed).
        The block may have to wait for memory that others use, up to ``wait_seconds``;
        ``should_stop`` ends the waiting with Cancelled.

        When memory runs out in the block all the same, the model is freed after it, and the next
        acquire loads it in the next cheaper way: so the caller may try again, once.

        Raises ModelMissing, EngineMissing, ChecksumMismatch or DoesNotFit before anything runs.
        """
        registry.find_engine(spec.engine)
        self.free_expired()
        settings, now = get_settings().memory, self._clock()
        keep = settings.keep_alive_seconds if keep_alive_seconds is None else keep_alive_seconds
        wait = settings.wait_seconds if wait_seconds is None else wait_seconds
        request = Request(
            spec=spec,
            options=options or LoadOptions(),
            size=size or RequestSize(),
            keep_alive_seconds=keep,
            should_stop=should_stop,
            since=now,
            deadline=now + wait,
        )
        slot = self._enter(request)
        try:
            yield slot.model
        except (MemoryError, DoesNotFit) as error:
            if _is_out_of_memory(error):
                self._ran_out(slot)
            raise
        finally:
            self._leave(slot, request)

    def loaded(self) -> list[LoadedModel]:
        """What is loaded now, most recently used first."""
        self.free_expired()
        with self._changed:
            now, accounts = self._clock(), self._accounts
            rows = [describe(s, now, accounts.is_pinned(s)) for s in accounts.slots.values()]
        return sorted(rows, key=lambda row: row.idle_seconds)

    def log(self) -> list[dict[str, Any]]:
        """The last decisions, oldest first, with reasons and bytes.

        Actions: load, evict, park, keep, refuse, wait, replan, oom, pin, unpin.
        """
        return self._journal.entries()

    def plan(
        self,
        spec: ModelSpec,
        options: LoadOptions | None = None,
        size: RequestSize | None = None,
    ) -> MemoryPlan:
        """What loading ``spec`` exactly so would take now, counting idle models as free."""
        options = options or LoadOptions()
        path = sources.require(spec)
        with self._changed:
            idle = self._accounts.idle(options.device)
            budget = self._accounts.budget(options.device, idle)
        return self._planner.loaded(spec, path, options, size or RequestSize(), budget)

    def lease(self, model: Any) -> Lease:
        """The plan and the ground of what this thread's running request was given.

        Raises KeyError for a model that is not in use by this thread.
        """
        thread = threading.current_thread()
        with self._changed:
            slots = list(self._accounts.slots.values())
            for slot in slots:
                mine = [r for r in slot.requests if r.thread is thread]
                if slot.model is model and mine:
                    return Lease(
                        plan=slot.plans.get(mine[-1].size, slot.plan),
                        baseline_bytes=slot.baseline_bytes,
                        load_started=slot.load_started,
                        others_busy=any(s.is_busy for s in slots if s is not slot)
                        or len(slot.requests) > 1,
                    )
        raise KeyError(model)

    def unload(self, model_id: str | None = None) -> list[str]:
        """Free the idle models, or the idle ones called ``model_id``; return what was freed."""
        with self._changed:
            slots = [
                slot
                for slot in self._accounts.slots.values()
                if not slot.is_busy and model_id in (None, slot.spec.id)
            ]
            self._accounts.take_out(slots)
        for slot in slots:
            self._mover.close(slot, "because it was asked to")
        return [slot.spec.id for slot in slots]

    def pin(self, model_id: str) -> None:
        """Keep the model, now or when it will be loaded, until `unpin`.

        It is not freed to make room, nor by time; `unload` frees it all the same.
        """
        with self._changed:
            self._accounts.pins.add(model_id)
        self._journal.note("pin", model_id, "asked to")

    def unpin(self, model_id: str) -> None:
        """Let the model go again when its memory is needed or its time is over."""
        with self._changed:
            if model_id not in self._accounts.pins:
                return
            self._accounts.pins.discard(model_id)
            self._watch()
            self._changed.notify_all()
        self._journal.note("unpin", model_id, "asked to")

    def free_expired(self) -> None:
        """Free the idle models whose keep-alive is over."""
        with self._changed:
            now, accounts = self._clock(), self._accounts
            slots = [
                slot
                for slot in accounts.slots.values()
                if slot.expires_at() <= now and not accounts.is_pinned(slot)
            ]
            accounts.take_out(slots)
        for slot in slots:
            self._mover.close(slot, f"after {slot.keep_alive_seconds:g} s without use")

    def expires_in_seconds(self) -> float | None:
        """Seconds until the next idle model expires; None: none will."""
        with self._changed:
            accounts = self._accounts
            ends = [s.expires_at() for s in accounts.slots.values() if not accounts.is_pinned(s)]
            soonest = min(ends, default=math.inf)
            return None if soonest == math.inf else max(0.0, soonest - self._clock())

    # -- a request comes and goes ------------------------------------------------------------

    def _enter(self, request: Request) -> Slot:
        with self._changed:
            request.is_nested = bool(self._accounts.held_by(request.thread))
            self._turns.join(request)
        try:
            while True:
                with self._changed:
                    while (slot := self._grant(request)) is None and not self._may_move(request):
                        self._turns.wait(request, self._changed, math.inf)
                    if slot is not None:
                        return slot
                    self._moving = request
                try:
                    wait_seconds = self._mover.move(request)
                finally:
                    with self._changed:
                        self._moving = None
                        self._changed.notify_all()
                if wait_seconds is not None and wait_seconds < math.inf:
                    with self._changed:
                        self._turns.wait(request, self._changed, wait_seconds)
        finally:
            with self._changed:
                self._turns.leave(request)
                self._changed.notify_all()

    def _grant(self, request: Request) -> Slot | None:
        """Count the request in where it may use the loaded model right now."""
        slot = self._accounts.slots.get(request.key)
        if slot is None or slot.is_parked or not self._is_open(slot, request):
            return None
        growth = slot.growth_of(request.size)
        if growth is None:
            return None
        more = growth - slot.growth_bytes
        if more > 0 and more > self._accounts.free_bytes(slot.device):
            return None
        slot.requests.append(request)
        slot.keep_alive_seconds = request.keep_alive_seconds
        slot.last_thread = request.thread
        return slot

    def _is_open(self, slot: Slot, request: Request) -> bool:
        """Whether a new request may still use the slot."""
        if any(running.thread is request.thread for running in slot.requests):
            return True  # it would wait for itself
        if slot.is_retired or not slot.is_alive():
            return False
        is_kept = request.is_nested or self._accounts.is_pinned(slot)
        return is_kept or not self._turns.is_closed_to(request)

    def _may_move(self, request: Request) -> bool:
        """Whether it is this request's turn to load, and there is a chance that it succeeds."""
        if self._moving is not None or not self._turns.may_load(request):
            return False
        slot = self._accounts.slots.get(request.key)
        if slot is not None and (slot.is_retired or not slot.is_alive()) and slot.is_busy:
            return False  # it goes when its last request ends
        device = request.options.device
        idle = self._accounts.idle(device, request.key)
        return request.needs_bytes <= self._accounts.budget(device, idle).available_bytes

    def _leave(self, slot: Slot, request: Request) -> None:
        with self._changed:
            slot.requests.remove(request)
            slot.last_used = self._clock()
            reason = self._ends(slot)
            if reason:
                self._accounts.take_out([slot])
            else:
                self._watch()
            self._changed.notify_all()
        if reason:
            self._mover.close(slot, reason)

    def _ends(self, slot: Slot) -> str:
        """Why a slot that a request has left is freed at once; empty: it stays."""
        if slot.is_busy:
            return ""
        if slot.is_retired:
            return "because its memory ran out"
        if not slot.is_alive():
            return "because its process had ended"
        is_wanted = self._turns.wants(slot.key) or self._accounts.is_pinned(slot)
        return "" if slot.keep_alive_seconds != 0 or is_wanted else "as its keep-alive is 0"

    def _watch(self) -> None:
        seconds = self.expires_in_seconds()
        if seconds is not None:
            self._expiry.watch(seconds)

    def _ran_out(self, slot: Slot) -> None:
        planned = slot.plan.upper_bytes if slot.plan else 0
        with self._changed:
            slot.is_retired = True
            if slot.plan is not None:
                self._accounts.fail(slot.key, planned)
        self._journal.note(
            "oom",
            slot.spec.id,
            "memory ran out in a request; next time it is loaded in a cheaper way if there is one",
            planned,
        )


def _is_out_of_memory(error: MemoryError | DoesNotFit) -> bool:
    """Whether an engine said it: a refusal of the pool has a plan, or is for another model."""
    if isinstance(error, MemoryError):
        return True
    return error.plan is None and not isinstance(error, WaitedTooLong)


@cache
def _default_pool() -> ModelPool:
    pool = ModelPool()
    try:
        control.serve(pool)
    except (OSError, Unavailable) as error:  # models work all the same
        warnings.warn(f"`workbench models loaded` cannot see this process: {error}", stacklevel=3)
    return pool


def default_pool() -> ModelPool:
    """The pool of this process, made when it is first needed."""
    with _default_lock:  # `cache` alone may call twice when two threads are first
        return _default_pool()


_default_lock = threading.Lock()
