"""One trial: a configuration on all items, in a fresh process, so that its peak memory is its
own, its first call is a first call, and a crash is a result.

The fresh process is ``python -m workbench.lab.trial``: JSON in on standard input, JSON out in a
file. Unlike ``multiprocessing`` it needs no guarded ``__main__``, so a sweep runs the same from
a notebook, a script and the command line. It never imports MLflow.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from workbench.engines.pool import default_pool
from workbench.errors import (
    DoesNotFit,
    ProviderError,
    Unavailable,
    UserInputError,
    WorkbenchError,
)
from workbench.lab.provenance import machine
from workbench.lab.spec import SweepTask, task_function
from workbench.tasks.memory import MemoryRecord

#: Why a trial has no result. ``invalid``: the request is wrong; ``unavailable``: a model, engine
#: or provider is missing; ``oom_predicted``: it was not tried, since its plan does not fit;
#: ``oom``: memory ran out all the same.
Failure = Literal["crash", "timeout", "oom_predicted", "oom", "invalid", "unavailable"]

_DETAILS_CHARACTERS = 4000


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class TrialRequest(_Strict):
    """What the process is told: the arguments that all calls share, and the items."""

    task: SweepTask
    arguments: dict[str, Any]
    items: list[dict[str, Any]]
    repeats: int
    warmup: int


class Call(_Strict):
    """One call of the task: the raw sample. Only ``measured`` calls enter a statistic.

    ``weights`` say how much an item counts in a mean quality; what is missing counts 1.
    """

    item: int
    kind: Literal["first", "warmup", "measured"]
    seconds: float
    phase_seconds: dict[str, float]
    metrics: dict[str, float]
    quality: dict[str, float]
    weights: dict[str, float]
    peak_bytes: int
    memory: MemoryRecord | None = None


class Measurement(_Strict):
    """All that one trial gave. A failed one keeps the calls that it made, if they are known.

    ``error`` is one line; ``details`` a traceback or the last that a dead process said. ``plan``
    is what did not fit where that is the failure.
    """

    failure: Failure | None = None
    error: str | None = None
    details: str = ""
    calls: list[Call] = Field(default_factory=list)
    load_seconds: float = 0.0
    planned_bytes: int = 0
    plan: dict[str, Any] | None = None
    peak_method: str = ""
    model: str = ""
    wall_seconds: float = 0.0
    load_per_core: float | None = Field(
        default=None, description="Load average per core when it began; None: not known here"
    )

    def measured(self) -> list[Call]:
        """The calls that count."""
        return [call for call in self.calls if call.kind == "measured"]


def measure(request: TrialRequest) -> Measurement:
    """Run a trial in this process: one first call, the warm-up, then every item, repeatedly.

    An error of the task is recorded with its class, never raised.
    """
    measurement = Measurement(load_per_core=_load_per_core())
    started = time.perf_counter()
    rounds = ["first", *["warmup"] * request.warmup]
    plan = [(0, kind) for kind in rounds]
    plan += [(i, "measured") for _ in range(request.repeats) for i in range(len(request.items))]
    try:
        for item, kind in plan:
            _call(request, item, kind, measurement)
    except (WorkbenchError, MemoryError) as error:
        measurement.failure = _failure_of(error)
        measurement.error = str(error) or "Memory ran out."
        if isinstance(error, DoesNotFit) and error.plan is not None:
            measurement.plan = error.plan.to_dict()
    except Exception as error:
        measurement.failure, measurement.error = "crash", f"{type(error).__name__}: {error}"
        measurement.details = traceback.format_exc()
    loaded = default_pool().loaded()
    measurement.load_seconds = sum(model.load_seconds for model in loaded)
    measurement.planned_bytes = sum(model.planned_bytes for model in loaded)
    if measurement.plan is not None:
        measurement.planned_bytes = int(measurement.plan["upper_bytes"])
    measurement.wall_seconds = time.perf_counter() - started
    return measurement


def measure_isolated(request: TrialRequest, timeout_seconds: float) -> Measurement:
    """Run a trial in a fresh process, which is killed with its children after the timeout."""
    started, load_per_core = time.perf_counter(), _load_per_core()
    with tempfile.TemporaryDirectory(prefix="workbench-trial-") as folder:
        answer, messages = Path(folder, "measurement.json"), Path(folder, "stderr.txt")
        with messages.open("wb") as stderr:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "workbench.lab.trial", str(answer)],
                stdin=subprocess.PIPE,
                stdout=stderr,
                stderr=stderr,
                start_new_session=True,  # so that what it started can be killed with it
            )
        try:
            process.communicate(request.model_dump_json().encode(), timeout=timeout_seconds)
            measurement = _read(answer, process.returncode, messages)
        except subprocess.TimeoutExpired:
            measurement = Measurement(
                failure="timeout", error=f"It took longer than {timeout_seconds:g} s."
            )
        finally:
            _kill(process)
    measurement.wall_seconds = time.perf_counter() - started
    measurement.load_per_core = load_per_core
    return measurement


# -- inside ----------------------------------------------------------------------------------


def _call(request: TrialRequest, item: int, kind: Any, measurement: Measurement) -> None:
    arguments = {**request.items[item], **request.arguments}
    result = task_function(request.task)(**arguments)
    record = result.record
    measurement.model, measurement.peak_method = record.model, record.peak_method
    measurement.calls.append(
        Call(
            item=item,
            kind=kind,
            # the record's own total: scoring against the reference is not part of the task
            seconds=record.phase_seconds["total"],
            phase_seconds=record.phase_seconds,
            metrics=record.metrics,
            quality=record.quality,
            weights=_weights(request.task, arguments, result),
            peak_bytes=record.peak_bytes,
            memory=record.memory,
        )
    )


def _weights(task: SweepTask, arguments: dict[str, Any], result: Any) -> dict[str, float]:
    """Words and characters of the reference: the error rate of a corpus is that of all its
    words, not the mean over its recordings."""
    reference = arguments.get("reference")
    if task != "transcribe" or not reference:
        return {}
    from workbench.tasks.speech.score import normalize

    wanted = normalize(reference, "en" if arguments.get("translate") else result.language)
    return {"wer": len(wanted.split()), "cer": len(wanted)}


def _load_per_core() -> float | None:
    if not hasattr(os, "getloadavg"):
        return None
    return os.getloadavg()[0] / int(machine()["cores"])


def _failure_of(error: Exception) -> Failure:
    if isinstance(error, DoesNotFit) and error.plan is not None and not error.plan.fits:
        return "oom_predicted"
    if isinstance(error, DoesNotFit | MemoryError):
        return "oom"
    if isinstance(error, UserInputError):
        return "invalid"
    if isinstance(error, Unavailable | ProviderError):
        return "unavailable"
    return "crash"


def _read(answer: Path, exit_code: int, messages: Path) -> Measurement:
    """The measurement that the process left, or the crash that kept it from leaving one."""
    if exit_code == 0:
        return Measurement.model_validate_json(answer.read_bytes())
    said = messages.read_text(encoding="utf-8", errors="replace").strip()
    error = f"It ended with exit code {exit_code}."
    if exit_code < 0:
        name = signal.Signals(-exit_code).name
        hint = " The kernel kills so when memory runs out." if name == "SIGKILL" else ""
        error = f"It was killed by {name}.{hint}"
    return Measurement(failure="crash", error=error, details=said[-_DETAILS_CHARACTERS:])


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End the process and its group, whatever happened."""
    with contextlib.suppress(ProcessLookupError):  # it has ended, and so has all it started
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def main() -> None:
    """The fresh process: measure what standard input asks for."""
    request = TrialRequest.model_validate_json(sys.stdin.buffer.read())
    answer = Path(sys.argv[1])
    partial = answer.with_suffix(".part")
    partial.write_text(json.dumps(measure(request).model_dump()), encoding="utf-8")
    partial.replace(answer)


if __name__ == "__main__":
    main()
