"""`workbench.sweep`: plan the trials of a question, run those not yet measured, record each.

MLflow is the only result store: one parent run a sweep, one child run a trial, written after the
trial. A trial whose key (configuration, inputs, model, code, libraries, machine) was measured
before is read back instead of run again.
"""

from __future__ import annotations

import hashlib
import json
import sys
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from workbench.engines.pool import default_pool
from workbench.errors import Unavailable, UnknownOption
from workbench.lab import statistics, store
from workbench.lab.provenance import git_commit, machine, trial_key
from workbench.lab.spec import Item, SweepSpec, SweepTask, load_items, parse
from workbench.lab.study import Study, Trial, label_of
from workbench.lab.track import flatten, memory_metrics
from workbench.lab.trial import Measurement, TrialRequest, measure, measure_isolated
from workbench.models import get
from workbench.settings import get_settings
from workbench.tasks.record import environment

if TYPE_CHECKING:
    from mlflow.entities import Run

    from workbench.models.spec import ModelSpec, Task

#: Called with (trials done, trials in all, what is going on).
SweepProgress = Callable[[int, int, str], None]

_MODEL_OF: dict[SweepTask, tuple[Task, str]] = {
    "transcribe": ("speech", "speech"),
    "chat": ("chat", "chat"),
    "draw": ("image", "image"),
    "ask": ("chat", "sql"),
}
_FILE_ARGUMENTS = ("audio", "database")
_ARTIFACT = "measurement.json"


@dataclass(frozen=True)
class PlannedTrial:
    """One trial before it runs. ``run_id`` is the MLflow run that has measured it already."""

    configuration: dict[str, Any]
    model: str
    key: str
    run_id: str | None


@dataclass(frozen=True)
class SweepPlan:
    """What a sweep will do; nothing has run yet."""

    spec: SweepSpec
    items: tuple[Item, ...]
    trials: tuple[PlannedTrial, ...]

    @property
    def calls_per_trial(self) -> int:
        """The first call, the warm-up, and every item as often as it is repeated."""
        return 1 + self.spec.warmup + self.spec.repeats * len(self.items)

    def headline(self) -> str:
        """The plan in one line."""
        done = sum(trial.run_id is not None for trial in self.trials)
        measured = f", {done} measured before" if done else ""
        return f"{len(self.trials)} trials of {self.calls_per_trial} calls{measured}"

    def table(self) -> str:
        """The plan as a table for a terminal."""
        rows = [f"{self.spec.name}: {self.spec.question}", self.headline()]
        for number, trial in enumerate(self.trials, 1):
            state = "measured before" if trial.run_id else "to run"
            rows.append(f"  {number:>3}  {state:<16}{label_of(trial.configuration)}")
        return "\n".join(rows)

    def _repr_html_(self) -> str:
        import html

        return f"<pre>{html.escape(self.table())}</pre>"


def plan_sweep(
    spec_or_path: SweepSpec | Mapping[str, Any] | str | Path,
    *,
    resume: bool = True,
    fast: bool = False,
) -> SweepPlan:
    """The trials of a sweep, and which of them are measured already. Runs nothing.

    Raises SettingsError, UnknownOption, UnknownModel, UserInputError, Unavailable.
    """
    spec = parse(spec_or_path)
    spec = spec.faster() if fast else spec
    items = load_items(spec)
    files = [Path(item[name]) for item in items for name in _FILE_ARGUMENTS if name in item]
    trials = []
    for configuration in spec.configurations():
        model = _model(spec.task, {**spec.fixed, **configuration})
        depends_on = {
            "task": spec.task,
            "arguments": {**spec.fixed, **configuration},
            "items": items,
            "repeats": spec.repeats,
            "warmup": spec.warmup,
            "isolate": spec.isolate,
        }
        key = trial_key(depends_on, model, files)
        trials.append(PlannedTrial(configuration, model.id, key, None))
    measured = _measured_runs(spec) if resume else {}
    return SweepPlan(
        spec,
        items,
        tuple(
            PlannedTrial(t.configuration, t.model, t.key, run.info.run_id)
            if (run := measured.get(t.key))
            else t
            for t in trials
        ),
    )


def sweep(
    spec_or_path: SweepSpec | Mapping[str, Any] | str | Path,
    *,
    executor: str = "local",
    resume: bool = True,
    fast: bool = False,
    progress: SweepProgress | None = None,
) -> Study:
    """Measure every combination of a sweep's grid and return the `Study`.

    ``spec_or_path`` is a `SweepSpec`, a mapping of its fields, a YAML file or a folder with an
    ``experiment.yaml``. ``resume`` reads finished trials back instead of running them again.
    ``fast`` uses the fast settings of the experiment. ``progress`` is told the plan, then every
    trial with the time that is left; None writes both to standard error.

    A trial that fails is a row of the study with the class of its failure. Raises what
    `plan_sweep` raises, before anything runs, and UnknownOption for the executor.
    """
    if executor != "local":
        raise UnknownOption(f"There is no executor {executor!r}.", "Use local.")
    plan = plan_sweep(spec_or_path, resume=resume, fast=fast)
    report = progress or _to_stderr(plan)
    report(0, len(plan.trials), plan.headline())
    return _Execution(plan, resume).run(report)


class _Execution:
    """One run of a plan: its parent run in MLflow, and the trials finished so far."""

    def __init__(self, plan: SweepPlan, resume: bool) -> None:
        self._plan = plan
        self._spec = plan.spec
        self._experiment = store.experiment_id(plan.spec.name)
        self._trials: list[Trial] = []
        self._spent_seconds: list[float] = []
        self._is_store_lost = False
        self._parent = self._open_parent(resume)

    def run(self, report: SweepProgress) -> Study:
        status = "KILLED"
        try:
            for planned in self._plan.trials:
                trial = self._read_back(planned) or self._measure(planned)
                self._trials.append(trial)
                report(len(self._trials), len(self._plan.trials), self._line(trial))
            status = "FINISHED"
        finally:
            study = Study(self._spec, len(self._plan.items), tuple(self._trials), self._parent)
            self._write(
                lambda: store.close_run(self._parent, status, {"study.json": study.to_dict()})
            )
        return study

    def _open_parent(self, resume: bool) -> str:
        text = json.dumps(self._spec.model_dump(mode="json"), sort_keys=True, default=str)
        key = hashlib.sha256(text.encode()).hexdigest()[:24]
        if resume:
            same = f"tags.`workbench.sweep_key` = '{key}'"
            if found := store.search([self._experiment], same, limit=1):
                run_id = str(found[0].info.run_id)
                store.reopen_run(run_id)
                return run_id
        entry = store.RunEntry(
            name=self._spec.name,
            kind="sweep",
            params={"question": self._spec.question, **flatten(self._spec.fixed, "fixed.")},
            tags={"workbench.task": self._spec.task, "workbench.sweep_key": key, **_provenance()},
        )
        return store.open_run(self._experiment, entry)

    def _read_back(self, planned: PlannedTrial) -> Trial | None:
        """The earlier measurement, or None where there is none that can be read."""
        if planned.run_id is None:
            return None
        content = store.read_artifact(planned.run_id, _ARTIFACT)
        try:
            measurement = Measurement.model_validate(content)
        except ValidationError:
            return None  # its artifact was lost: it is measured again
        return Trial(planned.configuration, measurement, planned.run_id, was_measured_before=True)

    def _measure(self, planned: PlannedTrial) -> Trial:
        request = TrialRequest(
            task=self._spec.task,
            arguments={**self._spec.fixed, **planned.configuration},
            items=list(self._plan.items),
            repeats=self._spec.repeats,
            warmup=self._spec.warmup,
        )
        if self._spec.isolate:
            measurement = measure_isolated(request, self._spec.timeout_seconds)
        else:
            default_pool().unload()  # so that the first call loads the model
            measurement = measure(request)
        self._spent_seconds.append(measurement.wall_seconds)
        entry = _entry(planned, measurement, self._spec, self._parent)
        run_id = self._write(lambda: store.write_run(self._experiment, entry))
        return Trial(planned.configuration, measurement, run_id)

    def _write(self, write: Callable[[], str | None]) -> str | None:
        """Write to the store; a store that is lost midway costs no result, and one warning."""
        try:
            return write()
        except Unavailable as error:
            if not self._is_store_lost:
                warnings.warn(f"{error} The study is complete.", RuntimeWarning, stacklevel=2)
            self._is_store_lost = True
            return None

    def _line(self, trial: Trial) -> str:
        label = label_of(trial.configuration)
        if trial.was_measured_before:
            return f"{label}: measured before"
        what = trial.measurement.failure or f"{statistics.seconds(trial.measurement)} s a call"
        left = sum(t.run_id is None for t in self._plan.trials[len(self._trials) :])
        if not left:
            return f"{label}: {what}"
        mean_seconds = sum(self._spent_seconds) / len(self._spent_seconds)
        return f"{label}: {what}; about {mean_seconds * left:.0f} s left"


def _model(task: SweepTask, arguments: Mapping[str, Any]) -> ModelSpec:
    model_task, setting = _MODEL_OF[task]
    return get(arguments.get("model") or getattr(get_settings().models, setting), model_task)


def _measured_runs(spec: SweepSpec) -> dict[str, Run]:
    """The finished trials of this experiment by their key."""
    if spec.name not in store.experiments():
        return {}
    condition = "attributes.status = 'FINISHED' and tags.`workbench.kind` = 'trial'"
    found = store.search([store.experiment_id(spec.name)], condition)
    return {run.data.tags.get("workbench.trial_key", ""): run for run in reversed(found)}


def _entry(
    planned: PlannedTrial, measurement: Measurement, spec: SweepSpec, parent: str
) -> store.RunEntry:
    """The MLflow run of one trial: statistics as metrics, raw samples as steps and artifact."""
    calls = measurement.measured()
    values = statistics.metrics(measurement)
    values |= {f"quality.{name}": v for name, v in statistics.quality(measurement).items()}
    values |= {
        "total_seconds": measurement.wall_seconds,
        "load_seconds": measurement.load_seconds,
        "planned_memory_bytes": measurement.planned_bytes,
        "peak_memory_bytes": statistics.peak_bytes(measurement),
    }
    # the first call loaded the model: the others add nothing that was predicted anew
    values |= memory_metrics(measurement.calls[0].memory if measurement.calls else None)
    first = statistics.first_call_seconds(measurement)
    if first is not None:
        values["first_call_seconds"] = first
    if spread := statistics.seconds(measurement):
        values["median_seconds"] = spread.median
    return store.RunEntry(
        name=label_of(planned.configuration),
        kind="trial",
        params={**flatten({**spec.fixed, **planned.configuration}), "model": planned.model},
        metrics=values,
        series={"call_seconds": [call.seconds for call in calls]},
        tags={
            "workbench.task": spec.task,
            "workbench.trial_key": planned.key,
            "workbench.failure": measurement.failure or "",
            "workbench.peak_method": measurement.peak_method,
            **_provenance(),
        },
        artifacts={_ARTIFACT: measurement.model_dump(mode="json")},
        seconds=measurement.wall_seconds,
        error=measurement.error,
        parent_run_id=parent,
    )


def _provenance() -> dict[str, str]:
    tags = {f"environment.{name}": text for name, text in environment().items()}
    tags |= {f"machine.{name}": text for name, text in machine().items()}
    if commit := git_commit():
        tags["mlflow.source.git.commit"] = commit
    return tags


def _to_stderr(plan: SweepPlan) -> SweepProgress:
    def report(done: int, total: int, what: str) -> None:
        text = f"[{done}/{total}] {what}" if done else plan.table()
        print(text, file=sys.stderr, flush=True)  # noqa: T201 - progress is for a person

    return report
