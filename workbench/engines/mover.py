"""Brings models into memory and out of it: choose, make room, verify, load, verify, undo.

One request at a time is here; the pool sees to that. Engines are called without the pool's lock.
"""

from __future__ import annotations

import gc
import math
import threading
import time
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

from workbench.engines import child, registry
from workbench.engines.accounts import Accounts
from workbench.engines.base import ParkableModel
from workbench.engines.planner import Candidate, Planner
from workbench.engines.slots import Journal, Request, Slot
from workbench.engines.turns import Turns
from workbench.engines.victims import Victim, choose_victims
from workbench.errors import DoesNotFit, WorkbenchError
from workbench.memory.devices import trim_process
from workbench.memory.machine import get_machine
from workbench.memory.plan import MemoryPlan
from workbench.memory.request import LoadOptions
from workbench.models import sources
from workbench.settings import get_settings
from workbench.units import format_bytes

#: What may stay behind without a word: allocators work in pages and arenas.
_SLACK_BYTES = 8 * 2**20


class _NotBack(Exception):
    """Models were freed and the memory is not there: somebody else has it, or it did not return."""


def give_back() -> None:
    """Free what nobody refers to, and return it to the system."""
    gc.collect()
    trim_process()


class Mover:
    """Changes what is loaded, on behalf of one request at a time."""

    def __init__(
        self,
        changed: threading.Condition,
        accounts: Accounts,
        turns: Turns,
        journal: Journal,
        planner: Planner,
        clock: Callable[[], float],
        used_bytes: Callable[[str], int],
    ) -> None:
        self._changed = changed
        self._accounts = accounts
        self._turns = turns
        self._journal = journal
        self._planner = planner
        self._clock = clock
        self._used_bytes = used_bytes

    def move(self, request: Request) -> float | None:
        """Load the model of ``request``, or make room for what it adds to a loaded one.

        None: done. Else nothing was changed, and it must wait at most so many seconds (infinity:
        until other requests have ended). Raises DoesNotFit and what engines raise.
        """
        with self._changed:
            # memory on its way back is neither free nor held
            self._changed.wait_for(lambda: not self._accounts.leaving)
            slot = self._accounts.slots.get(request.key)
            is_dead = slot is not None and not slot.is_alive()
            if slot is not None and is_dead:
                self._accounts.take_out([slot])
        if slot is not None and is_dead:
            self.close(slot, "because its process had ended")
        if slot is not None and not is_dead:
            return self._enlarge(slot, request)
        try:
            return self._load(request)
        except BaseException as error:
            if request.freed and not isinstance(error, DoesNotFit):
                vain = f"{type(error).__name__}; {', '.join(request.freed)} was freed in vain"
                self._journal.note("refuse", request.spec.id, f"loading failed: {vain}")
            raise

    def close(self, slot: Slot, reason: str) -> None:
        """Free a model that was taken out of the accounts; note what came back."""
        device = slot.device
        before = self._used_bytes(device)
        try:
            slot.model.close()
        except WorkbenchError as error:
            reason += f"; closing said: {error}"
        slot.model = None
        give_back()
        back = max(0, before - self._used_bytes(device))
        with self._changed:
            self._accounts.gone(slot)
            is_quiet = not any(other.is_busy for other in self._accounts.slots.values())
            self._changed.notify_all()
        missing = 0 if slot.is_isolated else slot.returns_bytes - back
        if is_quiet and missing > _SLACK_BYTES:
            reason += f"; {format_bytes(missing)} of its memory did not come back"
        self._journal.note("evict", slot.spec.id, reason, slot.returns_bytes)

    # -- choosing ----------------------------------------------------------------------------

    def _load(self, request: Request) -> float | None:
        spec = request.spec
        if spec.is_remote or spec.engine == "stub":
            self._start(request, Path(), request.options, None, "")
            return None
        path = sources.require(spec)
        failed: list[Candidate] = []
        is_second = False
        while True:
            chosen, why = self._choose(request, path, is_retry=bool(failed))
            try:
                waiting = self._make_room(
                    request, chosen.plan.upper_bytes, chosen.options.device, chosen.plan
                )
            except _NotBack:
                if is_second:
                    raise self._refusal(request, chosen.plan) from None
                is_second = True
                note = f"{', '.join(request.freed)} was freed and the memory is not there"
                self._journal.note("replan", spec.id, note, chosen.plan.upper_bytes)
                continue
            if waiting is not None:
                return waiting
            try:
                self._start(request, path, chosen.options, chosen.plan, why)
                return None
            except (MemoryError, DoesNotFit):
                failed.append(chosen)
            # not in the handler: the error's traceback holds what was half loaded
            self._undo(request, chosen.plan, is_last=len(failed) > 1)
            if len(failed) > 1:
                raise _ran_out(request, chosen.plan)

    def _choose(self, request: Request, path: Path, is_retry: bool) -> tuple[Candidate, str]:
        """The first candidate that fits when nobody else runs. Raises DoesNotFit."""
        spec, device = request.spec, request.options.device
        with self._changed:
            freed = self._accounts.idle(device, request.key) + self._others(request, device)
            budget = self._accounts.budget(device, freed)
            ceiling = self._accounts.ceiling_bytes(request.key)
        first = again = None
        for found in self._planner.candidates(spec, path, request.options, request.size, budget):
            first = first or found
            if not found.plan.fits:
                continue
            if ceiling is None or found.plan.upper_bytes < ceiling:
                return found, _difference(first, found, ceiling)
            again = again or found
        assert first is not None, "a planner gives at least the default"
        if again is None:
            raise self._refusal(request, first.plan)
        if is_retry:
            raise _ran_out(request, again.plan)
        with self._changed:
            self._accounts.forgive(request.key)
        return again, "memory ran out with this plan before, and there is no cheaper one"

    def _enlarge(self, slot: Slot, request: Request) -> float | None:
        """Plan a request that is larger than those before; make room for what it adds."""
        device, size = slot.options.device, request.size
        growth = slot.growth_of(size)
        if growth is None:
            with self._changed:
                idle = self._accounts.idle(device, slot.key)
                budget = self._accounts.budget(device, idle)
            plan = self._planner.loaded(slot.spec, slot.path, slot.options, size, budget)
            growth = self._accounts.growth_bytes(slot, plan)
            with self._changed:
                slot.growth[size], slot.plans[size] = growth, plan
            reason = "the request is larger than those before"
            self._journal.note("replan", slot.spec.id, reason, plan.upper_bytes)
        with self._changed:
            more = growth - slot.growth_bytes
            more += slot.resident_bytes if slot.is_parked else 0
            refused = slot.plans.get(size) or slot.plan
            assert refused is not None, "what was never planned adds nothing"
        try:
            waiting = self._make_room(request, more, device, refused)
        except _NotBack:
            raise self._refusal(request, refused) from None
        if waiting is None and slot.is_parked:
            self._unpark(slot)
        return waiting

    # -- making room -------------------------------------------------------------------------

    def _make_room(
        self, request: Request, need_bytes: int, device: str, plan: MemoryPlan
    ) -> float | None:
        """Free idle models so that ``need_bytes`` can be taken, and look whether they can.

        Frees nothing unless it will be enough. None: there is room. Seconds: wait, others use it.
        Raises DoesNotFit where waiting cannot help, `_NotBack`.
        """
        accounts = self._accounts
        with self._changed:
            free = accounts.free_bytes(device)
            if need_bytes <= free:
                request.needs_bytes = 0
                return None
            idle = accounts.idle(device, request.key)
            if need_bytes > accounts.budget(device, idle).available_bytes:
                return self._wait_for_others(request, need_bytes, device, plan, idle)
            victims = self._victims(idle, need_bytes - free)
            grace = self._turns.grace_seconds(request, victims)
            if grace > 0:
                request.needs_bytes = need_bytes
                return grace
            accounts.take_out(victims)
            request.freed += [slot.spec.id for slot in victims]
            kept = [s for s in accounts.slots.values() if s.device == device]
        for slot in victims:
            if not self._park(slot, request.spec.id):
                self.close(slot, f"to make room for {request.spec.id}")
        for slot in kept:
            self._journal.note("keep", slot.spec.id, self._why_kept(slot), slot.charge_bytes)
        with self._changed:
            if need_bytes > accounts.free_bytes(device):
                raise _NotBack
        request.needs_bytes = 0
        return None

    def _wait_for_others(
        self, request: Request, need_bytes: int, device: str, plan: MemoryPlan, idle: list[Slot]
    ) -> float:
        """Infinity where the end of other requests would help. Raises DoesNotFit."""
        others = self._others(request, device)
        if need_bytes > self._accounts.budget(device, idle + others).available_bytes:
            raise self._refusal(request, plan)
        if not request.needs_bytes:
            names = ", ".join(slot.spec.id for slot in others)
            self._journal.note("wait", request.spec.id, f"until {names} is free", need_bytes)
        request.needs_bytes = need_bytes
        return math.inf

    def _others(self, request: Request, device: str) -> list[Slot]:
        """Busy models that this request may wait for: those that do not wait for it in turn."""
        busy = [slot for slot in self._accounts.busy(device) if slot.key != request.key]
        if not request.is_nested:
            return busy
        mine = request.thread
        return [
            slot
            for slot in busy
            if not any(r.thread is mine or self._turns.is_stuck(r.thread) for r in slot.requests)
        ]

    def _victims(self, idle: list[Slot], missing_bytes: int) -> list[Slot]:
        now = self._clock()
        victims = [
            Victim(
                key=slot.key,
                freed_bytes=min(slot.returns_bytes, slot.charge_bytes),
                load_seconds=slot.load_seconds,
                idle_seconds=now - slot.last_used,
            )
            for slot in idle
        ]
        chosen = choose_victims(victims, missing_bytes)
        if chosen is None:  # together with rounding all of them are just enough
            return idle
        keys = {victim.key for victim in chosen}
        return [slot for slot in idle if slot.key in keys]

    def _why_kept(self, slot: Slot) -> str:
        if slot.is_busy:
            return "it is in use"
        if self._accounts.is_pinned(slot):
            return "it is pinned"
        return "its memory was not needed, or it costs more to load again"

    # -- host memory as a waiting place ------------------------------------------------------

    def _park(self, slot: Slot, for_id: str) -> bool:
        """Move an accelerator's model to host memory where that is cheaper than a reload.

        On a CPU the weights are in host memory already, so there is nothing to gain.
        """
        device = slot.options.device
        if device == "cpu" or slot.is_parked or not isinstance(slot.model, ParkableModel):
            return False
        speed = get_machine().bytes_per_second.get(f"host_to_{device.split(':')[0]}", 0.0)
        with self._changed:
            has_room = slot.resident_bytes <= self._accounts.free_bytes("cpu")
        if not speed or not has_room or slot.resident_bytes / speed >= slot.load_seconds:
            return False
        slot.model.park()
        with self._changed:
            self._accounts.park(slot)
            self._changed.notify_all()
        reason = f"to make room for {for_id}; in host memory it is back sooner than from disk"
        self._journal.note("park", slot.spec.id, reason, slot.resident_bytes)
        return True

    def _unpark(self, slot: Slot) -> None:
        started = time.perf_counter()
        slot.model.unpark()
        with self._changed:
            slot.is_parked = False
        reason = f"back from host memory in {time.perf_counter() - started:.2f} s"
        self._journal.note("load", slot.spec.id, reason, slot.resident_bytes)

    # -- loading -----------------------------------------------------------------------------

    def _start(
        self,
        request: Request,
        path: Path,
        options: LoadOptions,
        plan: MemoryPlan | None,
        why: str,
    ) -> None:
        """Load and verify. Leaves nothing behind when it raises."""
        spec, device = request.spec, options.device
        is_isolated = spec.engine in get_settings().memory.isolate
        with self._changed:
            others = [s for s in self._accounts.slots.values() if s.is_busy]
            room = self._accounts.free_bytes(device) if plan else 0
        before, started = self._used_bytes(device), time.perf_counter()
        if not is_isolated:  # now, so that what follows is the model's alone
            registry.import_libraries(spec.engine)
        baseline = None if is_isolated else self._used_bytes(device)
        load = child.load if is_isolated else registry.load
        model: Any = load(spec, path, options)
        seconds = time.perf_counter() - started
        measured = model.resident_bytes() if is_isolated else self._used_bytes(device) - before
        is_quiet = is_isolated or not others
        reason = f"{self._journal.why_load(spec.id)}{why and '; '}{why}"
        slot = Slot(
            spec=spec,
            key=request.key,
            options=options,
            model=model,
            path=path,
            is_isolated=is_isolated,
            plan=plan,
            reason=reason,
            load_seconds=seconds,
            measured_bytes=max(0, measured),
            baseline_bytes=baseline,
            load_started=started,
            last_used=self._clock(),
            keep_alive_seconds=request.keep_alive_seconds,
        )
        if plan is not None and is_quiet and measured > max(room, plan.upper_bytes):
            model.close()
            raise DoesNotFit(f"{spec.id} took {format_bytes(measured)}, more than there was.")
        with self._changed:
            self._accounts.admit(slot, is_quiet)
        if plan is not None and is_quiet and measured > plan.upper_bytes:
            reason += f"; it took more than the {format_bytes(plan.upper_bytes)} of the plan"
        self._journal.note("load", spec.id, f"{reason}; took {seconds:.2f} s", slot.measured_bytes)

    def _undo(self, request: Request, plan: MemoryPlan, is_last: bool) -> None:
        give_back()
        with self._changed:
            self._accounts.fail(request.key, plan.upper_bytes)
        what = "given up" if is_last else "next: a cheaper way, once"
        reason = f"memory ran out while it was loaded; nothing of it stays; {what}"
        self._journal.note("oom", request.spec.id, reason, plan.upper_bytes)

    def _refusal(self, request: Request, plan: MemoryPlan) -> DoesNotFit:
        """The error, noted in the journal."""
        reason = plan.refusal()
        if request.freed:
            reason += f" {', '.join(request.freed)} was freed in vain."
        own = [slot.spec.id for slot in self._accounts.held_by(request.thread)]
        if own:
            reason += f" The request itself holds {', '.join(own)}."
        self._journal.note("refuse", request.spec.id, reason, plan.upper_bytes)
        fixes = "; or ".join(plan.cheapest_fixes)
        remedy = f"To make it fit: {fixes}." if fixes else "Free memory or choose a smaller model."
        return DoesNotFit(reason, remedy, plan)


def _ran_out(request: Request, plan: MemoryPlan) -> DoesNotFit:
    return DoesNotFit(
        f"Memory ran out while loading {request.spec.id}.",
        "Close other programs or choose a smaller model.",
        plan,
    )


def _difference(first: Candidate, chosen: Candidate, ceiling_bytes: int | None) -> str:
    """Why the chosen way is not the default one; empty: it is."""
    if chosen is first:
        return ""
    changed = [
        f"{field.name} {getattr(chosen.options, field.name)}"
        for field in fields(LoadOptions)
        if getattr(chosen.options, field.name) != getattr(first.options, field.name)
    ]
    cause = "memory ran out with it" if ceiling_bytes is not None else first.plan.refusal()
    return f"with {', '.join(changed)} instead of the default: {cause.rstrip('.')}"
