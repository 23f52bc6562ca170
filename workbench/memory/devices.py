"""How much memory there is, how much is free and who holds the rest, in bytes.

Everything is read anew at each call. Measures; decides nothing. Torch's counters are asked only
where torch is already loaded: this module imports no runtime.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from workbench.errors import UnknownOption
from workbench.settings import get_settings
from workbench.units import parse_bytes

#: limit, use, and the statistics that say how much of the use is file cache
_CGROUP_FILES = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current", "/sys/fs/cgroup/memory.stat"),
    (
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
        "/sys/fs/cgroup/memory/memory.usage_in_bytes",
        "/sys/fs/cgroup/memory/memory.stat",
    ),
)
_LARGEST_PROCESSES = 5


@dataclass(frozen=True)
class OtherProcess:
    """Another process that holds memory on a device."""

    pid: int
    name: str
    size_bytes: int


@dataclass(frozen=True)
class Device:
    """One place where a model can live.

    ``cached_bytes`` is what torch in this process has reserved there and does not use: it is not
    free for others, but it is for us. ``process_bytes`` is all that this process holds there.
    """

    name: str
    total_bytes: int
    free_bytes: int
    title: str = ""
    process_bytes: int = 0
    cached_bytes: int = 0
    others: tuple[OtherProcess, ...] = ()


@dataclass(frozen=True)
class Budget:
    """What the workbench may still take on a device, and why it is not more."""

    device: str
    available_bytes: int
    reason: str


def devices() -> list[Device]:
    """All devices of this machine, the CPU first."""
    return [_cpu_with_others(), *accelerators()]


def accelerators() -> list[Device]:
    """The devices that are not the CPU; none on most machines."""
    return [*_cuda_devices(), *_mps_devices()]


def device(name: str) -> Device:
    """The device called ``cpu``, ``cuda`` (the first), ``cuda:N`` or ``mps``.

    Raises UnknownOption naming the devices that are there.
    """
    if name == "cpu":
        return _cpu_with_others()
    wanted = "cuda:0" if name == "cuda" else name
    there = devices()
    for found in there:
        if found.name == wanted:
            return found
    names = ", ".join(found.name for found in there)
    raise UnknownOption(f"There is no device {name!r} here.", f"Use one of: {names}.")


def cpu_device() -> Device:
    """Host memory, or the container's limit where that is smaller. ``others`` is left empty."""
    import psutil

    memory = psutil.virtual_memory()
    total, free = memory.total, memory.available
    for limit_file, used_file, statistics_file in _CGROUP_FILES:
        try:
            limit = int(Path(limit_file).read_text())
            used = int(Path(used_file).read_text())
        except (OSError, ValueError):  # no such control group, or "max"
            continue
        if limit < total:
            used -= _inactive_file_bytes(Path(statistics_file))
            total, free = limit, min(free, max(0, limit - used))
    return Device("cpu", total, free, title=_cpu_title(), process_bytes=process_bytes())


def process_bytes() -> int:
    """Resident memory of this process (RSS)."""
    import psutil

    return int(psutil.Process().memory_info().rss)


def trim_process() -> None:
    """Give freed memory back to the system now.

    glibc keeps freed pages for later; after a model was freed they would count as ours for as
    long as the process runs. Elsewhere this does nothing.
    """
    import ctypes

    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, OSError, TypeError):  # not glibc
        return


def budget(device: Device, planned_bytes: int) -> Budget:
    """What may still be taken: free minus headroom, and limit minus what models hold already.

    Memory that torch holds for itself and does not use counts as free. ``planned_bytes`` is what
    the loaded models were planned to hold.
    """
    settings = get_settings().memory
    available = device.free_bytes + device.cached_bytes - parse_bytes(settings.headroom)
    reason = f"{settings.headroom} of the free memory is left to others"
    if settings.limit is not None and parse_bytes(settings.limit) - planned_bytes < available:
        available = parse_bytes(settings.limit) - planned_bytes
        reason = f"the limit WORKBENCH_MEMORY__LIMIT is {settings.limit}"
    return Budget(device.name, max(0, available), reason)


# -- the CPU ---------------------------------------------------------------------------------


def _cpu_with_others() -> Device:
    from dataclasses import replace

    return replace(cpu_device(), others=_largest_processes())


def _largest_processes() -> tuple[OtherProcess, ...]:
    """Other processes by resident memory, which counts shared pages in each of them."""
    import psutil

    sizes: list[tuple[int, int]] = []
    for process in psutil.process_iter(["memory_info"]):
        memory = process.info["memory_info"]  # None: not ours to ask
        if process.pid != os.getpid() and memory is not None:
            sizes.append((memory.rss, process.pid))
    largest = sorted(sizes, reverse=True)[:_LARGEST_PROCESSES]
    return tuple(OtherProcess(pid, _process_name(pid), size) for size, pid in largest)


def _inactive_file_bytes(statistics: Path) -> int:
    """File cache that the kernel gives up before it refuses memory; 0 where it is not known."""
    try:
        lines = statistics.read_text().splitlines()
    except OSError:
        return 0
    found = [int(line.split()[1]) for line in lines if line.startswith("inactive_file ")]
    return found[0] if found else 0


@lru_cache(maxsize=1)
def _cpu_title() -> str:
    """The processor's name, such as ``AMD EPYC``."""
    import platform

    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


# -- NVIDIA ----------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def _nvml() -> Any | None:
    """NVML, ready to be asked, or None on a machine without an NVIDIA driver."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None
    return pynvml


def _cuda_devices() -> Iterator[Device]:
    """GPUs under the numbers that CUDA gives them in this process."""
    nvml = _nvml()
    if nvml is None:
        return
    for number, handle in enumerate(_visible_handles(nvml)):
        memory = nvml.nvmlDeviceGetMemoryInfo(handle)
        mine, others = _gpu_processes(nvml, handle)
        yield Device(
            name=f"cuda:{number}",
            total_bytes=int(memory.total),
            free_bytes=int(memory.free),
            title=str(nvml.nvmlDeviceGetName(handle)),
            process_bytes=mine,
            cached_bytes=_torch_cached_bytes(number),
            others=others,
        )


def _visible_handles(nvml: Any) -> list[Any]:
    """What CUDA_VISIBLE_DEVICES leaves, in its order; as for CUDA, a wrong entry ends the list."""
    handles = [nvml.nvmlDeviceGetHandleByIndex(n) for n in range(nvml.nvmlDeviceGetCount())]
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return handles
    found = []
    for entry in (part.strip() for part in visible.split(",")):
        if entry.isdecimal() and int(entry) < len(handles):
            found.append(handles[int(entry)])
            continue
        named = [h for h in handles if entry and str(nvml.nvmlDeviceGetUUID(h)).startswith(entry)]
        if len(named) != 1:
            break
        found.append(named[0])
    return found


def _gpu_processes(nvml: Any, handle: Any) -> tuple[int, tuple[OtherProcess, ...]]:
    """What this process holds there, and what each other one does, largest first.

    A driver that does not tell (some containers, Windows) gives no bytes; such processes count
    as 0, and so do those of other containers that it does not show.
    """
    running: dict[int, int] = {}
    for ask in (
        nvml.nvmlDeviceGetComputeRunningProcesses,
        nvml.nvmlDeviceGetGraphicsRunningProcesses,
    ):
        try:
            running |= {int(p.pid): int(p.usedGpuMemory or 0) for p in ask(handle)}
        except nvml.NVMLError:  # not supported by this GPU
            continue
    mine = running.pop(os.getpid(), 0)
    others = [OtherProcess(pid, _process_name(pid), size) for pid, size in running.items()]
    return mine, tuple(sorted(others, key=lambda other: -other.size_bytes))


def _process_name(pid: int) -> str:
    import psutil

    try:
        return str(psutil.Process(pid).name())
    except psutil.Error:  # of another container, or gone
        return "?"


def _torch_cached_bytes(number: int) -> int:
    """What torch has reserved on a GPU and does not use; 0 where torch has not touched it."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized() or number >= torch.cuda.device_count():
        return 0
    return int(torch.cuda.memory_reserved(number) - torch.cuda.memory_allocated(number))


# -- Apple -----------------------------------------------------------------------------------


def _mps_devices() -> Iterator[Device]:
    """Metal, which shares host memory; only torch knows what it may take of it."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.backends.mps.is_available():
        return
    total, held = torch.mps.recommended_max_memory(), torch.mps.driver_allocated_memory()
    yield Device(
        name="mps",
        total_bytes=int(total),
        free_bytes=int(max(0, min(total - held, cpu_device().free_bytes))),
        title="Apple GPU",
        process_bytes=int(held),
        cached_bytes=int(held - torch.mps.current_allocated_memory()),
    )
