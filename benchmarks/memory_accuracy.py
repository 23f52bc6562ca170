"""Scores the memory estimates on golden measurements: ``python benchmarks/memory_accuracy.py``.

Needs no model and no GPU: a golden row (see ``memory_measure.py``) holds the facts, the options,
the request and the measured peak. Three tables:

* **as shipped**: the estimate as it is, with the row's own measured context.
* **after one calibration**: for each row of a family, the correction is learned from that row
  alone, by the code that plans use, and the other rows of the family are scored.
* **after all others**: each row, corrected by all other rows of its family together.

The error is ``|predicted / measured - 1|``; *under* is the worst prediction below the measured
peak, *over bound* the share of rows whose peak is above the upper bound, *bound* the median of
upper bound / measured. ``--check`` exits with 1 where a target is missed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from workbench.memory.correction import Sample, apply, fit, parts_of
from workbench.memory.estimate import estimate
from workbench.memory.facts import ModelFacts
from workbench.memory.machine import Machine
from workbench.memory.request import LoadOptions, RequestSize
from workbench.memory.terms import Estimate

FOLDER = Path(__file__).parent / "memory"
#: median error, 95th percentile, worst under-prediction
SHIPPED_TARGET, CALIBRATED_TARGET = (0.05, 0.12, 0.03), (0.02, 0.05, 0.03)


@dataclass(frozen=True)
class Row:
    """One golden measurement with its estimate."""

    case: str
    engine: str
    held_out: bool
    estimate: Estimate
    measured_bytes: int

    @property
    def sample(self) -> Sample:
        return Sample(parts_of(self.estimate), self.measured_bytes)


@dataclass(frozen=True)
class Score:
    """One prediction: ratios to the measured peak."""

    case: str
    family: str
    engine: str
    held_out: bool
    predicted: float
    upper: float


@dataclass(frozen=True)
class Summary:
    """One line of a table."""

    name: str
    n: int
    median: float
    p95: float
    under: float
    over_bound: float
    bound: float


def read_rows(folder: Path = FOLDER) -> list[Row]:
    """All golden rows, estimated."""
    held_out = {
        case["id"]
        for file in sorted(folder.glob("cases*/*.yaml"))
        for case in yaml.safe_load(file.read_text(encoding="utf-8")) or ()
        if case.get("held_out") or case["id"].startswith("held-out-")
    }
    rows = []
    for file in sorted(folder.glob("golden/*.json")):
        golden: dict[str, dict[str, Any]] = json.loads(file.read_text(encoding="utf-8"))
        for case, row in golden.items():
            facts = ModelFacts.model_validate(row["facts"])
            measured = row["measured"]
            options, size = LoadOptions(**row["options"]), RequestSize(**row["size"])
            peak = measured["peak_bytes"]
            machine = Machine(
                name="the row's own",
                is_measured=True,
                context_bytes={facts.engine: measured["context_bytes"]},
            )
            if options.device != "cpu":  # the GPU's own context is that of the machine
                machine = Machine.model_validate(row["machine"])
                device = measured["device"]
                peak = device.get("device_bytes", device["reserved_bytes"])
            found = estimate(facts, options, size, machine)
            rows.append(Row(case, facts.engine, case in held_out, found, peak))
    return rows


def score(row: Row, found: Estimate) -> Score:
    """How far an estimate of ``row`` is from what was measured."""
    peak = row.measured_bytes
    ratios = found.peak_bytes / peak, found.upper_bytes / peak
    return Score(row.case, row.estimate.family, row.engine, row.held_out, *ratios)


def families_of(rows: Sequence[Row]) -> list[list[Row]]:
    """The rows that teach each other."""
    families: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        families[row.estimate.family].append(row)
    return list(families.values())


def learned_scores(rows: Sequence[Row]) -> Iterator[Score]:
    """Each row of a family of several, corrected by all others of it."""
    for family in families_of(rows):
        for row in family:
            others = [other.sample for other in family if other is not row]
            if others:
                yield score(row, apply(fit(others), row.estimate))


def calibrated_scores(rows: Sequence[Row]) -> Iterator[Score]:
    """Each row of a family, corrected by each other row of it alone."""
    for family in families_of(rows):
        for teacher in family:
            correction = fit([teacher.sample])
            for row in family:
                if row is not teacher:
                    yield score(row, apply(correction, row.estimate))


def summary(name: str, scores: Sequence[Score]) -> Summary:
    """Errors of ``scores`` (at least one) as one line."""
    errors = sorted(abs(found.predicted - 1) for found in scores)
    return Summary(
        name=name,
        n=len(scores),
        median=statistics.median(errors),
        p95=errors[max(0, -(-95 * len(errors) // 100) - 1)],  # nearest rank
        under=max(0.0, 1 - min(found.predicted for found in scores)),
        over_bound=sum(found.upper < 1 for found in scores) / len(scores),
        bound=statistics.median(found.upper for found in scores),
    )


def summaries(scores: Sequence[Score]) -> list[Summary]:
    """By family, by engine, of the held-out cases, and of all."""
    lines = [
        summary(family, [found for found in scores if found.family == family])
        for family in sorted({found.family for found in scores})
    ]
    lines += [
        summary(f"all {engine}", [found for found in scores if found.engine == engine])
        for engine in sorted({found.engine for found in scores})
    ]
    if held_out := [found for found in scores if found.held_out]:
        lines.append(summary("held out", held_out))
    return [*lines, summary("all", scores)]


def misses(name: str, found: Summary, target: tuple[float, float, float]) -> list[str]:
    """Which targets are missed, in words."""
    values = {"median": found.median, "p95": found.p95, "under-prediction": found.under}
    return [
        f"{name}: {what} {100 * value:.1f} % (target {100 * limit:g} %)"
        for (what, value), limit in zip(values.items(), target, strict=True)
        if value > limit
    ]


def table(title: str, lines: Sequence[Summary]) -> str:
    """A table for a terminal."""
    head = f"{title:<58}{'n':>5}{'median':>9}{'p95':>8}{'under':>8}{'over bound':>12}{'bound':>8}"
    rows = [
        f"{line.name:<58}{line.n:>5}{100 * line.median:>7.1f} %{100 * line.p95:>6.1f} %"
        f"{100 * line.under:>6.1f} %{100 * line.over_bound:>10.1f} %{line.bound:>7.2f}x"
        for line in lines
    ]
    return "\n".join([head, *rows])


def main() -> None:
    """Print the tables, or everything as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--check", action="store_true", help="exit with 1 where a target is missed")
    parser.add_argument("--cases", action="store_true", help="one line a case, the worst first")
    asked = parser.parse_args()
    rows = read_rows()
    if not rows:
        sys.exit(f"There are no golden rows in {FOLDER / 'golden'}: run memory_measure.py.")
    shipped = [score(row, row.estimate) for row in rows]
    calibrated = list(calibrated_scores(rows))
    tables = {
        "as shipped": shipped,
        "after one calibration": calibrated,
        "after all others": list(learned_scores(rows)),
    }
    found = {title: summaries(scores) for title, scores in tables.items() if scores}
    missed = misses("as shipped", found["as shipped"][-1], SHIPPED_TARGET)
    if calibrated:
        last = found["after one calibration"][-1]
        missed += misses("after one calibration", last, CALIBRATED_TARGET)
    if asked.json:
        answer = {title: [asdict(line) for line in lines] for title, lines in found.items()}
        cases = [asdict(line) for line in shipped]
        print(json.dumps({**answer, "cases": cases, "missed": missed}, indent=1))
    else:
        for title, lines in found.items():
            print(table(title, lines), end="\n\n")
        if asked.cases:
            for line in sorted(shipped, key=lambda line: -abs(line.predicted - 1)):
                mark = " (held out)" if line.held_out else ""
                print(f"{line.predicted:>7.3f}  <= {line.upper:.3f}  {line.case}{mark}")
        print("\n".join(missed) if missed else "All targets are met.")
    if asked.check and missed:
        sys.exit(1)


if __name__ == "__main__":
    main()
