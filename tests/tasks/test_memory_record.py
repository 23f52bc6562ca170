"""Each run has its predicted next to its measured memory; only clean ones teach."""

from __future__ import annotations

import statistics
import threading
import time
import warnings
from dataclasses import replace
from pathlib import Path

import pytest

import workbench as wb
from workbench.engines.pool import ModelPool
from workbench.engines.slots import Lease
from workbench.lab.track import memory_metrics
from workbench.memory.history import History
from workbench.memory.meter import PeakMemory
from workbench.memory.plan import MemoryPlan
from workbench.memory.request import LoadOptions, RequestSize
from workbench.memory.terms import Estimate, Phase, exact
from workbench.models import get
from workbench.settings import get_settings
from workbench.tasks.memory import MemoryRecord, compare, observation
from workbench.tasks.record import Recorder

MIB = 2**20
MODEL = "smollm2-135m"


@pytest.fixture
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A WORKBENCH_HOME with the user's models and a history of its own."""
    models = get_settings().home / "models"
    home = tmp_path / "own"
    home.mkdir()
    (home / "models").symlink_to(models)
    monkeypatch.setenv("WORKBENCH_HOME", str(home))
    get_settings.cache_clear()
    return home


@pytest.mark.models
@pytest.mark.usefixtures("own_home")
def test_the_run_that_loads_teaches_and_the_next_does_not(own_pool: ModelPool):
    first = wb.chat("Say hello.", model=MODEL, max_tokens=4).record.memory
    second = wb.chat("Say hello!", model=MODEL, max_tokens=4).record.memory
    own_pool.unload()
    assert first is not None and second is not None
    assert first.is_clean and not second.is_clean
    # 100 MB of weights, and what belongs to them
    assert 100 * MIB < first.measured_bytes < 400 * MIB
    assert first.measured_bytes == pytest.approx(first.predicted_bytes, rel=0.5)
    assert set(first.phases) >= {"load", "prefill", "decode"}
    assert max(first.phases.values()) == first.measured_bytes
    assert second.predicted_bytes < first.predicted_bytes / 2
    assert "weights" in first.terms and "weights" not in second.terms
    (row,) = History().observations()
    assert row.model == MODEL
    assert row.measured_bytes - row.terms["context"] == first.measured_bytes
    third = wb.chat("Say hello.", model=MODEL, max_tokens=4).record.memory
    assert third is not None and third.learned_n == 1


@pytest.mark.models
@pytest.mark.usefixtures("own_home")
def test_a_run_beside_another_does_not_teach(own_pool: ModelPool):
    with Recorder("chat", get(MODEL), {}):
        found = wb.chat("Say hello.", model=MODEL, max_tokens=2).record.memory
    own_pool.unload()
    assert found is not None and not found.is_clean
    assert History().observations() == []


@pytest.mark.models
@pytest.mark.usefixtures("own_home")
def test_a_history_that_cannot_be_written_costs_no_result(own_pool: ModelPool, own_home: Path):
    (own_home / "memory.db").mkdir()
    with pytest.warns(RuntimeWarning, match="memory history"):
        reply = wb.chat("Say hello.", model=MODEL, max_tokens=2)
    own_pool.unload()
    assert reply.record.memory is not None and reply.record.memory.is_clean


def test_a_stub_has_no_plan_and_no_memory_record(stub_models: dict[str, str]):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        record = wb.chat("hello", model=stub_models["chat"]).record
    assert record.memory is None
    assert memory_metrics(record.memory) == {}


def a_plan() -> MemoryPlan:
    """400 MiB: libraries 100, weights 200, and 60 or 100 more in one of two phases."""
    estimate = Estimate(
        family="test",
        resident=(exact("context", 100 * MIB, "?"), exact("weights", 200 * MIB, "?")),
        phases=(
            Phase(name="encode", terms=(exact("activations", 60 * MIB, "?"),)),
            Phase(name="decode", terms=(exact("activations", 100 * MIB, "?"),)),
        ),
    )
    return MemoryPlan.model_construct(
        model="a-model",
        task="speech",
        engine="ctranslate2",
        family="test",
        terms=(*estimate.resident, *estimate.binding_phase.terms),
        options=LoadOptions(compute_type="int8"),
        size=RequestSize(audio_seconds=3.0),
        upper_bytes=estimate.upper_bytes + 50 * MIB,  # that of a phase which is rarely met
        estimate=estimate,
    )


def a_meter() -> PeakMemory:
    meter = PeakMemory()
    meter.start_bytes = 500 * MIB
    meter._high["process_bytes"] = 950 * MIB
    return meter


def test_a_cold_run_is_judged_by_what_the_model_added():
    lease = Lease(a_plan(), baseline_bytes=640 * MIB, load_started=5.0, others_busy=False)
    found = compare(lease, a_meter(), started=1.0, alone=True)
    assert found is not None and found.is_clean
    assert found.predicted_bytes == 300 * MIB
    assert found.upper_bytes == 350 * MIB
    assert found.measured_bytes == 310 * MIB
    assert found.terms == {"weights": 200 * MIB, "activations": 100 * MIB}
    row = observation(found, a_plan(), {"engine": "1"})
    assert row.measured_bytes == 410 * MIB and row.predicted_bytes == 400 * MIB
    assert row.options == {"compute_type": "int8"} and row.size == {"audio_seconds": 3.0}
    assert row.device == "cpu"


def test_a_warm_run_is_judged_by_its_growth():
    lease = Lease(a_plan(), baseline_bytes=640 * MIB, load_started=0.5, others_busy=False)
    found = compare(lease, a_meter(), started=1.0, alone=True)
    assert found is not None and not found.is_clean
    assert found.predicted_bytes == 100 * MIB
    assert found.upper_bytes == 150 * MIB
    assert found.measured_bytes == 450 * MIB
    assert found.error_ratio == pytest.approx(100 / 450 - 1)


@pytest.mark.parametrize("why", ["company", "busy", "size"])
def test_what_is_not_clean(why: str):
    plan = a_plan()
    if why == "size":
        plan = plan.model_copy(update={"size": replace(plan.size, audio_seconds=None)})
    lease = Lease(plan, baseline_bytes=640 * MIB, load_started=5.0, others_busy=why == "busy")
    found = compare(lease, a_meter(), started=1.0, alone=why != "company")
    assert found is not None and not found.is_clean


def test_a_model_in_its_own_process_is_not_judged_by_this_one():
    lease = Lease(a_plan(), baseline_bytes=None, load_started=5.0, others_busy=False)
    assert compare(lease, a_meter(), started=1.0, alone=True) is None


def test_the_metrics_of_a_tracked_run():
    record = MemoryRecord(
        predicted_bytes=110, upper_bytes=130, measured_bytes=100, baseline_bytes=7, method="VmHWM"
    )
    metrics = memory_metrics(record)
    assert metrics["predicted_memory_bytes"] == 110
    assert metrics["measured_memory_bytes"] == 100
    assert metrics["memory_error_ratio"] == pytest.approx(0.1)


def test_recording_takes_at_most_a_millisecond(home: Path):
    """Process time, so that a busy machine is no failure: meter, comparison and the row."""
    lease = Lease(a_plan(), baseline_bytes=0, load_started=time.perf_counter(), others_busy=False)
    spent = []
    for _ in range(20):
        began = time.thread_time()
        with PeakMemory() as meter:
            pass
        found = compare(lease, meter, started=0.0, alone=True)
        assert found is not None
        History().add(observation(found, a_plan(), {}))
        spent.append(time.thread_time() - began)
    assert statistics.median(spent) <= 0.001


def test_two_recorders_in_two_threads_know_of_each_other():
    other_is_in, done = threading.Event(), threading.Event()

    def other() -> None:
        with Recorder("chat", get(MODEL), {}):
            other_is_in.set()
            done.wait(30)

    thread = threading.Thread(target=other)
    with Recorder("chat", get(MODEL), {}) as mine:
        thread.start()
        other_is_in.wait(30)
    done.set()
    thread.join()
    assert not mine._alone
    with Recorder("chat", get(MODEL), {}) as later:
        pass
    assert later._alone
