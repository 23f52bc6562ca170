"""The MLflow store: where it is, how a run is written, and the table of what it holds.

The only module that talks to MLflow. It uses the client, never the fluent interface, so nothing
depends on an active run; every run is written after its work, with one ``log_batch``.
Nothing is sent off this machine: telemetry is switched off before MLflow is imported.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sqlite3
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from workbench.errors import Unavailable
from workbench.settings import get_settings

if TYPE_CHECKING:
    import pandas as pd
    from mlflow.entities import Run
    from mlflow.tracking import MlflowClient

_SQLITE = "sqlite:///"
_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    # a store that is down is reported in seconds; MLflow's own defaults retry for minutes
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}
_CHATTY_LOGGERS = ("alembic", "mlflow.store.db.utils", "mlflow.tracking")
_PARAM_CHARACTERS = 6000
_TAG_CHARACTERS = 8000
_PARAMS_PER_BATCH = 100
_METRICS_PER_BATCH = 1000
_PAGE_RUNS = 1000

#: Columns that `runs` always has; columns of quality follow them.
COLUMNS = (
    "start",
    "experiment",
    "run",
    "kind",
    "task",
    "model",
    "status",
    "seconds",
    "peak_mib",
    "error",
    "run_id",
)

_clients: dict[str, MlflowClient] = {}
_connecting = threading.Lock()


@dataclass(frozen=True)
class RunEntry:
    """One run as it is written: everything is known, nothing is timed any more.

    ``metrics`` are single values; ``series`` hold the raw samples, one step a sample.
    """

    name: str | None
    kind: str
    params: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    series: Mapping[str, Sequence[float]] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    artifacts: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    error: str | None = None
    parent_run_id: str | None = None


def client() -> MlflowClient:
    """The client of the store in force; makes a SQLite store when it is first used.

    Raises Unavailable when the store cannot be reached or written.
    """
    uri = get_settings().mlflow_uri
    with _connecting:
        if uri not in _clients:
            _clients[uri] = _connect(uri)
        return _clients[uri]


def experiment_id(name: str) -> str:
    """The id of the experiment called ``name``, made when it is not there yet.

    Raises Unavailable.
    """
    with _reporting():
        from mlflow.exceptions import MlflowException

        found = client().get_experiment_by_name(name)
        if found is not None:
            return str(found.experiment_id)
        try:
            made = client().create_experiment(name, artifact_location=_artifact_location(name))
        except MlflowException:
            found = client().get_experiment_by_name(name)  # another process was first
            if found is None:
                raise
            made = found.experiment_id
        return str(made)


def write_run(experiment: str, entry: RunEntry) -> str:
    """Write a finished run and return its id.

    ``experiment`` is an id. Raises Unavailable when the store refuses.
    """
    run_id = open_run(experiment, entry)
    close_run(run_id, "FAILED" if entry.error else "FINISHED", entry.artifacts)
    return run_id


def open_run(experiment: str, entry: RunEntry) -> str:
    """Start a run with all of ``entry`` but its artifacts; its id. Raises Unavailable."""
    from mlflow.entities import Metric, Param, RunTag

    now_ms = int(time.time() * 1000)
    metrics = [Metric(key(name), float(v), now_ms, 0) for name, v in entry.metrics.items()]
    for name, values in entry.series.items():
        metrics += [Metric(key(name), float(v), now_ms, step) for step, v in enumerate(values)]
    params = [
        Param(key(name), text) for name, v in entry.params.items() if (text := _param_text(v))
    ]
    tags = {"workbench.kind": entry.kind, **entry.tags}
    if entry.error:
        tags["workbench.error"] = entry.error
    if entry.parent_run_id:
        tags["mlflow.parentRunId"] = entry.parent_run_id
    with _reporting():
        store = client()
        start_ms = now_ms - int(entry.seconds * 1000)
        run = store.create_run(experiment, start_time=start_ms, run_name=entry.name)
        # what is beyond one batch is in the artifacts
        store.log_batch(
            run.info.run_id,
            metrics=metrics[:_METRICS_PER_BATCH],
            params=params[:_PARAMS_PER_BATCH],
            tags=[RunTag(key(name), v[:_TAG_CHARACTERS]) for name, v in tags.items()],
        )
    return str(run.info.run_id)


def reopen_run(run_id: str) -> None:
    """Mark a run as running again. Raises Unavailable."""
    with _reporting():
        client().update_run(run_id, status="RUNNING")


def close_run(run_id: str, status: str, artifacts: Mapping[str, Any] | None = None) -> None:
    """Add JSON artifacts and end the run as FINISHED, FAILED or KILLED. Raises Unavailable."""
    with _reporting():
        for name, content in (artifacts or {}).items():
            text = json.dumps(content, ensure_ascii=False, indent=1)
            client().log_text(run_id, text, name)
        client().set_terminated(run_id, status)


def read_artifact(run_id: str, name: str) -> Any:
    """The JSON artifact ``name`` of a run, or None where it cannot be read."""
    from mlflow.artifacts import load_dict
    from mlflow.exceptions import MlflowException

    try:
        return load_dict(f"{client().get_run(run_id).info.artifact_uri}/{name}")
    except (MlflowException, OSError):
        return None


def search(experiments: Sequence[str], condition: str = "", limit: int = _PAGE_RUNS) -> list[Run]:
    """The newest ``limit`` runs of some experiments (ids), in MLflow's filter language."""
    found: list[Run] = []
    token = None
    with _reporting():
        while len(found) < limit:
            page = client().search_runs(
                list(experiments),
                filter_string=condition,
                max_results=min(_PAGE_RUNS, limit - len(found)),
                order_by=["attributes.start_time DESC"],
                page_token=token,
            )
            found += page
            token = page.token
            if not token:
                break
    return found


def experiments() -> list[str]:
    """The names of the experiments, the newest first. Raises Unavailable."""
    return list(_experiment_names().values())


def runs(experiment: str | None = None, *, limit: int = 1000) -> pd.DataFrame:
    """The newest runs as a table, one row a run, newest first; see `COLUMNS`.

    Times in seconds, ``peak_mib`` in MiB, ``start`` in local time. Quality columns (``wer``,
    ``execution_match`` ...) follow where a run has them. A store that nothing was written to
    yet is an empty table. Raises Unavailable.
    """
    names = _experiment_names()
    if experiment is not None:
        names = {id_: name for id_, name in names.items() if name == experiment}
    return _table(search([*names], limit=limit) if names else [], names)


def runs_of(run_ids: Sequence[str]) -> pd.DataFrame:
    """The table of `runs` for these runs, in the order given. Raises Unavailable."""
    with _reporting():
        found = [client().get_run(run_id) for run_id in run_ids]
    return _table(found, _experiment_names())


def ui_command(host: str, port: int) -> list[str]:
    """The command that serves MLflow's own pages on this store."""
    os.environ.update(_unset_environment())
    uri = get_settings().mlflow_uri
    command = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", uri]
    return [*command, "--host", host, "--port", str(port)]


def key(name: str) -> str:
    """``name`` with the characters that MLflow refuses in keys replaced."""
    return re.sub(r"[^\w\-. :/]", "_", name)


# -- inside ----------------------------------------------------------------------------------


def _unset_environment() -> dict[str, str]:
    return {name: value for name, value in _ENVIRONMENT.items() if name not in os.environ}


def _connect(uri: str) -> MlflowClient:
    os.environ.update(_unset_environment())
    if uri.startswith(_SQLITE):
        _check_writable(Path(uri.removeprefix(_SQLITE)), uri)
    for name in _CHATTY_LOGGERS:  # making the tables is announced migration by migration
        logging.getLogger(name).setLevel(logging.WARNING)
    from mlflow.tracking import MlflowClient

    with _reporting():
        found = MlflowClient(tracking_uri=uri, registry_uri=uri)
        found.search_experiments(max_results=1)
    return found


def _check_writable(path: Path, uri: str) -> None:
    """MLflow retries for a minute where SQLite cannot open the file; ask SQLite itself first."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute("BEGIN IMMEDIATE")  # needs what a write needs, and writes nothing
            connection.execute("ROLLBACK")
    except (OSError, sqlite3.Error) as error:
        raise _unreachable(uri, error) from None


@contextmanager
def _reporting() -> Iterator[None]:
    """Whatever the store raises becomes Unavailable."""
    os.environ.update(_unset_environment())
    from mlflow.exceptions import MlflowException

    try:
        yield
    except (MlflowException, OSError) as error:
        raise _unreachable(get_settings().mlflow_uri, error) from None


def _unreachable(uri: str, error: Exception) -> Unavailable:
    reason = str(error).splitlines()[0].rstrip(".") if str(error) else type(error).__name__
    message = f"The MLflow store {uri} cannot be used: {reason}."
    if password := urlsplit(uri).password:
        message = message.replace(f":{password}@", ":***@")
    return Unavailable(
        message,
        "Check WORKBENCH_TRACKING_URI and WORKBENCH_RUNS, or that the MLflow server is up.",
    )


def _artifact_location(name: str) -> str | None:
    """Beside the database for a local store; a server knows its own place."""
    if not get_settings().mlflow_uri.startswith(_SQLITE):
        return None
    folder = get_settings().runs / "mlflow-artifacts" / re.sub(r"[^\w\-.]", "_", name)
    return folder.as_uri()


def _param_text(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= _PARAM_CHARACTERS else text[: _PARAM_CHARACTERS - 1] + "…"


def _experiment_names() -> dict[str, str]:
    uri = get_settings().mlflow_uri
    if uri.startswith(_SQLITE) and not Path(uri.removeprefix(_SQLITE)).exists():
        return {}
    with _reporting():
        found = client().search_experiments(order_by=["last_update_time DESC"])
    return {str(e.experiment_id): e.name for e in found if e.experiment_id != "0"}


def _table(found: Sequence[Run], names: Mapping[str, str]) -> pd.DataFrame:
    import pandas as pd

    rows = [_row(run, names) for run in found]
    quality = sorted({name for row in rows for name in row}.difference(COLUMNS))
    return pd.DataFrame(rows, columns=[*COLUMNS, *quality])


def _row(run: Run, names: Mapping[str, str]) -> dict[str, Any]:
    metrics, tags = run.data.metrics, run.data.tags
    peak_bytes = metrics.get("peak_memory_bytes")
    quality = {
        name.removeprefix("quality."): value
        for name, value in metrics.items()
        if name.startswith("quality.")
    }
    fixed = {
        "start": datetime.fromtimestamp(run.info.start_time / 1000),  # local, as people read it
        "experiment": names[run.info.experiment_id],
        "run": run.info.run_name,
        "kind": tags.get("workbench.kind", ""),
        "task": tags.get("workbench.task", ""),
        "model": run.data.params.get("model", ""),
        "status": run.info.status,
        "seconds": metrics.get("total_seconds"),
        "peak_mib": None if peak_bytes is None else peak_bytes / 2**20,
        "error": tags.get("workbench.error", ""),
        "run_id": run.info.run_id,
    }
    return {**fixed, **{name: v for name, v in quality.items() if name not in fixed}}
