"""The record that reproduces a result, and the hook by which a tracker hears of it.

Tasks do not know MLflow: they hand every finished `Record` to the observers of the current
context, outside all timed regions. `workbench.lab.track` is such an observer.
"""

from __future__ import annotations

import platform
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import metadata
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from workbench.engines.pool import default_pool
from workbench.engines.slots import Lease
from workbench.errors import WorkbenchError
from workbench.memory.history import History
from workbench.memory.meter import PeakMemory
from workbench.models import sources
from workbench.models.spec import ModelSpec
from workbench.tasks.memory import MemoryRecord, compare, observation

_LIBRARIES = (
    "torch",
    "transformers",
    "diffusers",
    "ctranslate2",
    "faster-whisper",
    "xllamacpp",
    "duckdb",
    "sqlglot",
    "numpy",
)
#: Whose versions change how much memory an engine takes.
_LIBRARIES_OF = {
    "llama_cpp": ("xllamacpp",),
    "ctranslate2": ("ctranslate2", "faster-whisper"),
    "transformers": ("torch", "transformers"),
    "diffusers": ("torch", "transformers", "diffusers"),
}


class Record(BaseModel):
    """Everything needed to run a request again, and what it cost."""

    model_config = ConfigDict(extra="forbid")

    task: str
    model: str
    engine: str
    model_sha256: str | None
    request: dict[str, Any]
    phase_seconds: dict[str, float] = Field(default_factory=dict)
    metrics: dict[str, float] = Field(default_factory=dict)
    quality: dict[str, float] = Field(default_factory=dict)
    peak_bytes: int = 0
    peak_method: str = ""
    memory: MemoryRecord | None = None
    environment: dict[str, str] = Field(default_factory=dict)
    error: str | None = None


Observer = Callable[[Record], None]
_observers: ContextVar[tuple[Observer, ...]] = ContextVar("observers", default=())


@contextmanager
def observe(observer: Observer) -> Iterator[None]:
    """Hand every record finished inside the block to ``observer``."""
    token = _observers.set((*_observers.get(), observer))
    try:
        yield
    finally:
        _observers.reset(token)


#: Runs of this process that are under way: one that had company does not teach.
_running: list[Recorder] = []
_running_lock = threading.Lock()


@dataclass
class Recorder:
    """Times the phases of one task run and measures its peak memory, then makes the record.

    Observers are those of the moment it was made, so a stream that outlives a ``with`` block
    is still recorded.
    """

    task: str
    spec: ModelSpec
    request: dict[str, Any]
    phase_seconds: dict[str, float] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    quality: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._observers = _observers.get()
        self._peak = PeakMemory()
        self._lease: Lease | None = None
        self._alone = True

    def __enter__(self) -> Recorder:
        with _running_lock:
            _running.append(self)
            if len(_running) > 1:
                for recorder in _running:
                    recorder._alone = False
        self._peak.__enter__()
        self._started = time.perf_counter()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: object) -> None:
        self.phase_seconds["total"] = time.perf_counter() - self._started
        self._peak.__exit__(None, None, None)
        with _running_lock:
            _running.remove(self)
        if kind is not None and kind is not GeneratorExit:
            self._tell(self._make(error=f"{kind.__name__}: {error}"))

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Add the seconds of the block to ``phase_seconds[name]``, and measure its peak."""
        with self._peak.phase(name):
            started = time.perf_counter()
            try:
                yield
            finally:
                spent = time.perf_counter() - started
                self.phase_seconds[name] = self.phase_seconds.get(name, 0.0) + spent

    def uses(self, model: Any) -> None:
        """Say which model of the pool the run has, while it has it: its plan is compared."""
        self._lease = default_pool().lease(model)

    def mark(self, name: str) -> None:
        """Measure the memory of what follows as phase ``name``, until the next mark."""
        self._peak.mark(name)

    def elapsed_seconds(self) -> float:
        """Seconds since the run began."""
        return time.perf_counter() - self._started

    def finish(self) -> Record:
        """The record, handed to the observers. Call it once, after the ``with`` block."""
        record = self._make(error=None)
        self._learn(record)
        self._tell(record)
        return record

    def _make(self, error: str | None) -> Record:
        return Record(
            task=self.task,
            model=self.spec.id,
            engine=self.spec.engine,
            model_sha256=sources.digest(self.spec),
            request=self.request,
            phase_seconds=self.phase_seconds,
            metrics=self.metrics,
            quality=self.quality,
            peak_bytes=self._peak.peak_bytes,
            peak_method=self._peak.method,
            memory=self._memory(),
            environment=environment(),
            error=error,
        )

    def _memory(self) -> MemoryRecord | None:
        if self._lease is None:
            return None
        return compare(self._lease, self._peak, self._started, alone=self._alone)

    def _learn(self, record: Record) -> None:
        """Keep a clean run for later plans. A store that fails never costs a result."""
        if record.memory is None or not record.memory.is_clean:
            return
        assert self._lease is not None and self._lease.plan is not None
        versions = {name: record.environment[name] for name in _LIBRARIES_OF[record.engine]}
        try:
            History().add(observation(record.memory, self._lease.plan, versions))
        except WorkbenchError as error:
            warnings.warn(str(error), RuntimeWarning, stacklevel=3)

    def _tell(self, record: Record) -> None:
        for observer in self._observers:
            observer(record)


@lru_cache(maxsize=1)
def environment() -> dict[str, str]:
    """Versions of what computes, and the machine's kind."""
    found = {
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "workbench": _version("workbench"),
    }
    found.update({name: _version(name) for name in _LIBRARIES})
    return found


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"
