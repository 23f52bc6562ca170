"""The pool: sharing, counting, making room, refusing, and telling why."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

import workbench
from workbench.engines import pool as pool_module
from workbench.engines import registry
from workbench.engines.pool import ModelPool
from workbench.engines.stub import StubModel
from workbench.errors import DoesNotFit, ModelMissing, ProviderError
from workbench.memory.devices import Device
from workbench.memory.request import LoadOptions
from workbench.models.spec import ModelSpec

MIB = 2**20


class Bench:
    """A pool on a device of 100 MiB, with models that weigh what their file says."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.now = 0.0
        self.closed: list[str] = []
        self.total = 100 * MIB
        monkeypatch.setenv("WORKBENCH_MEMORY__HEADROOM", "0MiB")
        workbench.settings.get_settings.cache_clear()
        monkeypatch.setattr(registry, "load", self._load)
        self.pool = ModelPool(clock=lambda: self.now, device=self._device)

    def spec(self, name: str, mib: int) -> ModelSpec:
        path = self.folder / f"{name}.bin"
        if not path.exists():
            with path.open("wb") as file:
                file.truncate(mib * MIB)
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
            }
        )

    def ids(self) -> set[str]:
        return {row.id for row in self.pool.loaded()}

    def _device(self) -> Device:
        held = sum(row.planned_bytes for row in self.pool.loaded())
        return Device("cpu", self.total, self.total - held)

    def _load(self, spec: ModelSpec, path: Path, options: LoadOptions) -> StubModel:
        bench = self

        class Model(StubModel):
            def close(self) -> None:
                bench.closed.append(self.spec.id)

        return Model(spec)


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setitem(
        registry.ENGINES, "stub-file", registry.Engine("stub-file", "", (), ("speech",))
    )
    return Bench(tmp_path, monkeypatch)


def test_one_copy_is_shared(bench: Bench):
    spec = bench.spec("a", 10)
    with bench.pool.acquire(spec) as first, bench.pool.acquire(spec) as second:
        assert first is second
        assert bench.pool.loaded()[0].users == 2
    assert bench.pool.loaded()[0].users == 0


def test_other_options_are_another_copy(bench: Bench):
    spec = bench.spec("a", 10)
    with bench.pool.acquire(spec) as a, bench.pool.acquire(spec, LoadOptions(threads=1)) as b:
        assert a is not b


def test_the_longest_idle_model_makes_room(bench: Bench):
    for name in ("old", "new"):
        with bench.pool.acquire(bench.spec(name, 30)):
            bench.now += 1
    with bench.pool.acquire(bench.spec("big", 40)):
        assert bench.ids() == {"new", "big"}
    assert bench.closed == ["old"]
    evicted = next(entry for entry in bench.pool.log() if entry["action"] == "evict")
    assert evicted["reason"] == "to make room for big"


def test_a_busy_model_is_never_freed(bench: Bench):
    with bench.pool.acquire(bench.spec("busy", 60)):
        with pytest.raises(DoesNotFit, match=r"big needs .* To make it fit: free") as caught:
            with bench.pool.acquire(bench.spec("big", 60)):
                pass
        assert bench.ids() == {"busy"}
    assert caught.value.plan is not None
    assert not bench.closed
    with bench.pool.acquire(bench.spec("big", 60)):
        assert bench.ids() == {"big"}


def test_too_big_for_an_empty_machine(bench: Bench):
    with pytest.raises(DoesNotFit):
        with bench.pool.acquire(bench.spec("huge", 101)):
            pass
    assert bench.pool.log()[-1]["action"] == "refuse"


def test_the_plan_counts_idle_models_as_free(bench: Bench):
    with bench.pool.acquire(bench.spec("a", 60)):
        assert not bench.pool.plan(bench.spec("b", 60)).fits
    assert bench.pool.plan(bench.spec("b", 60)).fits


def test_unload_frees_only_what_is_idle(bench: Bench):
    with bench.pool.acquire(bench.spec("a", 10)):
        with bench.pool.acquire(bench.spec("b", 10)):
            pass
        assert bench.pool.unload() == ["b"]
        assert bench.pool.unload("a") == []
    assert bench.pool.unload("a") == ["a"]


def test_a_failed_load_leaves_nothing_and_can_be_tried_again(bench: Bench, monkeypatch):
    def fail(*args: object) -> None:
        raise ProviderError("no")

    spec = bench.spec("a", 10)
    good = registry.load
    monkeypatch.setattr(registry, "load", fail)
    with pytest.raises(ProviderError), bench.pool.acquire(spec):
        pass
    assert not bench.pool.loaded()
    monkeypatch.setattr(registry, "load", good)
    with bench.pool.acquire(spec) as model:
        assert model.spec.id == "a"


def test_memory_that_runs_out_while_loading_is_a_clear_refusal(bench: Bench, monkeypatch):
    def fail(*args: object) -> None:
        raise MemoryError

    monkeypatch.setattr(registry, "load", fail)
    with pytest.raises(DoesNotFit, match="ran out while loading a"):
        with bench.pool.acquire(bench.spec("a", 10)):
            pass


def test_a_missing_file_is_said_before_loading(bench: Bench):
    spec = bench.spec("a", 10)
    (bench.folder / "a.bin").unlink()
    with pytest.raises(ModelMissing), bench.pool.acquire(spec):
        pass


def test_many_threads_load_once(bench: Bench, monkeypatch):
    loads: list[str] = []
    slow = threading.Event()
    plain = registry.load

    def load(spec: ModelSpec, *args: object) -> object:
        slow.wait(5)
        loads.append(spec.id)
        return plain(spec, *args)

    monkeypatch.setattr(registry, "load", load)
    seen = []

    def use() -> None:
        with bench.pool.acquire(bench.spec("a", 10)) as model:
            seen.append(model)

    threads = [threading.Thread(target=use) for _ in range(8)]
    for thread in threads:
        thread.start()
    slow.set()
    for thread in threads:
        thread.join()
    assert loads == ["a"]
    assert len(set(map(id, seen))) == 1


def test_waiters_of_a_failed_load_meet_the_error_themselves(bench: Bench, monkeypatch):
    def fail(*args: object) -> None:
        raise ProviderError("no")

    monkeypatch.setattr(registry, "load", fail)
    errors: list[Exception] = []

    def use() -> None:
        try:
            with bench.pool.acquire(bench.spec("a", 10)):
                pass
        except ProviderError as error:
            errors.append(error)

    threads = [threading.Thread(target=use) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(errors) == 6
    assert not bench.pool.loaded()


def test_the_default_pool_is_one(stub_models: dict[str, str], own_pool: ModelPool):
    assert workbench.pool is own_pool is pool_module.default_pool()
    with workbench.pool.acquire(workbench.models.get(stub_models["chat"])) as model:
        assert isinstance(model, StubModel)


@pytest.mark.models
def test_memory_of_a_real_model_comes_back(monkeypatch: pytest.MonkeyPatch):
    from workbench.memory.devices import process_bytes

    pool = ModelPool()
    spec = workbench.models.get("whisper-tiny.en")
    with pool.acquire(spec):
        pass
    held = process_bytes()
    assert pool.unload() == [spec.id]
    assert process_bytes() < held - 20 * MIB


def test_engines_that_are_missing_are_named(monkeypatch: pytest.MonkeyPatch, write_model: Callable):
    engine = registry.Engine("gone", "gone", ("no_such_package",), ("chat",))
    monkeypatch.setitem(registry.ENGINES, "gone", engine)
    spec = workbench.models.get(write_model("m", engine="gone"))
    with pytest.raises(workbench.errors.EngineMissing, match="no_such_package"):
        with ModelPool().acquire(spec):
            pass
    with pytest.raises(workbench.errors.SettingsError, match="no engine 'other'"):
        registry.find_engine("other")
