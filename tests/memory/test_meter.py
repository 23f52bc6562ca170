"""The meter sees what a block really took."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from workbench.memory import meter
from workbench.memory.meter import PeakMemory

MIB = 2**20


def take(mib: int) -> None:
    """Touch so many MiB, then give them back."""
    np.ones(mib * MIB, dtype=np.uint8).sum()


def test_a_short_peak_is_seen():
    with PeakMemory() as peak:
        take(200)
    assert peak.peak_bytes - peak.start_bytes == pytest.approx(200 * MIB, rel=0.1)


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


def test_elsewhere_it_samples(monkeypatch: pytest.MonkeyPatch, tmp_path):
    monkeypatch.setattr(meter, "_RESET", tmp_path / "no" / "such")
    with PeakMemory() as peak:
        held = np.ones(200 * MIB, dtype=np.uint8)
        assert peak.method == "sampled RSS"
    assert peak.peak_bytes - peak.start_bytes >= 180 * MIB
    assert held.size
