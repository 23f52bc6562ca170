"""Who counts this process's memory: the kernel, torch's allocator, the GPU driver. Bytes, read
once; `workbench.memory.meter` makes peaks of them.

A *marked* counter keeps its own highest value and can be reset; the others have to be sampled.
"""

from __future__ import annotations

import os
import sys
from functools import lru_cache
from pathlib import Path
from typing import Any

from workbench.memory.devices import process_bytes

_STATUS = Path("/proc/self/status")
_RESET = Path("/proc/self/clear_refs")
_ROLLUP = Path("/proc/self/smaps_rollup")


def reset_marks() -> bool:
    """Let the marks of the kernel and of torch begin anew; whether the kernel has one."""
    torch = _torch()
    if torch is not None:
        torch.cuda.reset_peak_memory_stats()
    try:
        _RESET.write_text("5")
    except OSError:  # not Linux, or not allowed in this container
        return False
    return True


def read_marks() -> dict[str, int]:
    """Highest values since the last reset, of what keeps a mark."""
    marks = {}
    resident = _status_bytes("VmHWM:")
    if resident is not None:
        marks["process_bytes"] = resident
    torch = _torch()
    if torch is not None:
        marks["allocated_bytes"] = int(torch.cuda.max_memory_allocated())
        marks["reserved_bytes"] = int(torch.cuda.max_memory_reserved())
    return marks


def read_now(*, with_device: bool = True) -> dict[str, int]:
    """Present values of everything; the driver's only ``with_device``, as it is dear to ask."""
    now = {"process_bytes": process_bytes()}
    torch = _torch()
    if torch is not None:
        now["allocated_bytes"] = int(torch.cuda.memory_allocated())
        now["reserved_bytes"] = int(torch.cuda.memory_reserved())
        device = nvml_process_bytes() if with_device else None
        if device is not None:
            now["device_bytes"] = device
    return now


def has_cuda() -> bool:
    """Whether this process has a CUDA context that torch made. Never makes one."""
    return _torch() is not None


def nvml_process_bytes() -> int | None:
    """Bytes on all GPUs that the driver counts for this process; None where it does not say.

    Containers with their own process numbers and some virtual GPUs do not say.
    """
    nvml = _nvml()
    if nvml is None:
        return None
    total = 0
    try:
        for index in range(nvml.nvmlDeviceGetCount()):
            handle = nvml.nvmlDeviceGetHandleByIndex(index)
            for process in nvml.nvmlDeviceGetComputeRunningProcesses(handle):
                if process.pid == os.getpid():
                    total += process.usedGpuMemory or 0
    except nvml.NVMLError:
        return None
    return total or None


def pss_bytes() -> int | None:
    """Resident memory with shared pages divided among those who share them (PSS).

    The kernel walks all page tables for it (milliseconds a GB), so nothing here reads it by
    itself. None outside Linux.
    """
    try:
        for line in _ROLLUP.read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return None


# -- inside ----------------------------------------------------------------------------------


def _status_bytes(name: str) -> int | None:
    try:
        for line in _STATUS.read_text().splitlines():
            if line.startswith(name):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return None


def _torch() -> Any:
    """torch, where the program has imported it and made a CUDA context; else None."""
    torch = sys.modules.get("torch")
    cuda = getattr(torch, "cuda", None)  # None while torch is still being imported
    return torch if cuda is not None and cuda.is_initialized() else None


@lru_cache(maxsize=1)
def _nvml() -> Any:
    """NVML, ready to be asked, or None on a machine without an NVIDIA driver."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None
    return pynvml
