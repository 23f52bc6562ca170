"""A small machine for tests of the pool: 100 MiB, models that weigh what they say, a clock that
stands still until it is moved, and a count of every load and close."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from workbench.engines import mover, registry
from workbench.engines.planner import Candidate
from workbench.engines.pool import ModelPool
from workbench.engines.stub import StubModel
from workbench.memory.devices import Budget, Device
from workbench.memory.plan import MemoryPlan
from workbench.memory.request import LoadOptions, RequestSize
from workbench.memory.terms import exact
from workbench.models.spec import ModelSpec
from workbench.settings import get_settings

MIB = 2**20


class Bench:
    """A pool, the machine below it and what happened to it."""

    def __init__(
        self,
        folder: Path,
        monkeypatch: pytest.MonkeyPatch,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self.folder = folder
        self.now = 0.0
        self.total = 100 * MIB
        #: taken by models that are loaded, and by another process
        self.held: dict[str, int] = {}
        self.others = 0
        self.leaks = 0
        self.loads: list[str] = []
        self.closed: list[str] = []
        #: called with the id in the middle of a load
        self.on_load: Callable[[str], None] = lambda model_id: None
        monkeypatch.setenv("WORKBENCH_MEMORY__HEADROOM", "0MiB")
        monkeypatch.setenv("WORKBENCH_HOME", str(folder))
        get_settings.cache_clear()
        monkeypatch.setitem(
            registry.ENGINES, "stub-file", registry.Engine("stub-file", "", (), ("speech",))
        )
        monkeypatch.setattr(registry, "load", self._load)
        monkeypatch.setattr(mover, "give_back", lambda: None)  # nothing real is held here
        self.lock = threading.Lock()
        self.pool = ModelPool(clock or (lambda: self.now), self.device, self, self.used_bytes)
        if clock is None:
            # a thread that wakes by the real clock would free models beside the test
            monkeypatch.setattr(self.pool._expiry, "watch", lambda seconds: None)

    def spec(self, name: str, mib: int, growth: int = 0, cheaper: int | None = None) -> ModelSpec:
        """A model of ``mib`` (and ``growth`` in a request); as int8 it takes ``cheaper``."""
        path = self.folder / f"{name}.bin"
        path.touch()
        return ModelSpec.model_validate(
            {
                "id": name,
                "title": name,
                "task": "speech",
                "engine": "stub-file",
                "licence": "none",
                "main_file": path.name,
                "files": [{"name": path.name}],
                "sources": [{"kind": "local", "path": str(self.folder)}],
                "options": {"mib": mib, "growth": growth, "cheaper": cheaper},
            }
        )

    def ids(self) -> set[str]:
        return {row.id for row in self.pool.loaded()}

    def use(self, *args: Any, **options: Any) -> None:
        """Acquire and leave at once."""
        with self.pool.acquire(*args, **options):
            pass

    def actions(self, model_id: str | None = None) -> list[str]:
        """What the log says was done, in order."""
        return [e["action"] for e in self.pool.log() if model_id in (None, e["model"])]

    def reasons(self, action: str) -> list[str]:
        return [entry["reason"] for entry in self.pool.log() if entry["action"] == action]

    # -- the planner -------------------------------------------------------------------------

    def candidates(
        self, spec: ModelSpec, path: Path, options: LoadOptions, size: RequestSize, budget: Budget
    ) -> Iterator[Candidate]:
        yield Candidate(options, self.loaded(spec, path, options, size, budget))
        if spec.options["cheaper"] is not None and options.compute_type is None:
            small = LoadOptions(device=options.device, compute_type="int8")
            yield Candidate(small, self.loaded(spec, path, small, size, budget))

    def loaded(
        self, spec: ModelSpec, path: Path, options: LoadOptions, size: RequestSize, budget: Budget
    ) -> MemoryPlan:
        weights = self._weights(spec, options)
        peak = weights + spec.options["growth"] * MIB * size.batch
        return MemoryPlan.model_construct(
            model=spec.id,
            device=budget.device,
            fits=peak <= budget.available_bytes,
            peak_bytes=peak,
            upper_bytes=peak,
            available_bytes=budget.available_bytes,
            reason=budget.reason,
            terms=(exact("weights", weights, "the test"),),
            phases={"load": weights, "run": peak},
            options=options,
            size=size,
            cheapest_fixes=() if peak <= budget.available_bytes else ("free some",),
        )

    # -- the machine -------------------------------------------------------------------------

    def device(self, name: str) -> Device:
        return Device(name, self.total, self.total - self.used_bytes(name) - self.others)

    def used_bytes(self, name: str) -> int:
        return sum(self.held.values()) + self.leaks

    def _weights(self, spec: ModelSpec, options: LoadOptions) -> int:
        mib = spec.options["cheaper"] if options.compute_type == "int8" else spec.options["mib"]
        return int(mib * MIB)

    def _load(self, spec: ModelSpec, path: Path, options: LoadOptions) -> StubModel:
        bench = self
        self.on_load(spec.id)

        class Model(StubModel):
            def close(self) -> None:
                with bench.lock:
                    bench.closed.append(spec.id)
                    bench.held.pop(spec.id, None)

        with self.lock:
            self.loads.append(spec.id)
            self.held[spec.id] = self._weights(spec, options)
        return Model(spec)
