from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from workbench.errors import Unavailable
from workbench.lab import store
from workbench.settings import get_settings


def _entry(**changes) -> store.RunEntry:
    return store.RunEntry(**{"name": "a run", "kind": "request", **changes})


def test_reading_a_store_that_nothing_was_written_to_makes_none():
    frame = store.runs()
    assert list(frame.columns) == list(store.COLUMNS)
    assert frame.empty
    assert store.experiments() == []
    assert not get_settings().runs.exists()


def test_runs_are_a_table_newest_first_with_units(ready_store: Path):
    here = store.experiment_id("here")
    store.write_run(
        here,
        _entry(
            name="first",
            params={"model": "m1"},
            metrics={"total_seconds": 2.5, "peak_memory_bytes": 3 * 2**20, "quality.wer": 0.25},
            tags={"workbench.task": "speech"},
            seconds=2.5,
        ),
    )
    store.write_run(store.experiment_id("there"), _entry(name="second", error="Boom: no"))

    frame = store.runs()
    assert list(frame["run"]) == ["second", "first"]
    first = frame[frame["run"] == "first"].iloc[0]
    assert (first["experiment"], first["task"], first["model"]) == ("here", "speech", "m1")
    assert (first["seconds"], first["peak_mib"], first["wer"]) == (2.5, 3.0, 0.25)
    assert first["status"] == "FINISHED"
    assert (frame["status"].iloc[0], frame["error"].iloc[0]) == ("FAILED", "Boom: no")
    assert list(store.runs("here")["run"]) == ["first"]
    assert store.runs("no such experiment").empty
    assert set(store.experiments()) == {"here", "there"}
    assert len(store.runs(limit=1)) == 1


def test_artifacts_are_beside_the_database(ready_store: Path):
    run_id = store.write_run(
        store.experiment_id("Xin chào"), _entry(artifacts={"x.json": {"t": "chữ"}})
    )
    assert store.read_artifact(run_id, "x.json") == {"t": "chữ"}
    assert store.read_artifact(run_id, "y.json") is None
    assert list(ready_store.rglob("x.json"))


def test_a_request_bigger_than_mlflows_limits_is_written(ready_store: Path):
    entry = _entry(
        params={f"p{i}": "x" * 10_000 for i in range(150)} | {"odd(key)": 1},
        series={"call_seconds": [float(i) for i in range(1500)]},
        tags={"long": "y" * 10_000},
    )
    run = store.client().get_run(store.write_run(store.experiment_id("big"), entry))
    assert len(run.data.params) == 100
    assert run.data.metrics["call_seconds"] == 999.0


def test_an_experiment_that_another_process_makes_meanwhile(
    ready_store: Path, monkeypatch: pytest.MonkeyPatch
):
    client = store.client()
    theirs = client.create_experiment("shared")
    real = client.get_experiment_by_name
    answers = iter([None])
    monkeypatch.setattr(
        client, "get_experiment_by_name", lambda name: next(answers, ...) and real(name)
    )
    assert store.experiment_id("shared") == theirs


def test_one_batch_a_run(ready_store: Path, monkeypatch: pytest.MonkeyPatch):
    calls = []
    client = store.client()
    for name in ("log_batch", "log_metric", "log_param", "set_tag"):
        real = getattr(client, name)
        monkeypatch.setattr(
            client, name, lambda *a, _n=name, _r=real, **k: (calls.append(_n), _r(*a, **k))[1]
        )
    store.write_run(store.experiment_id("e"), _entry(params={"a": 1}, metrics={"b": 2.0}))
    assert calls == ["log_batch"]


def test_a_folder_that_cannot_be_written_is_one_clear_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("WORKBENCH_RUNS", str(tmp_path / "file" / "runs"))
    get_settings.cache_clear()
    with pytest.raises(Unavailable, match="cannot be used") as caught:
        store.experiment_id("x")
    assert "WORKBENCH_RUNS" in caught.value.remedy


def test_a_file_that_is_no_database_is_one_clear_line():
    get_settings().runs.mkdir(parents=True)
    (get_settings().runs / "mlflow.db").write_text("not a database " * 100)
    with pytest.raises(Unavailable, match="not a database"):
        store.runs()


def test_a_server_that_is_down_is_reported_in_seconds_without_its_password(
    monkeypatch: pytest.MonkeyPatch,
):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    monkeypatch.setenv("WORKBENCH_TRACKING_URI", f"http://me:hush@127.0.0.1:{port}")
    get_settings.cache_clear()
    started = time.monotonic()
    with pytest.raises(Unavailable) as caught:
        store.runs()
    assert time.monotonic() - started < 30
    assert "hush" not in str(caught.value)


def test_first_use_is_silent_and_telemetry_is_off(tmp_path: Path):
    script = (
        "import socket, workbench.lab.store as store\n"
        "def refuse(*a, **k): raise SystemExit('a request left this machine')\n"
        "socket.create_connection = refuse\n"
        "socket.socket.connect = refuse\n"
        "store.experiment_id('quiet')\n"
        "from mlflow.telemetry.client import get_telemetry_client\n"
        "assert get_telemetry_client() is None\n"
    )
    # variables by which MLflow notices that it is tested would switch its telemetry off anyway
    hidden = ("CI", "PYTEST_CURRENT_TEST", "MLFLOW_DISABLE_TELEMETRY", "DO_NOT_TRACK")
    environment = {name: v for name, v in os.environ.items() if name not in hidden}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_command_of_mlflows_pages_names_the_store():
    command = store.ui_command("127.0.0.1", 5001)
    assert command[1:4] == ["-m", "mlflow", "ui"]
    assert f"sqlite:///{get_settings().runs / 'mlflow.db'}" in command
    assert command[-1] == "5001"
