"""Devices: the numbers of the driver, the container's limit, torch's cache, who else is there."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from workbench.errors import UnknownOption
from workbench.memory import devices as module
from workbench.memory.devices import Device, budget, cpu_device, device, devices
from workbench.settings import get_settings

GIB = 2**30


class NVMLError(Exception):
    """As pynvml's."""


def nvml(gpus: int, *, works: bool = True, hides_processes: bool = False) -> ModuleType:
    """A module that answers like pynvml on a machine with ``gpus`` cards of 24 GiB."""
    fake = ModuleType("pynvml")

    def init() -> None:
        if not works:
            raise NVMLError("Driver Not Loaded")

    def processes(handle: int) -> list[SimpleNamespace]:
        if hides_processes:
            raise NVMLError("Not Supported")
        return [
            SimpleNamespace(pid=os.getpid(), usedGpuMemory=3 * GIB),
            SimpleNamespace(pid=1, usedGpuMemory=GIB),
            SimpleNamespace(pid=2**22 + 1, usedGpuMemory=2 * GIB),
            SimpleNamespace(pid=2**22 + 2, usedGpuMemory=None),
        ]

    functions: dict[str, Callable[..., object]] = {
        "nvmlInit": init,
        "nvmlDeviceGetCount": lambda: gpus,
        "nvmlDeviceGetHandleByIndex": lambda index: index,
        "nvmlDeviceGetMemoryInfo": lambda handle: SimpleNamespace(
            total=24 * GIB, free=(10 + handle) * GIB
        ),
        "nvmlDeviceGetName": lambda handle: f"Card {handle}",
        "nvmlDeviceGetUUID": lambda handle: f"GPU-{handle}{handle}{handle}",
        "nvmlDeviceGetComputeRunningProcesses": processes,
        "nvmlDeviceGetGraphicsRunningProcesses": lambda handle: [],
    }
    for name, function in functions.items():
        setattr(fake, name, function)
    fake.NVMLError = NVMLError  # type: ignore[attr-defined]
    return fake


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Put an NVML in place; torch is as if it were not loaded."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.delitem(sys.modules, "torch", raising=False)

    def install(gpus: int, **behaviour: bool) -> None:
        monkeypatch.setitem(sys.modules, "pynvml", nvml(gpus, **behaviour))
        module._nvml.cache_clear()

    yield install
    module._nvml.cache_clear()


def test_this_machine_has_a_cpu_with_processes():
    found = device("cpu")
    assert 0 < found.free_bytes <= found.total_bytes
    assert found.title
    assert found.process_bytes > 2**20
    assert os.getpid() not in {other.pid for other in found.others}
    sizes = [other.size_bytes for other in found.others]
    assert sizes == sorted(sizes, reverse=True)
    assert devices()[0].name == "cpu"


def test_the_real_driver_library_without_a_driver(driver: Callable[..., None]):
    """No fake here: where there is no driver, that is no error."""
    module._nvml.cache_clear()
    if Path("/proc/driver/nvidia").exists():
        pytest.skip("this machine has an NVIDIA driver")
    assert module._nvml() is None
    assert all(not found.name.startswith("cuda") for found in devices())


def test_gpus_as_the_driver_tells(driver: Callable[..., None]):
    driver(2)
    first = device("cuda:0")
    assert device("cuda") == first
    assert (first.total_bytes, first.free_bytes, first.title) == (24 * GIB, 10 * GIB, "Card 0")
    assert first.process_bytes == 3 * GIB
    assert [(o.pid, o.size_bytes) for o in first.others] == [
        (2**22 + 1, 2 * GIB),
        (1, GIB),
        (2**22 + 2, 0),
    ]
    assert first.others[0].name == "?"  # no such process here
    assert device("cuda:1").free_bytes == 11 * GIB


@pytest.mark.parametrize(
    ("visible", "titles"),
    [
        ("1,0", ["Card 1", "Card 0"]),
        ("GPU-22", ["Card 2"]),
        ("2,-1,0", ["Card 2"]),
        ("", []),
        ("7", []),
        ("GPU-", []),
    ],
)
def test_numbers_are_those_of_cuda(
    driver: Callable[..., None], monkeypatch: pytest.MonkeyPatch, visible: str, titles: list[str]
):
    driver(3)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert [found.title for found in devices() if found.name != "cpu"] == titles


def test_a_driver_that_hides_processes(driver: Callable[..., None]):
    driver(1, hides_processes=True)
    assert device("cuda:0").process_bytes == 0
    assert device("cuda:0").others == ()


def test_a_device_that_is_not_there_names_those_that_are(driver: Callable[..., None]):
    driver(1)
    with pytest.raises(UnknownOption, match=r"'cuda:1'.* cpu, cuda:0"):
        device("cuda:1")
    driver(1, works=False)
    with pytest.raises(UnknownOption, match=r"'cuda'.* cpu\."):
        device("cuda")


def torch_with(**parts: object) -> ModuleType:
    fake = ModuleType("torch")
    fake.backends = SimpleNamespace(mps=SimpleNamespace(is_available=lambda: False))  # type: ignore[attr-defined]
    fake.cuda = SimpleNamespace(is_initialized=lambda: False)  # type: ignore[attr-defined]
    for name, part in parts.items():
        setattr(fake, name, part)
    return fake


def test_what_torch_keeps_for_itself_is_free_for_us(
    driver: Callable[..., None], monkeypatch: pytest.MonkeyPatch
):
    driver(2)
    cuda = SimpleNamespace(
        is_initialized=lambda: True,
        device_count=lambda: 2,
        memory_reserved=lambda number: (2 - number) * GIB,
        memory_allocated=lambda number: GIB // 2,
    )
    monkeypatch.setitem(sys.modules, "torch", torch_with(cuda=cuda))
    found = device("cuda:0")
    assert found.cached_bytes == 3 * GIB // 2
    expected = found.free_bytes + found.cached_bytes - 512 * 2**20
    assert budget(found, 0).available_bytes == expected
    monkeypatch.setitem(sys.modules, "torch", torch_with())
    assert device("cuda:0").cached_bytes == 0  # torch is loaded, CUDA is not


def test_metal_shares_host_memory(driver: Callable[..., None], monkeypatch: pytest.MonkeyPatch):
    driver(0)
    mps = SimpleNamespace(
        recommended_max_memory=lambda: 2**50,
        driver_allocated_memory=lambda: 3 * GIB,
        current_allocated_memory=lambda: GIB,
    )
    backends = SimpleNamespace(mps=SimpleNamespace(is_available=lambda: True))
    monkeypatch.setitem(sys.modules, "torch", torch_with(mps=mps, backends=backends))
    found = device("mps")
    assert found.cached_bytes == 2 * GIB
    assert found.free_bytes <= cpu_device().total_bytes < found.total_bytes


def test_a_container_limit_counts_without_file_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    limit, used, statistics = (tmp_path / name for name in ("max", "current", "stat"))
    limit.write_text(str(GIB))
    used.write_text(str(GIB // 2))
    statistics.write_text(f"anon 1\ninactive_file {GIB // 4}\n")
    files = ((str(limit), str(used), str(statistics)),)
    monkeypatch.setattr(module, "_CGROUP_FILES", files)
    found = cpu_device()
    assert found.total_bytes == GIB
    assert found.free_bytes == GIB - GIB // 2 + GIB // 4
    statistics.unlink()
    assert cpu_device().free_bytes == GIB // 2
    limit.write_text("max")
    assert cpu_device().total_bytes > GIB


def test_the_budget_follows_headroom_and_limit(monkeypatch: pytest.MonkeyPatch):
    there = Device("cpu", 8 * GIB, 4 * GIB)
    monkeypatch.setenv("WORKBENCH_MEMORY__HEADROOM", "1GiB")
    get_settings.cache_clear()
    assert budget(there, 0).available_bytes == 3 * GIB
    monkeypatch.setenv("WORKBENCH_MEMORY__LIMIT", "2GiB")
    get_settings.cache_clear()
    assert budget(there, GIB).available_bytes == GIB
    assert "LIMIT" in budget(there, GIB).reason
