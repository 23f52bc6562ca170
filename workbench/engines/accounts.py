"""What the loaded models are charged with, and what is left of each device. Arithmetic only.

An idle model is charged with what it keeps; one in use also with the most that its requests may
add. An engine's libraries are charged once for as long as the process lives: freeing a model does
not give them back. Every method is called under the pool's lock.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable
from dataclasses import replace

from workbench.engines.slots import Key, Slot
from workbench.memory.devices import Budget, Device, budget
from workbench.memory.plan import MemoryPlan


class Accounts:
    """The loaded models by key, and their sums by device."""

    def __init__(self, device: Callable[[str], Device]) -> None:
        self._device = device
        self.slots: dict[Key, Slot] = {}
        self.pins: set[str] = set()
        #: out of the table, but their memory is not back yet
        self.leaving: list[Slot] = []
        self._contexts: dict[tuple[str, str], int] = {}
        self._failed: dict[Key, int] = {}

    def budget(self, device: str, freed: Collection[Slot] = ()) -> Budget:
        """What may still be taken on ``device``, as if ``freed`` were gone already."""
        kept = [s for s in (*self.slots.values(), *self.leaving) if s not in freed]
        kept = [slot for slot in kept if slot.device == device]
        charged = sum(slot.charge_bytes for slot in kept)
        charged += sum(size for (_, where), size in self._contexts.items() if where == device)
        now = self._device(device)
        free = now.free_bytes - sum(slot.growth_bytes for slot in kept)
        free += sum(slot.returns_bytes for slot in freed if slot.device == device)
        return budget(replace(now, free_bytes=free), charged)

    def free_bytes(self, device: str) -> int:
        """What may be taken now."""
        return self.budget(device).available_bytes

    def device_bytes(self, device: str) -> int:
        """Free memory of the device as it says itself."""
        return self._device(device).free_bytes

    def idle(self, device: str, but: Key | None = None) -> list[Slot]:
        """What may be freed there."""
        return [
            slot
            for slot in self.slots.values()
            if slot.device == device
            and slot.key != but
            and not slot.is_busy
            and not self.is_pinned(slot)
        ]

    def busy(self, device: str) -> list[Slot]:
        """What may be freed there once its requests have ended."""
        return [
            slot
            for slot in self.slots.values()
            if slot.device == device and slot.is_busy and not self.is_pinned(slot)
        ]

    def held_by(self, thread: threading.Thread) -> list[Slot]:
        """The models that requests of ``thread`` use."""
        return [s for s in self.slots.values() if any(r.thread is thread for r in s.requests)]

    def is_pinned(self, slot: Slot) -> bool:
        return slot.spec.id in self.pins

    def admit(self, slot: Slot, is_quiet: bool) -> None:
        """Charge a model that was just loaded.

        Only where nothing else ran meanwhile is what was measured the model's own.
        """
        plan, context = slot.plan, 0
        if plan is not None:
            context = _term(plan, "context")
            where = (slot.spec.engine, slot.options.device)
            if context and not slot.is_isolated:
                self._contexts.setdefault(where, context)
            else:
                context = 0
            slot.resident_bytes = max(0, min(plan.phases.values()) - context)
        measured = max(0, slot.measured_bytes - context)
        slot.returns_bytes = measured if is_quiet else slot.resident_bytes
        if is_quiet:
            slot.resident_bytes = max(slot.resident_bytes, measured)
        if plan is not None:
            slot.growth[plan.size] = self.growth_bytes(slot, plan, context)
            slot.plans[plan.size] = plan
        self.slots[slot.key] = slot

    def growth_bytes(self, slot: Slot, plan: MemoryPlan, context_bytes: int = 0) -> int:
        """What a request of the plan's size may add to what the model keeps."""
        return max(
            plan.upper_bytes - context_bytes - slot.resident_bytes,
            plan.peak_bytes - min(plan.phases.values()),
            0,
        )

    def take_out(self, slots: Iterable[Slot]) -> None:
        """No request may use these any more; they are charged until `gone`."""
        for slot in slots:
            del self.slots[slot.key]
            self.leaving.append(slot)

    def gone(self, slot: Slot) -> None:
        """Its memory is back, or as much of it as will come."""
        self.leaving.remove(slot)

    def park(self, slot: Slot) -> None:
        """Its weights are in host memory now; it can be used again after they moved back."""
        self.leaving.remove(slot)
        slot.is_parked = True
        self.slots[slot.key] = slot

    def fail(self, key: Key, upper_bytes: int) -> None:
        """Memory ran out with a plan of ``upper_bytes``: only cheaper ones from now on."""
        self._failed[key] = min(upper_bytes, self._failed.get(key, upper_bytes))

    def ceiling_bytes(self, key: Key) -> int | None:
        """Plans must stay below this; None: nothing has failed."""
        return self._failed.get(key)

    def forgive(self, key: Key) -> None:
        """There is no cheaper plan: the same may be tried again."""
        self._failed.pop(key, None)


def _term(plan: MemoryPlan, name: str) -> int:
    return sum(term.size_bytes for term in plan.terms if term.name == name)
