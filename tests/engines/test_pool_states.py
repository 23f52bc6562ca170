"""Any order of acquiring, leaving, unloading, pinning and waiting keeps the pool's promises."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tests.engines.pool_bench import MIB, Bench
from workbench.errors import DoesNotFit, ProviderError
from workbench.memory.request import RequestSize

NAMES = ("a", "b", "c", "d", "e")
WEIGHTS = {"a": 10, "b": 25, "c": 40, "d": 60, "e": 120}
GROWTH = {"a": 5, "b": 0, "c": 10, "d": 5, "e": 0}
CHEAPER = {"c": 20, "e": 70}


class PoolStates(RuleBasedStateMachine):
    """One client that holds any number of models; the machine has 100 MiB."""

    def __init__(self) -> None:
        super().__init__()
        self.stack = ExitStack()
        folder = Path(self.stack.enter_context(tempfile.TemporaryDirectory()))
        patch = self.stack.enter_context(pytest.MonkeyPatch.context())
        self.bench = Bench(folder, patch)
        self.held: list[tuple[str, Any]] = []
        self.pinned: set[str] = set()

    def spec(self, name: str) -> Any:
        return self.bench.spec(name, WEIGHTS[name], GROWTH[name], CHEAPER.get(name))

    @rule(
        name=st.sampled_from(NAMES),
        batch=st.sampled_from([1, 1, 1, 2, 4]),
        keep=st.sampled_from([None, 0.0, 5.0, -1.0]),
    )
    def acquire(self, name: str, batch: int, keep: float | None) -> None:
        block = self.bench.pool.acquire(self.spec(name), None, RequestSize(batch=batch), keep)
        closed = len(self.bench.closed)
        expired = {row.id for row in self.bench.pool.loaded()}
        try:
            model = block.__enter__()
        except DoesNotFit as error:
            # nothing was freed for it
            assert {row.id for row in self.bench.pool.loaded()} == expired
            assert len(self.bench.closed) == closed
            assert error.plan is not None
            return
        assert model.spec.id == name
        self.held.append((name, block))

    @rule(name=st.sampled_from(NAMES), error=st.sampled_from([ProviderError, MemoryError]))
    def fail_to_load(self, name: str, error: type[Exception]) -> None:
        if name in {row.id for row in self.bench.pool.loaded()}:
            return

        def fail(model_id: str) -> None:
            raise error("no")

        self.bench.on_load = fail
        with pytest.raises((DoesNotFit, error)):
            self.bench.use(self.spec(name))
        self.bench.on_load = lambda model_id: None
        assert name not in {row.id for row in self.bench.pool.loaded()}

    @precondition(lambda self: self.held)
    @rule(data=st.data(), error=st.sampled_from([None, None, ValueError, MemoryError]))
    def leave(self, data: st.DataObject, error: type[Exception] | None) -> None:
        _, block = self.held.pop(data.draw(st.integers(0, len(self.held) - 1)))
        if error is None:
            block.__exit__(None, None, None)
            return
        raised = error("in the block")
        assert not block.__exit__(error, raised, None)

    @rule(name=st.sampled_from([*NAMES, None]))
    def unload(self, name: str | None) -> None:
        freed = self.bench.pool.unload(name)
        assert not {held for held, _ in self.held} & set(freed)

    @rule(name=st.sampled_from(NAMES))
    def pin(self, name: str) -> None:
        self.bench.pool.pin(name)
        self.pinned.add(name)

    @rule(name=st.sampled_from(NAMES))
    def unpin(self, name: str) -> None:
        self.bench.pool.unpin(name)
        self.pinned.discard(name)

    @rule(seconds=st.sampled_from([0.1, 4.9, 600.0]))
    def time_passes(self, seconds: float) -> None:
        pinned = {row.id for row in self.bench.pool.loaded()} & self.pinned
        self.bench.now += seconds
        assert pinned <= {row.id for row in self.bench.pool.loaded()}

    @invariant()
    def the_users_are_counted_right(self) -> None:
        users = {row.id: row.users for row in self.bench.pool.loaded() if row.users}
        names = [name for name, _ in self.held]
        assert users == {name: names.count(name) for name in names}

    @invariant()
    def nothing_in_use_is_freed(self) -> None:
        assert {name for name, _ in self.held} <= set(self.bench.held)

    @invariant()
    def the_machine_is_never_overfull(self) -> None:
        slots = self.bench.pool._accounts.slots.values()
        assert sum(slot.charge_bytes for slot in slots) <= self.bench.total
        assert sum(self.bench.held.values()) <= self.bench.total

    @invariant()
    def what_is_loaded_is_what_is_held(self) -> None:
        pool = self.bench.pool
        assert {row.id for row in pool.loaded()} == set(self.bench.held)
        assert pool._accounts.leaving == []
        assert pool._turns._queue == []
        assert pool._moving is None
        for row in pool.loaded():
            assert row.measured_bytes == self.bench.held[row.id] <= row.planned_bytes <= 100 * MIB

    def teardown(self) -> None:
        for _, block in self.held:
            block.__exit__(None, None, None)
        assert all(row.users == 0 for row in self.bench.pool.loaded())
        self.bench.pool.unload()
        assert self.bench.held == {}
        self.stack.close()


TestPoolStates = PoolStates.TestCase
TestPoolStates.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
