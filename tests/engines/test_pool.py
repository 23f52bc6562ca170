"""The pool: sharing, making room, verifying, undoing, refusing, and telling why."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

import workbench
from tests.engines.pool_bench import MIB, Bench
from workbench.engines import pool as pool_module
from workbench.engines import registry
from workbench.engines.pool import ModelPool
from workbench.engines.stub import StubModel
from workbench.errors import Cancelled, DoesNotFit, ModelMissing, ProviderError
from workbench.memory.request import LoadOptions, RequestSize
from workbench.settings import get_settings


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(tmp_path, monkeypatch)


# -- sharing ---------------------------------------------------------------------------------


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


def test_many_threads_load_once(bench: Bench):
    slow = threading.Event()
    bench.on_load = lambda model_id: slow.wait(5)
    seen = []

    def use() -> None:
        with bench.pool.acquire(bench.spec("a", 10)) as model:
            seen.append(model)

    threads = [threading.Thread(target=use) for _ in range(8)]
    for thread in threads:
        thread.start()
    slow.set()
    for thread in threads:
        thread.join(10)
    assert bench.loads == ["a"]
    assert len(seen) == 8
    assert len(set(map(id, seen))) == 1


# -- making room -----------------------------------------------------------------------------


def test_the_longest_idle_of_equal_models_makes_room(bench: Bench):
    for name in ("old", "new"):
        bench.use(bench.spec(name, 30))
        bench.now += 1
    with bench.pool.acquire(bench.spec("big", 50)):
        assert bench.ids() == {"new", "big"}
    assert bench.closed == ["old"]
    assert bench.reasons("evict") == ["to make room for big"]
    assert bench.reasons("keep") == ["its memory was not needed, or it costs more to load again"]


def test_one_model_that_is_enough_goes_rather_than_two(bench: Bench):
    for name, mib in (("small", 10), ("middle", 20), ("large", 60)):
        bench.use(bench.spec(name, mib))
        bench.now += 1
    bench.use(bench.spec("new", 50))
    assert bench.closed == ["large"]  # the others together free 30


def test_a_busy_model_is_never_freed(bench: Bench):
    with bench.pool.acquire(bench.spec("busy", 60)):
        message = r"big needs 60.* The request itself holds busy\. To make it fit: free some"
        with pytest.raises(DoesNotFit, match=message) as caught:
            bench.use(bench.spec("big", 60))
        assert bench.ids() == {"busy"}
    assert caught.value.plan is not None
    assert not bench.closed
    bench.use(bench.spec("big", 60))
    assert bench.ids() == {"big"}


def test_nothing_is_freed_for_what_would_not_fit_anyway(bench: Bench):
    bench.use(bench.spec("idle", 10))
    with pytest.raises(DoesNotFit):
        bench.use(bench.spec("huge", 101))
    assert bench.pool.log()[-1]["action"] == "refuse"
    assert bench.ids() == {"idle"}


def test_a_limit_counts_what_models_may_grow_to(bench: Bench, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("WORKBENCH_MEMORY__LIMIT", "50MiB")
    get_settings.cache_clear()
    with bench.pool.acquire(bench.spec("a", 10, growth=20)):
        with pytest.raises(DoesNotFit, match="WORKBENCH_MEMORY__LIMIT"):
            bench.use(bench.spec("b", 25))
    bench.use(bench.spec("b", 25))  # idle, `a` has only its weights
    assert bench.ids() == {"a", "b"}


def test_memory_that_does_not_come_back_is_said_and_refused(bench: Bench):
    bench.use(bench.spec("a", 60))
    bench.leaks = 0
    good = bench.held

    class Leaky(dict[str, int]):
        def pop(self, key: str, default: object = None) -> object:  # type: ignore[override]
            bench.leaks += self[key] // 2
            return super().pop(key, default)

    bench.held = Leaky(good)
    with pytest.raises(DoesNotFit, match="a was freed in vain"):
        bench.use(bench.spec("b", 80))
    assert any("30.00 MiB of its memory did not come back" in r for r in bench.reasons("evict"))
    assert bench.actions("b") == ["replan", "refuse"]
    assert bench.ids() == set()


def test_another_process_takes_the_memory_after_the_plan(bench: Bench):
    bench.use(bench.spec("a", 60))

    class Taken(dict[str, int]):
        def pop(self, key: str, default: object = None) -> object:  # type: ignore[override]
            bench.others = 50 * MIB
            return super().pop(key, default)

    bench.held = Taken(bench.held)
    # the default no longer fits, but the next cheaper way does
    with bench.pool.acquire(bench.spec("b", 80, cheaper=40)):
        assert bench.pool.loaded()[0].options.compute_type == "int8"
    assert bench.actions("b") == ["replan", "load"]


# -- choosing how ----------------------------------------------------------------------------


def test_what_does_not_fit_is_loaded_in_a_cheaper_way_which_says_why(bench: Bench):
    with bench.pool.acquire(bench.spec("a", 120, cheaper=60)):
        row = bench.pool.loaded()[0]
    assert row.options.compute_type == "int8"
    assert "compute_type int8 instead of the default: a needs 120" in row.reason
    assert "instead of the default" in bench.reasons("load")[0]


def test_an_idle_model_is_freed_before_precision_is_given_up(bench: Bench):
    bench.use(bench.spec("other", 50))
    with bench.pool.acquire(bench.spec("a", 80, cheaper=40)):
        assert bench.pool.loaded()[0].options.compute_type is None
    assert bench.closed == ["other"]


def test_what_the_caller_fixed_stays(bench: Bench):
    spec = bench.spec("a", 120, cheaper=60)
    with pytest.raises(DoesNotFit):
        bench.use(spec, LoadOptions(compute_type="float32"))


def test_memory_that_runs_out_while_loading_is_tried_once_more_and_cheaper(bench: Bench):
    def fail(model_id: str) -> None:
        bench.on_load = lambda model_id: None
        raise MemoryError

    bench.on_load = fail
    with bench.pool.acquire(bench.spec("a", 60, cheaper=30)):
        row = bench.pool.loaded()[0]
    assert row.options.compute_type == "int8"
    assert "memory ran out with it" in row.reason
    assert bench.actions() == ["oom", "load"]


@pytest.mark.parametrize("cheaper", [None, 30])
def test_memory_that_always_runs_out_is_a_clear_refusal(bench: Bench, cheaper: int | None):
    calls: list[str] = []

    def fail(model_id: str) -> None:
        calls.append(model_id)
        raise MemoryError

    bench.on_load = fail
    with pytest.raises(DoesNotFit, match="ran out while loading a"):
        bench.use(bench.spec("a", 60, cheaper=cheaper))
    assert len(calls) == (1 if cheaper is None else 2)
    assert not bench.pool.loaded()
    bench.on_load = lambda model_id: None
    bench.use(bench.spec("a", 60, cheaper=cheaper))  # a later request may try again


@pytest.mark.parametrize("error", [MemoryError(), DoesNotFit("Memory ran out while drawing.")])
def test_after_memory_ran_out_in_a_request_the_next_one_is_cheaper(bench: Bench, error: Exception):
    spec = bench.spec("a", 60, cheaper=30)
    with pytest.raises(type(error)), bench.pool.acquire(spec):
        raise error
    assert bench.closed == ["a"]
    with bench.pool.acquire(spec):
        assert bench.pool.loaded()[0].options.compute_type == "int8"
    assert bench.actions("a") == ["load", "oom", "evict", "load"]


def test_a_refusal_of_another_model_is_no_fault_of_the_one_in_use(bench: Bench):
    with pytest.raises(DoesNotFit), bench.pool.acquire(bench.spec("a", 60)):
        bench.use(bench.spec("b", 60))
    assert bench.ids() == {"a"}
    assert "oom" not in bench.actions()


def test_a_model_that_takes_more_than_there_was_does_not_stay(bench: Bench):
    def grow(model_id: str) -> None:
        bench.leaks = 70 * MIB

    bench.on_load = grow
    with pytest.raises(DoesNotFit):
        bench.use(bench.spec("a", 60))
    assert bench.closed == ["a"]
    assert bench.actions() == ["oom", "refuse"]


# -- larger requests -------------------------------------------------------------------------


def test_a_larger_request_frees_others_before_it_runs(bench: Bench):
    bench.use(bench.spec("other", 40))
    spec = bench.spec("a", 20, growth=10)
    bench.use(spec)
    assert not bench.closed
    with bench.pool.acquire(spec, size=RequestSize(batch=5)):
        assert bench.closed == ["other"]
    assert bench.loads == ["other", "a"]


def test_a_request_that_is_too_large_for_a_loaded_model_is_refused(bench: Bench):
    spec = bench.spec("a", 20, growth=10)
    bench.use(spec)
    with pytest.raises(DoesNotFit, match="needs 120"):
        bench.use(spec, size=RequestSize(batch=10))
    assert bench.ids() == {"a"}
    bench.use(spec)


# -- keep-alive and pins ---------------------------------------------------------------------


def test_an_unused_model_goes_after_its_keep_alive(bench: Bench):
    bench.use(bench.spec("a", 10))
    bench.now = 599.9
    assert bench.pool.loaded()[0].expires_seconds == pytest.approx(0.1)
    bench.now = 600.0
    assert bench.ids() == set()
    assert bench.reasons("evict") == ["after 600 s without use"]
    bench.now = 610.0
    bench.use(bench.spec("a", 10))
    assert bench.reasons("load")[-1].startswith("again: it was freed 10.0 s ago after 600 s")


def test_no_keep_alive_frees_at_once_and_a_negative_one_never(bench: Bench):
    bench.use(bench.spec("a", 10), keep_alive_seconds=0)
    assert bench.closed == ["a"]
    bench.use(bench.spec("b", 10), keep_alive_seconds=-1)
    bench.now = 1e9
    assert bench.ids() == {"b"}


def test_the_thread_frees_without_anybody_asking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import time

    bench = Bench(tmp_path, monkeypatch, clock=time.monotonic)
    gone = threading.Event()
    note = bench.pool._journal.note
    monkeypatch.setattr(bench.pool._journal, "note", lambda *a: (note(*a), gone.set())[0])
    with bench.pool.acquire(bench.spec("a", 10), keep_alive_seconds=0.01):
        gone.clear()
    assert gone.wait(10)
    assert bench.closed == ["a"]


def test_a_pinned_model_stays(bench: Bench):
    bench.pool.pin("a")
    bench.use(bench.spec("a", 60), keep_alive_seconds=0)
    with pytest.raises(DoesNotFit):
        bench.use(bench.spec("b", 60))
    bench.now = 1e9
    assert [row.is_pinned for row in bench.pool.loaded()] == [True]
    bench.pool.unpin("a")
    assert bench.ids() == set()


def test_unload_frees_only_what_is_idle(bench: Bench):
    with bench.pool.acquire(bench.spec("a", 10)):
        bench.use(bench.spec("b", 10))
        assert bench.pool.unload() == ["b"]
        assert bench.pool.unload("a") == []
    assert bench.pool.unload("a") == ["a"]


def test_the_plan_counts_idle_models_as_free(bench: Bench):
    with bench.pool.acquire(bench.spec("a", 60)):
        assert not bench.pool.plan(bench.spec("b", 60)).fits
    assert bench.pool.plan(bench.spec("b", 60)).fits


# -- failing ---------------------------------------------------------------------------------


def test_a_failed_load_leaves_nothing_and_can_be_tried_again(bench: Bench):
    def fail(model_id: str) -> None:
        raise ProviderError("no")

    bench.use(bench.spec("idle", 60))
    spec = bench.spec("a", 60)
    bench.on_load = fail
    with pytest.raises(ProviderError):
        bench.use(spec)
    assert not bench.pool.loaded()
    assert "idle was freed in vain" in bench.reasons("refuse")[0]
    bench.on_load = lambda model_id: None
    with bench.pool.acquire(spec) as model:
        assert model.spec.id == "a"


def test_waiters_of_a_failed_load_meet_the_error_themselves(bench: Bench):
    def fail(model_id: str) -> None:
        raise ProviderError("no")

    bench.on_load = fail
    errors: list[Exception] = []

    def use() -> None:
        try:
            bench.use(bench.spec("a", 10))
        except ProviderError as error:
            errors.append(error)

    threads = [threading.Thread(target=use) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(errors) == 6
    assert not bench.pool.loaded()


def test_a_missing_file_is_said_before_loading(bench: Bench):
    bench.use(bench.spec("idle", 60))
    spec = bench.spec("a", 60)
    (bench.folder / "a.bin").unlink()
    with pytest.raises(ModelMissing):
        bench.use(spec)
    assert bench.ids() == {"idle"}


def test_engines_that_are_missing_are_named(monkeypatch: pytest.MonkeyPatch, write_model: Callable):
    engine = registry.Engine("gone", "gone", ("no_such_package",), ("chat",))
    monkeypatch.setitem(registry.ENGINES, "gone", engine)
    spec = workbench.models.get(write_model("m", engine="gone"))
    with pytest.raises(workbench.errors.EngineMissing, match="no_such_package"):
        with ModelPool().acquire(spec):
            pass
    with pytest.raises(workbench.errors.SettingsError, match="no engine 'other'"):
        registry.find_engine("other")


# -- accelerators ----------------------------------------------------------------------------


@pytest.fixture
def parkable(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Models on a device ``cuda:0`` that can wait in host memory; what they were told."""
    told: list[str] = []
    monkeypatch.setattr(StubModel, "park", lambda model: told.append("park"), raising=False)
    monkeypatch.setattr(StubModel, "unpark", lambda model: told.append("unpark"), raising=False)

    def used(name: str) -> int:
        return sum(bench.held[row.id] for row in bench.pool.loaded() if row.device == name)

    monkeypatch.setattr(
        bench.pool._accounts,
        "_device",
        lambda name: workbench.memory.devices.Device(name, 100 * MIB, 100 * MIB - used(name)),
    )
    return told


def test_an_accelerators_model_waits_in_host_memory_where_that_is_cheaper(
    bench: Bench, parkable: list[str]
):
    on_gpu = LoadOptions(device="cuda:0")
    bench.use(bench.spec("a", 60), on_gpu)
    for slot in bench.pool._accounts.slots.values():
        slot.load_seconds = 30.0
    bench.use(bench.spec("b", 60), on_gpu)
    assert parkable == ["park"]
    assert {row.id: row.device for row in bench.pool.loaded()} == {"a": "cpu", "b": "cuda:0"}
    assert bench.actions("a") == ["load", "park"]
    bench.use(bench.spec("a", 60), on_gpu)
    assert parkable[-1] == "unpark"
    assert bench.loads == ["a", "b"]


def test_a_quick_load_is_not_worth_host_memory(bench: Bench, parkable: list[str]):
    on_gpu = LoadOptions(device="cuda:0")
    for name in "ab":
        bench.use(bench.spec(name, 60), on_gpu)
        for slot in bench.pool._accounts.slots.values():
            slot.load_seconds = 0.0
    assert parkable == []
    assert bench.closed == ["a"]


# -- the pool of the process -----------------------------------------------------------------


def test_the_default_pool_is_one(stub_models: dict[str, str], own_pool: ModelPool):
    assert workbench.pool is own_pool is pool_module.default_pool()
    with workbench.pool.acquire(workbench.models.get(stub_models["chat"])) as model:
        assert isinstance(model, StubModel)


@pytest.mark.models
def test_memory_of_a_real_model_comes_back():
    from workbench.memory.devices import process_bytes

    pool = ModelPool()
    spec = workbench.models.get("whisper-tiny.en")
    with pool.acquire(spec):
        pass
    held = process_bytes()
    assert pool.unload() == [spec.id]
    assert process_bytes() < held - 20 * MIB


def test_stopping_while_waiting(bench: Bench):
    stop = threading.Event()
    errors: list[BaseException] = []

    def use() -> None:
        try:
            bench.use(bench.spec("b", 60), should_stop=stop.is_set)
        except Cancelled as error:
            errors.append(error)

    with bench.pool.acquire(bench.spec("a", 60)):
        thread = threading.Thread(target=use)
        thread.start()
        stop.set()
        thread.join(10)
    assert len(errors) == 1
