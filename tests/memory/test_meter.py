"""The meter sees what a block really took."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from workbench.memory import counters, meter
from workbench.memory.meter import MemoryPeaks, PeakMemory

MIB = 2**20


def take(mib: int) -> None:
    """Touch so many MiB, then give them back."""
    np.ones(mib * MIB, dtype=np.uint8).sum()


def test_a_short_peak_is_seen():
    with PeakMemory() as peak:
        take(200)
    assert peak.peak_bytes - peak.start_bytes == pytest.approx(200 * MIB, rel=0.1)
    assert peak.end_bytes < peak.peak_bytes - 150 * MIB


def test_an_earlier_peak_is_not_counted():
    take(300)
    with PeakMemory() as peak:
        take(50)
    assert peak.peak_bytes - peak.start_bytes < 100 * MIB


def test_an_inner_meter_does_not_hide_the_peak_of_an_outer_one():
    with PeakMemory() as outer:
        take(300)
        with PeakMemory() as inner:
            take(50)
    assert outer.peak_bytes - outer.start_bytes >= 270 * MIB
    assert inner.peak_bytes - inner.start_bytes < 100 * MIB


def test_overlapping_threads_both_see_a_common_peak():
    both_inside, finished = threading.Barrier(2), threading.Barrier(2)
    peaks = []

    def work(mib: int) -> None:
        with PeakMemory() as peak:
            both_inside.wait()
            take(mib)
            finished.wait()
        peaks.append(peak.peak_bytes - peak.start_bytes)

    threads = [threading.Thread(target=work, args=(mib,)) for mib in (200, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert min(peaks) >= 180 * MIB


def test_each_phase_has_its_own_peak():
    with PeakMemory() as peak:
        with peak.phase("load"):
            take(50)
        with peak.phase("denoise"):
            take(300)
        with peak.phase("load"):  # again, smaller
            take(20)
    base = peak.start_bytes
    assert 40 * MIB < peak.phases["load"].process_bytes - base < 100 * MIB
    assert peak.phases["denoise"].process_bytes - base >= 270 * MIB
    assert peak.peak_bytes >= peak.phases["denoise"].process_bytes


def test_marks_divide_a_span_into_phases():
    with PeakMemory() as peak:
        peak.mark("prefill")
        take(200)
        peak.mark("decode")
        take(20)
    assert list(peak.phases) == ["prefill", "decode"]
    difference = peak.phases["prefill"].process_bytes - peak.phases["decode"].process_bytes
    assert difference >= 150 * MIB


def test_a_phase_that_fails_is_measured_too():
    with PeakMemory() as peak:
        with pytest.raises(ValueError):
            with peak.phase("load"):
                take(200)
                raise ValueError
    assert peak.phases["load"].process_bytes - peak.start_bytes >= 180 * MIB


def test_no_meter_is_left_running():
    with PeakMemory() as peak:
        peak.mark("load")
    assert PeakMemory._running == []
    assert PeakMemory._stop_sampling is None


@pytest.fixture
def no_mark(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    """A system whose kernel keeps no mark."""
    monkeypatch.setattr(counters, "_RESET", tmp_path / "no" / "such")


@pytest.mark.usefixtures("no_mark")
def test_elsewhere_it_samples():
    with PeakMemory() as peak:
        held = np.ones(200 * MIB, dtype=np.uint8)
        assert peak.method == "sampled RSS"
    assert peak.peak_bytes - peak.start_bytes >= 180 * MIB
    assert held.size


@pytest.mark.usefixtures("no_mark")
def test_the_sampler_sees_what_came_and_went():
    seen = threading.Event()
    with PeakMemory() as peak:
        held = np.ones(200 * MIB, dtype=np.uint8)
        wanted = peak.start_bytes + 180 * MIB
        deadline = time.monotonic() + 60
        while peak.peak_bytes < wanted and time.monotonic() < deadline:
            seen.wait(0.01)
        del held
    assert peak.peak_bytes >= wanted


@pytest.mark.usefixtures("no_mark")
def test_the_sampler_takes_at_most_one_percent_of_a_core():
    asleep = threading.Event()
    with PeakMemory():
        asleep.wait(0.2)  # the thread is there and has its first reading behind it
        began, used = time.monotonic(), time.process_time()
        asleep.wait(3)
        share = (time.process_time() - used) / (time.monotonic() - began)
    assert share <= 0.01


def test_without_cuda_only_the_process_is_known():
    with PeakMemory() as peak:
        pass
    if counters.has_cuda():
        pytest.skip("there is a CUDA context")
    assert peak.peaks.to_dict() == {"process_bytes": peak.peak_bytes}


def test_the_higher_of_two_peaks_value_by_value():
    first, second = MemoryPeaks(10, allocated_bytes=5), MemoryPeaks(7, allocated_bytes=9)
    assert first.highest(second) == MemoryPeaks(10, allocated_bytes=9)
    assert first.highest(None) == first


def test_shared_pages_count_in_parts():
    shared = counters.pss_bytes()
    if shared is None:
        pytest.skip("no smaps_rollup here")
    assert 0 < shared <= meter.process_bytes() * 1.05
