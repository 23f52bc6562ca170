"""The peak of this process's memory while something runs, per phase, exactly where it is counted.

Linux keeps the high-water mark of resident memory (``VmHWM``) and lets a process reset its own
(``/proc/self/clear_refs``); torch keeps marks of its CUDA allocator. Nothing is sampled for them.
What nobody marks is read by one thread that sleeps in between: RSS outside Linux, and with CUDA
what the driver gave to this process (CTranslate2, llama.cpp and the CUDA context are invisible to
torch). Sampling can miss a short peak; `PeakMemory.method` says which way was used.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar

from workbench.memory import counters
from workbench.memory.devices import process_bytes

_SAMPLE_SECONDS = 0.02
#: The sampler rests at least so many times as long as one reading took: 0.5 % of a core.
_REST_RATIO = 200


@dataclass(frozen=True)
class MemoryPeaks:
    """Highest values of one span, in bytes.

    ``process_bytes`` is resident host memory. The others are None without CUDA: what torch's
    allocator handed out, what it reserved, and what the driver counts for this process.
    """

    process_bytes: int
    allocated_bytes: int | None = None
    reserved_bytes: int | None = None
    device_bytes: int | None = None

    def to_dict(self) -> dict[str, int]:
        """The values that are known."""
        return {name: value for name, value in vars(self).items() if value is not None}

    def highest(self, other: MemoryPeaks | None) -> MemoryPeaks:
        """The higher of both, value by value."""
        both = {} if other is None else other.to_dict()
        for name, value in self.to_dict().items():
            both[name] = max(value, both.get(name, 0))
        return MemoryPeaks(**both)


class PeakMemory:
    """``with PeakMemory() as peak: ...`` then ``peak.peak_bytes`` (RSS of this process).

    Meters may overlap, in one thread or in several: each sees the peak of its own span.
    ``phases`` has the peaks of the stretches that `phase` and `mark` name.
    """

    _lock = threading.Lock()
    _running: ClassVar[list[PeakMemory]] = []
    _stop_sampling: ClassVar[threading.Event | None] = None

    def __init__(self) -> None:
        self.start_bytes = 0
        self.end_bytes = 0
        self.method = "VmHWM"
        self.phases: dict[str, MemoryPeaks] = {}
        self._high: dict[str, int] = {}
        self._marked: tuple[str, PeakMemory] | None = None

    @property
    def peak_bytes(self) -> int:
        """Highest resident memory so far; of the whole span when it has ended."""
        return self._high.get("process_bytes", 0)

    @property
    def peaks(self) -> MemoryPeaks:
        """Highest values of all that is counted."""
        return MemoryPeaks(**{"process_bytes": 0, **self._high})

    def __enter__(self) -> PeakMemory:
        with self._lock:
            self._share_marks()  # before somebody resets them
            if not counters.reset_marks():
                self.method = "sampled RSS"
            now = counters.read_now()
            self.start_bytes = now["process_bytes"]
            self._take(now)
            self._running.append(self)
            self._start_or_stop_sampler()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.mark(None)
        with self._lock:
            self._share_marks()
            now = counters.read_now()
            self.end_bytes = now["process_bytes"]
            self._take(now)
            self._running.remove(self)
            self._start_or_stop_sampler()

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Measure the block as phase ``name``; the highest counts where a name comes again."""
        inner = PeakMemory()
        try:
            with inner:
                yield
        finally:
            self._keep(name, inner)

    def mark(self, name: str | None) -> None:
        """From here on it is phase ``name``, until the next mark or the end of the meter."""
        if self._marked is not None:
            (last, inner), self._marked = self._marked, None
            inner.__exit__(None, None, None)
            self._keep(last, inner)
        if name is not None:
            self._marked = (name, PeakMemory().__enter__())

    def _keep(self, name: str, inner: PeakMemory) -> None:
        self.phases[name] = inner.peaks.highest(self.phases.get(name))

    def _take(self, values: dict[str, int]) -> None:
        for name, value in values.items():
            self._high[name] = max(value, self._high.get(name, 0))

    @classmethod
    def _share_marks(cls) -> None:
        """Give the marks to every running meter that can use them."""
        marks = counters.read_marks() if cls._running else {}
        for meter in cls._running:
            # a mark that could not be reset may be older than the meter
            own = meter.method == "VmHWM"
            meter._take({k: v for k, v in marks.items() if own or k != "process_bytes"})

    @classmethod
    def _start_or_stop_sampler(cls) -> None:
        """One thread while a running meter needs it; none otherwise. Under the lock."""
        needs_samples = any(meter.method != "VmHWM" for meter in cls._running) or (
            bool(cls._running) and counters.has_cuda()
        )
        if needs_samples and cls._stop_sampling is None:
            cls._stop_sampling = threading.Event()
            threading.Thread(
                target=cls._sample, args=(cls._stop_sampling,), name="memory-meter", daemon=True
            ).start()
        elif not cls._running and cls._stop_sampling is not None:
            cls._stop_sampling.set()
            cls._stop_sampling = None

    @classmethod
    def _sample(cls, stop: threading.Event) -> None:
        pause_seconds = _SAMPLE_SECONDS
        while not stop.wait(pause_seconds):
            began = time.thread_time()
            values = {"process_bytes": process_bytes()}
            device = counters.nvml_process_bytes() if counters.has_cuda() else None
            if device is not None:
                values["device_bytes"] = device
            with cls._lock:
                for meter in cls._running:
                    meter._take(values)
            spent = time.thread_time() - began
            pause_seconds = max(_SAMPLE_SECONDS, _REST_RATIO * spent)
