"""The record that reproduces a result, and the hook by which a tracker hears of it.

Tasks do not know MLflow: they hand every finished `Record` to the observers of the current
context, outside all timed regions. `workbench.lab.track` is such an observer.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import metadata
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from workbench.memory.meter import PeakMemory
from workbench.models import sources
from workbench.models.spec import ModelSpec

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

    def __enter__(self) -> Recorder:
        self._peak.__enter__()
        self._started = time.perf_counter()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: object) -> None:
        self.phase_seconds["total"] = time.perf_counter() - self._started
        self._peak.__exit__(None, None, None)
        if kind is not None and kind is not GeneratorExit:
            self._tell(self._make(error=f"{kind.__name__}: {error}"))

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Add the seconds of the block to ``phase_seconds[name]``."""
        started = time.perf_counter()
        try:
            yield
        finally:
            spent = time.perf_counter() - started
            self.phase_seconds[name] = self.phase_seconds.get(name, 0.0) + spent

    def elapsed_seconds(self) -> float:
        """Seconds since the run began."""
        return time.perf_counter() - self._started

    def finish(self) -> Record:
        """The record, handed to the observers. Call it once, after the ``with`` block."""
        record = self._make(error=None)
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
            environment=environment(),
            error=error,
        )

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
