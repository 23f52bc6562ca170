"""`workbench.track`: every task run inside the block becomes one MLflow run."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from workbench.errors import WorkbenchError
from workbench.lab import store
from workbench.tasks.memory import MemoryRecord
from workbench.tasks.record import Record, observe

if TYPE_CHECKING:
    import pandas as pd


class Tracking:
    """What one `track` block recorded.

    ``run_ids`` are the MLflow runs in the order in which they finished. ``unlogged`` holds the
    records that the store refused: a result is never lost because logging it failed.
    """

    def __init__(
        self, experiment: str, run_name: str | None = None, tags: Mapping[str, str] | None = None
    ) -> None:
        self.experiment = experiment
        self.run_ids: list[str] = []
        self.unlogged: list[Record] = []
        self._run_name = run_name
        self._tags = dict(tags or {})
        self._experiment_id = store.experiment_id(experiment)
        self._lock = threading.Lock()

    def log(self, record: Record) -> None:
        """Write one finished record; a store that fails is reported once, by a warning."""
        try:
            run_id = store.write_run(
                self._experiment_id, entry_of(record, self._run_name, self._tags)
            )
        except WorkbenchError as error:
            with self._lock:
                self.unlogged.append(record)
                is_first = len(self.unlogged) == 1
            if is_first:
                warnings.warn(
                    f"{error} The results are not affected; their records are in `.unlogged`.",
                    RuntimeWarning,
                    stacklevel=2,
                )
            return
        with self._lock:
            self.run_ids.append(run_id)

    def frame(self) -> pd.DataFrame:
        """The runs of this block, oldest first; the columns of `workbench.lab.store.runs`
        that have a value."""
        return store.runs_of(self.run_ids).dropna(axis="columns", how="all")

    def _repr_html_(self) -> str:
        html: str = self.frame().drop(columns="run_id").to_html(escape=True, index=False)
        return html


@contextmanager
def track(
    experiment: str = "workbench",
    *,
    run_name: str | None = None,
    tags: Mapping[str, str] | None = None,
) -> Iterator[Tracking]:
    """Record every task run inside the block as one MLflow run.

    Parameters are the request's fields, the model, its engine and its sha256; metrics the
    seconds of each phase, the peak memory, and quality where a reference was given; the whole
    record is the artifact ``record.json``. A run that failed is kept with its error.
    Logging happens after the timed work. Raises Unavailable, before any work, when the store
    cannot be used.
    """
    tracking = Tracking(experiment, run_name, tags)
    with observe(tracking.log):
        yield tracking


def entry_of(
    record: Record, run_name: str | None = None, tags: Mapping[str, str] | None = None
) -> store.RunEntry:
    """The MLflow run of a record."""
    params = flatten(record.request)
    params.update(model=record.model, engine=record.engine)
    if record.model_sha256:
        params["model_sha256"] = record.model_sha256
    metrics = dict(record.metrics)
    metrics |= {f"{phase}_seconds": spent for phase, spent in record.phase_seconds.items()}
    metrics |= {f"quality.{name}": value for name, value in record.quality.items()}
    metrics["peak_memory_bytes"] = float(record.peak_bytes)
    metrics |= memory_metrics(record.memory)
    environment = {f"environment.{name}": text for name, text in record.environment.items()}
    own = {"workbench.task": record.task, "workbench.peak_method": record.peak_method}
    return store.RunEntry(
        name=run_name or f"{record.task} {record.model}",
        kind="request",
        params=params,
        metrics=metrics,
        tags={**environment, **own, **(tags or {})},
        artifacts={"record.json": record.model_dump(mode="json")},
        seconds=record.phase_seconds.get("total", 0.0),
        error=record.error,
    )


def memory_metrics(memory: MemoryRecord | None) -> dict[str, float]:
    """Predicted and measured memory as metrics; empty where nothing was predicted."""
    if memory is None:
        return {}
    metrics = {
        "predicted_memory_bytes": float(memory.predicted_bytes),
        "measured_memory_bytes": float(memory.measured_bytes),
    }
    if memory.error_ratio is not None:
        metrics["memory_error_ratio"] = memory.error_ratio
    return metrics


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """``{"a": {"b": 1}, "c": None}`` -> ``{"a.b": 1}``: nested names joined, None left out."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{name}.")
        elif value is not None:
            flat[prefix + name] = value
    return flat
