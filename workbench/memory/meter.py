"""The peak of this process's memory while something runs, exactly where the kernel counts it.

Linux keeps the high-water mark of resident memory (``VmHWM``) and lets a process reset its own
(``/proc/self/clear_refs``), so nothing has to be sampled there. Elsewhere a thread samples RSS
every 20 ms, which can miss a short peak; `PeakMemory.method` says which one was used.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import ClassVar

from workbench.memory.devices import process_bytes

_SAMPLE_SECONDS = 0.02
_STATUS = Path("/proc/self/status")
_RESET = Path("/proc/self/clear_refs")


class PeakMemory:
    """``with PeakMemory() as peak: ...`` then ``peak.peak_bytes`` (RSS of this process).

    Meters may overlap, in one thread or in several: each sees the peak of its own span.
    """

    _lock = threading.Lock()
    _running: ClassVar[list[PeakMemory]] = []

    def __init__(self) -> None:
        self.start_bytes = 0
        self.peak_bytes = 0
        self.method = "VmHWM"
        self._stop = threading.Event()

    def __enter__(self) -> PeakMemory:
        self.start_bytes = process_bytes()
        self.peak_bytes = self.start_bytes
        with self._lock:
            _share_mark(self._running)
            try:
                _RESET.write_text("5")
            except OSError:
                self.method = "sampled RSS"
            self._running.append(self)
        if self.method != "VmHWM":
            threading.Thread(target=self._sample, daemon=True).start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        with self._lock:
            _share_mark(self._running)
            self._running.remove(self)
        self._stop.set()
        self.peak_bytes = max(self.peak_bytes, process_bytes())

    def _sample(self) -> None:
        while not self._stop.wait(_SAMPLE_SECONDS):
            self.peak_bytes = max(self.peak_bytes, process_bytes())


def _share_mark(running: list[PeakMemory]) -> None:
    """Give the kernel's mark to every running meter before somebody resets it."""
    mark = _high_water_bytes()
    for meter in running:
        if meter.method == "VmHWM":
            meter.peak_bytes = max(meter.peak_bytes, mark)


def _high_water_bytes() -> int:
    try:
        for line in _STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0
