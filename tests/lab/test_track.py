from __future__ import annotations

import threading
import warnings
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import workbench as wb
from workbench.errors import Unavailable
from workbench.lab import store
from workbench.lab.track import flatten
from workbench.models import get
from workbench.settings import get_settings
from workbench.tasks.record import Recorder


def _run(**request) -> None:
    recorder = Recorder("chat", get("smollm2-135m"), request)
    with recorder, recorder.phase("decode"):
        pass
    recorder.metrics["tokens_per_second"] = 7.0
    recorder.quality["wer"] = 0.5
    recorder.finish()


def test_every_record_becomes_a_run(ready_store: Path):
    with wb.track("mine", run_name="named", tags={"why": "test"}) as tracked:
        _run(prompt="Xin chào", options={"seed": 3, "stop": None})
        _run(prompt="two")
    _run(prompt="outside")

    assert len(tracked.run_ids) == 2
    run = store.client().get_run(tracked.run_ids[0])
    assert run.info.run_name == "named"
    assert run.data.params["prompt"] == "Xin chào"
    assert run.data.params["options.seed"] == "3"
    assert run.data.params["model"] == "smollm2-135m"
    assert run.data.params["engine"] == "llama_cpp"
    assert len(run.data.params["model_sha256"]) == 64
    assert {"decode_seconds", "total_seconds", "peak_memory_bytes"} <= set(run.data.metrics)
    assert run.data.metrics["quality.wer"] == 0.5
    assert run.data.tags["why"] == "test"
    assert run.data.tags["workbench.task"] == "chat"
    assert "environment.python" in run.data.tags
    record = store.read_artifact(tracked.run_ids[0], "record.json")
    assert record["request"]["prompt"] == "Xin chào"

    frame = tracked.frame()
    assert list(frame["run_id"]) == tracked.run_ids
    assert "<table" in tracked._repr_html_()


def test_a_failed_task_is_a_failed_run(ready_store: Path):
    with wb.track("mine") as tracked, pytest.raises(ZeroDivisionError):
        with Recorder("chat", get("smollm2-135m"), {}):
            _ = 1 / 0
    (row,) = tracked.frame().to_dict("records")
    assert row["status"] == "FAILED"
    assert row["error"] == "ZeroDivisionError: division by zero"


def test_the_result_is_not_lost_when_the_store_is(
    ready_store: Path, monkeypatch: pytest.MonkeyPatch
):
    with wb.track("mine") as tracked:
        _run(prompt="before")
        monkeypatch.setattr(store, "write_run", _refuse)
        with pytest.warns(RuntimeWarning, match="cannot be used"):
            _run(prompt="during")
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # it is said once
            _run(prompt="during too")
    assert len(tracked.run_ids) == 1
    assert [r.request["prompt"] for r in tracked.unlogged] == ["during", "during too"]


def test_a_store_that_cannot_be_reached_is_said_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("WORKBENCH_RUNS", str(tmp_path / "file" / "runs"))
    get_settings.cache_clear()
    with pytest.raises(Unavailable), wb.track("mine"):
        pytest.fail("the block must not run")


def test_runs_of_several_threads_are_all_written(ready_store: Path):
    with wb.track("mine") as tracked:
        recorders = [Recorder("chat", get("smollm2-135m"), {"n": n}) for n in range(6)]

        def work(recorder: Recorder) -> None:
            with recorder:
                pass
            recorder.finish()

        threads = [threading.Thread(target=work, args=(recorder,)) for recorder in recorders]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(set(tracked.run_ids)) == 6


_leaves = st.none() | st.integers() | st.text(max_size=3)
_names = st.text("abc", min_size=1, max_size=3)  # no dots, so that joined names stay apart


@settings(deadline=None)  # a busy machine is no failure
@given(st.dictionaries(_names, st.dictionaries(_names, _leaves, max_size=3) | _leaves, max_size=4))
def test_flatten_keeps_every_value_under_its_path(values):
    flat = flatten(values)
    assert not any(value is None or isinstance(value, dict) for value in flat.values())
    wanted = {}
    for name, value in values.items():
        inner = {f"{name}.{k}": v for k, v in value.items()} if isinstance(value, dict) else None
        wanted |= {name: value} if inner is None else inner
    assert flat == {name: value for name, value in wanted.items() if value is not None}


def _refuse(*args, **kwargs):
    raise Unavailable("The MLflow store x cannot be used: gone.", "Look for it.")
