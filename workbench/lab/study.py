"""`Study`: what a sweep found, as a table, a text that is honest about n, and a figure."""

from __future__ import annotations

import html
import itertools
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from workbench.lab import statistics
from workbench.lab.provenance import machine
from workbench.lab.spec import SweepSpec
from workbench.lab.trial import Measurement
from workbench.tasks.record import environment

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

#: Of what the tasks report, the numbers that belong into a table; MLflow has all.
_SHOWN_METRICS = (
    "realtime_factor",
    "first_segment_seconds",
    "first_token_seconds",
    "tokens_per_second",
    "seconds_per_step",
)


@dataclass(frozen=True)
class Trial:
    """One finished trial. ``run_id`` is None where the store was lost."""

    configuration: dict[str, Any]
    measurement: Measurement
    run_id: str | None
    was_measured_before: bool = False

    @property
    def status(self) -> str:
        """``finished``, or the class of the failure."""
        return self.measurement.failure or "finished"


@dataclass(frozen=True)
class Study:
    """The trials of a sweep in the order of its grid. Ratios are to the first finished one."""

    spec: SweepSpec
    item_count: int
    trials: tuple[Trial, ...]
    run_id: str

    def finished(self) -> list[Trial]:
        """The trials that gave measured calls."""
        return [trial for trial in self.trials if trial.status == "finished"]

    def frame(self) -> pd.DataFrame:
        """One row a trial: its grid values, status, n, times, quality, memory, MLflow run.

        Seconds are of one call; ``seconds_ratio`` compares item by item with the first
        finished trial; ``realtime_factor`` (speech) is processing over audio time.
        """
        import pandas as pd

        return pd.DataFrame([self._row(trial) for trial in self.trials])

    def summary(self) -> str:
        """The findings as text: medians and ranges with their n, and what failed."""
        here = machine()
        lines = [
            f"{self.spec.name}: {self.spec.question}",
            f"{len(self.trials)} trials on {self.item_count} items x {self.spec.repeats} repeats; "
            f"{here['processor']}, {here['cores']} cores.",
        ]
        lines += [f"  {label_of(t.configuration)}: {self._finding(t)}" for t in self.trials]
        lines.append(
            "Times are median (lowest to highest) with the number n of samples; there are too "
            "few for percentiles."
        )
        if self._is_busy():
            lines.append(
                f"The machine was busy with other work (load {self._load_per_core():.1f} a core): "
                "the times are not to be relied on; quality and memory are."
            )
        return "\n".join([*lines, *self._verdict()])

    def plot(self) -> Figure:
        """Quality against time: one labelled point a finished trial, with its range of times.

        Without a quality number the other axis is the peak memory.
        """
        import matplotlib.pyplot as plt

        figure: Figure
        figure, axes = plt.subplots(figsize=(7, 5), layout="constrained")
        name = self._quality_name()
        for trial, marker in zip(self.finished(), itertools.cycle("osD^vP*X"), strict=False):
            spread = statistics.seconds(trial.measurement)
            assert spread is not None
            height = (
                statistics.quality(trial.measurement)[name]
                if name
                else statistics.peak_bytes(trial.measurement) / 2**20
            )
            ends = [[spread.median - spread.low], [spread.high - spread.median]]
            label = f"{label_of(trial.configuration)} (n={spread.n})"
            axes.errorbar(
                spread.median, height, xerr=ends, fmt=marker, capsize=3, alpha=0.8, label=label
            )
        axes.set_xlabel("seconds a call: median, and range over the items")
        axes.set_ylabel(_quality_label(name) if name else "peak memory of the process (MiB)")
        axes.set_title("\n".join(textwrap.wrap(self.spec.question, 70)), fontsize="medium")
        axes.margins(x=0.1, y=0.2)
        if axes.get_legend_handles_labels()[0]:  # beside the points: points may coincide
            figure.legend(loc="outside lower center", ncols=2, fontsize="small")
        plt.close(figure)  # the caller shows it; a notebook would show it twice
        return figure

    def to_dict(self) -> dict[str, Any]:
        """The study as JSON types, without the raw samples (they are in each MLflow run)."""
        return {
            "name": self.spec.name,
            "question": self.spec.question,
            "task": self.spec.task,
            "items": self.item_count,
            "repeats": self.spec.repeats,
            "run_id": self.run_id,
            "machine": machine(),
            "environment": environment(),
            "trials": [self._row(trial) for trial in self.trials],
        }

    def accepted(self) -> dict[str, Any]:
        """What another machine of the class can check: quality and ratios, no seconds.

        This is the content of an experiment's ``accepted.json``. Ratios of times are left out
        when the machine was busy with other work.
        """
        kept = ["status", "n"]
        if not self._is_busy():
            kept += ["seconds_ratio", "seconds_ratio_low", "seconds_ratio_high"]
        first = self.finished()[:1]
        base_bytes = statistics.peak_bytes(first[0].measurement) if first else 0
        rows = []
        for trial in self.trials:
            row = self._row(trial)
            peak_bytes = statistics.peak_bytes(trial.measurement)
            rows.append(
                {
                    "configuration": trial.configuration,
                    **{name: _rounded(row[name]) for name in kept if name in row},
                    "peak_memory_ratio": _rounded(peak_bytes / base_bytes if base_bytes else None),
                    "quality": {
                        name: _rounded(value)
                        for name, value in statistics.quality(trial.measurement).items()
                    },
                }
            )
        return {
            "machine": {name: text for name, text in machine().items() if name != "memory"},
            "environment": environment(),
            "load_per_core": _rounded(self._load_per_core()),
            "items": self.item_count,
            "repeats": self.spec.repeats,
            "trials": rows,
        }

    def _repr_html_(self) -> str:
        table: str = self.frame().drop(columns="run_id").to_html(escape=True, index=False)
        return f"<pre>{html.escape(self.summary())}</pre>{table}"

    # -- inside ------------------------------------------------------------------------------

    def _row(self, trial: Trial) -> dict[str, Any]:
        measured = trial.measurement
        row: dict[str, Any] = {**trial.configuration, "status": trial.status}
        row["n"] = len(measured.measured())
        if spread := statistics.seconds(measured):
            row["median_seconds"] = spread.median
            row["min_seconds"], row["max_seconds"] = spread.low, spread.high
        if ratio := self._ratio(trial):
            row["seconds_ratio"] = ratio.median
            row["seconds_ratio_low"], row["seconds_ratio_high"] = ratio.low, ratio.high
        row |= statistics.quality(measured)
        reported = statistics.metrics(measured)
        row |= {name: reported[name] for name in _SHOWN_METRICS if name in reported}
        row["first_call_seconds"] = statistics.first_call_seconds(measured)
        row["load_seconds"] = measured.load_seconds
        row["peak_mib"] = statistics.peak_bytes(measured) / 2**20
        row["planned_mib"] = measured.planned_bytes / 2**20
        row["error"] = measured.error
        row["measured_before"] = trial.was_measured_before
        row["run_id"] = trial.run_id
        return row

    def _ratio(self, trial: Trial) -> statistics.Spread | None:
        finished = self.finished()
        if not finished or trial.status != "finished":
            return None
        return statistics.paired_ratio(trial.measurement, finished[0].measurement)

    def _load_per_core(self) -> float | None:
        """The highest load at which a trial of this study began."""
        loads = [trial.measurement.load_per_core for trial in self.trials]
        return max((load for load in loads if load is not None), default=None)

    def _is_busy(self) -> bool:
        load = self._load_per_core()
        return load is not None and load > statistics.BUSY_LOAD_PER_CORE

    def _finding(self, trial: Trial) -> str:
        if trial.status != "finished":
            return f"{trial.status}: {trial.measurement.error}"
        parts = [f"{statistics.seconds(trial.measurement)} s"]
        qualities = statistics.quality(trial.measurement)
        parts += [f"{name} {value:.3f}" for name, value in qualities.items()]
        parts.append(f"peak {statistics.peak_bytes(trial.measurement) / 2**20:.0f} MiB")
        return ", ".join(parts)

    def _verdict(self) -> list[str]:
        finished = self.finished()
        if len(finished) < 2:
            return ["Nothing to compare: fewer than two trials finished."]
        base = label_of(finished[0].configuration)
        lines = [f"Time of the same item, as a ratio to {base}:"]
        for trial in finished[1:]:
            ratio = self._ratio(trial)
            assert ratio is not None
            lines.append(f"  {label_of(trial.configuration)}: {ratio}{_caution(ratio)}")
        return lines

    def _quality_name(self) -> str | None:
        """The first known quality number that all finished trials have, else any."""
        names = [set(statistics.quality(trial.measurement)) for trial in self.finished()]
        shared = set.intersection(*names) if names else set()
        known = [name for name in statistics.LOWER_IS_BETTER if name in shared]
        return next(iter([*known, *sorted(shared)]), None)


def label_of(configuration: Mapping[str, Any]) -> str:
    """``{"compute_type": "int8", "beam_size": 1}`` -> ``compute_type=int8 beam_size=1``."""
    return " ".join(f"{name}={value}" for name, value in configuration.items()) or "(no grid)"


def _caution(ratio: statistics.Spread) -> str:
    """What keeps a ratio from being a difference: a two-sided sign test over the items."""
    if ratio.low <= 1 <= ratio.high:
        return "; the items do not agree on which is faster"
    if ratio.n < statistics.SIGN_TEST_ITEMS:
        return f"; {statistics.SIGN_TEST_ITEMS} items that agree would be needed to be sure"
    return ""


def _quality_label(name: str) -> str:
    lower = statistics.LOWER_IS_BETTER.get(name)
    if lower is None:
        return name
    return f"{name} ({'lower' if lower else 'higher'} is better)"


def _rounded(value: Any) -> Any:
    return round(value, 4) if isinstance(value, float) else value
