"""What only a GPU can show about memory. Skipped without one; one command measures all of it:
``python benchmarks/memory_measure.py --device cuda`` (see ``benchmarks/memory/README.md``)."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any

import pytest

from workbench.memory import counters, devices
from workbench.memory.meter import PeakMemory
from workbench.notebook import watch_memory

MIB = 2**20


@pytest.fixture
def torch() -> Iterator[Any]:
    if not any(device.name.startswith("cuda") for device in devices.devices()):
        pytest.skip("no NVIDIA GPU here")
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("this torch has no CUDA")
    torch.cuda.init()
    gc.collect()
    torch.cuda.empty_cache()
    yield torch
    gc.collect()
    torch.cuda.empty_cache()


def test_a_short_peak_of_the_allocator_is_exact(torch: Any):
    with PeakMemory() as peak:
        before = torch.cuda.memory_allocated()
        held = torch.empty(256 * MIB, dtype=torch.uint8, device="cuda")
        del held
    assert peak.peaks.allocated_bytes == before + 256 * MIB
    assert peak.peaks.reserved_bytes is not None
    assert peak.peaks.reserved_bytes >= peak.peaks.allocated_bytes


def test_phases_have_their_own_peaks_on_the_gpu(torch: Any):
    with PeakMemory() as peak:
        peak.mark("large")
        held = torch.empty(256 * MIB, dtype=torch.uint8, device="cuda")
        del held
        peak.mark("small")
        held = torch.empty(16 * MIB, dtype=torch.uint8, device="cuda")
        del held
    large, small = (peak.phases[name].allocated_bytes for name in ("large", "small"))
    assert large is not None and small is not None
    assert large - small == 240 * MIB


def test_the_driver_counts_more_than_torch(torch: Any):
    held = torch.empty(64 * MIB, dtype=torch.uint8, device="cuda")
    counted = counters.nvml_process_bytes()
    if counted is None:
        pytest.skip("the driver does not count per process here")
    # the CUDA context is the driver's, not torch's
    assert counted > torch.cuda.memory_reserved() >= held.numel()


def test_a_failed_block_gives_the_card_back(torch: Any):
    def fail() -> None:
        held = torch.empty(256 * MIB, dtype=torch.uint8, device="cuda")
        raise RuntimeError(str(held.numel()))

    before = torch.cuda.memory_reserved()
    with pytest.raises(RuntimeError), watch_memory(show=False):
        fail()
    assert torch.cuda.memory_reserved() <= before
