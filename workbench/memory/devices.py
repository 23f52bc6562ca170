"""How much memory there is and how much is free, in bytes. Measures; decides nothing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from workbench.settings import get_settings
from workbench.units import parse_bytes

_CGROUP_LIMITS = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    (
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
        "/sys/fs/cgroup/memory/memory.usage_in_bytes",
    ),
)


@dataclass(frozen=True)
class Device:
    """One place where a model can live."""

    name: str
    total_bytes: int
    free_bytes: int


@dataclass(frozen=True)
class Budget:
    """What the workbench may still take on a device, and why it is not more."""

    device: str
    available_bytes: int
    reason: str


def cpu_device() -> Device:
    """Host memory, or the container's limit where that is smaller."""
    import psutil

    memory = psutil.virtual_memory()
    total, free = memory.total, memory.available
    for limit_file, used_file in _CGROUP_LIMITS:
        try:
            limit = int(Path(limit_file).read_text())
            used = int(Path(used_file).read_text())
        except (OSError, ValueError):  # no such control group, or "max"
            continue
        if limit < total:
            total, free = limit, min(free, max(0, limit - used))
    return Device("cpu", total, free)


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

    ``planned_bytes`` is what the loaded models were planned to hold.
    """
    settings = get_settings().memory
    available = device.free_bytes - parse_bytes(settings.headroom)
    reason = f"{settings.headroom} of the free memory is left to others"
    if settings.limit is not None and parse_bytes(settings.limit) - planned_bytes < available:
        available = parse_bytes(settings.limit) - planned_bytes
        reason = f"the limit WORKBENCH_MEMORY__LIMIT is {settings.limit}"
    return Budget(device.name, max(0, available), reason)
