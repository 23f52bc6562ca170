"""Trials in processes of their own: what dies there is a result here."""

from __future__ import annotations

import os
import select
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.memory.facts_of import GIB, llama_8b
from workbench.errors import DoesNotFit
from workbench.lab import trial
from workbench.lab.trial import Measurement, TrialRequest, measure, measure_isolated
from workbench.memory.devices import Budget
from workbench.memory.plan import plan_model


@pytest.fixture
def request_of(stub_models: dict[str, str], recordings: list[str]) -> Callable[..., TrialRequest]:
    def make(repeats: int = 1, warmup: int = 0, **arguments) -> TrialRequest:
        items = [{"audio": path, "reference": "second 0", "language": "vi"} for path in recordings]
        return TrialRequest(
            task="transcribe",
            arguments={"vad": False, **arguments},
            items=items,
            repeats=repeats,
            warmup=warmup,
        )

    return make


def _kinds(measurement: Measurement) -> list[tuple[int, str]]:
    return [(call.item, call.kind) for call in measurement.calls]


def test_the_first_call_and_the_warm_up_are_apart(request_of, own_pool):
    measurement = measure(request_of(repeats=2, warmup=1))
    assert _kinds(measurement) == [
        (0, "first"),
        (0, "warmup"),
        *[(0, "measured"), (1, "measured")] * 2,
    ]
    assert len(measurement.measured()) == 4
    assert measurement.calls[0].peak_bytes > 0
    assert measurement.model == "stub-speech"
    # 2 s of sound are "second 0 second 1": two words too many of a reference of two
    assert [call.quality["wer"] for call in measurement.measured()[:2]] == [0.0, 1.0]
    assert measurement.measured()[0].weights == {"wer": 2, "cer": 8}


def test_a_fresh_process_measures_the_same(request_of):
    here = measure(request_of())
    there = measure_isolated(request_of(), timeout_seconds=120)
    assert there.failure is None, there.error
    assert _kinds(there) == _kinds(here)
    assert [c.quality for c in there.calls] == [c.quality for c in here.calls]
    assert there.wall_seconds > sum(call.seconds for call in there.calls)


@pytest.mark.parametrize(
    ("options", "failure", "says"),
    [
        ({"fail": "The provider is down."}, "unavailable", "The provider is down."),
        ({"hold_bytes": 2**62}, "oom", "Memory ran out"),
        ({"hold_bytes": -1}, "crash", "ValueError"),
    ],
)
def test_failures_have_a_class_and_a_message(
    request_of, write_model, own_pool, options: dict, failure: str, says: str
):
    model = write_model("stub-broken", task="speech", options=options)
    measurement = measure(request_of(model=model))
    assert measurement.failure == failure
    assert measurement.error is not None and says in measurement.error
    assert ("Traceback" in measurement.details) == (failure == "crash")


@pytest.mark.parametrize(("available", "failure"), [(GIB, "oom_predicted"), (200 * GIB, "oom")])
def test_what_did_not_fit_has_its_plan(request_of, monkeypatch, available: int, failure: str):
    """It was predicted only if the plan says that it does not fit."""
    plan = plan_model(llama_8b(), Budget("cpu", available, "test"))

    def refuse(**_: object) -> None:
        raise DoesNotFit("It does not fit.", "", plan)

    monkeypatch.setattr(trial, "task_function", lambda _: refuse)
    measurement = measure(request_of())
    assert (measurement.failure, measurement.plan) == (failure, plan.to_dict())
    assert measurement.planned_bytes == plan.upper_bytes
    assert Measurement.model_validate_json(measurement.model_dump_json()) == measurement


def test_a_wrong_request_is_invalid(request_of, own_pool, tmp_path: Path):
    (tmp_path / "bad.wav").write_bytes(b"no sound")
    request = request_of().model_copy(update={"items": [{"audio": str(tmp_path / "bad.wav")}]})
    assert measure(request).failure == "invalid"


def test_calls_before_a_failure_are_kept(request_of, own_pool, tmp_path: Path):
    request = request_of()
    request.items.append({"audio": str(tmp_path / "missing.wav")})
    measurement = measure(request)
    assert measurement.failure == "invalid"
    assert len(measurement.measured()) == 2


def _program(folder: Path, script: str) -> str:
    path = folder / "program"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


def test_a_killed_process_is_a_crash(request_of, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(sys, "executable", _program(tmp_path, "echo last words >&2; kill -9 $$"))
    measurement = measure_isolated(request_of(), timeout_seconds=60)
    assert measurement.failure == "crash"
    assert measurement.error is not None and "SIGKILL" in measurement.error
    assert measurement.details == "last words"


def test_a_process_that_fails_is_a_crash(request_of, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(sys, "executable", _program(tmp_path, "exit 3"))
    assert measure_isolated(request_of(), 60).error == "It ended with exit code 3."


def test_a_timeout_kills_the_process_and_what_it_started(request_of, tmp_path: Path, monkeypatch):
    pids = tmp_path / "pids"
    script = f"sleep 600 & echo $! > {pids}; echo $$ >> {pids}; wait"
    monkeypatch.setattr(sys, "executable", _program(tmp_path, script))
    measurement = measure_isolated(request_of(), timeout_seconds=1)
    assert (measurement.failure, measurement.error) == ("timeout", "It took longer than 1 s.")
    assert all(_has_ended(int(pid)) for pid in pids.read_text().split())


def _has_ended(pid: int) -> bool:
    """Whether a process ends soon (the kernel kills when it gets to it)."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    ready, _, _ = select.select([handle], [], [], 10)
    os.close(handle)
    return bool(ready)


def test_an_interrupt_kills_the_process(request_of, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(sys, "executable", _program(tmp_path, "exec sleep 600"))
    started = []
    real = trial.subprocess.Popen

    class Interrupted(real):  # type: ignore[misc, valid-type]
        def communicate(self, *args, **kwargs):
            started.append(self)
            raise KeyboardInterrupt

    monkeypatch.setattr(trial.subprocess, "Popen", Interrupted)
    with pytest.raises(KeyboardInterrupt):
        measure_isolated(request_of(), 60)
    assert started[0].returncode == -9
