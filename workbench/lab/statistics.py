"""What raw samples say, and no more than they say: medians, ranges and paired ratios.

There are no percentiles here: a p95 needs 100 samples (n >= 5 / (1 - Q)), and a sweep of a few
items has fewer.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median

from workbench.lab.trial import Call, Measurement

#: Quality numbers of the tasks, the most telling first, and whether a lower one is better.
LOWER_IS_BETTER = {
    "wer": True,
    "cer": True,
    "hallucinated_words_per_minute": True,
    "execution_match": False,
    "valid_sql": False,
    "exact_match": False,
    "contains": False,
    "all_right": False,
}
#: That many items on one side have p = 2 * 0.5**6 < 0.05 if neither configuration is faster.
SIGN_TEST_ITEMS = 6

#: A sweep alone keeps the load average near one a core; above this, others compute too.
BUSY_LOAD_PER_CORE = 1.5


@dataclass(frozen=True)
class Spread:
    """The middle and the ends of ``n`` values."""

    median: float
    low: float
    high: float
    n: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Of at least one value."""
        return cls(median(values), min(values), max(values), len(values))

    def __str__(self) -> str:
        if self.n == 1:
            return f"{self.median:.3g} (n=1)"
        return f"{self.median:.3g} ({self.low:.3g} to {self.high:.3g}, n={self.n})"


def seconds(measurement: Measurement) -> Spread | None:
    """Seconds of the measured calls; None where there are none."""
    calls = measurement.measured()
    return Spread.of([call.seconds for call in calls]) if calls else None


def paired_ratio(measurement: Measurement, baseline: Measurement) -> Spread | None:
    """How many times the baseline's seconds each item took: one ratio an item.

    Items differ in length, so only the same item is compared with itself. None where no item
    was measured in both.
    """
    mine, theirs = _by_item(measurement.measured()), _by_item(baseline.measured())
    ratios = [mine[item] / theirs[item] for item in mine if theirs.get(item)]
    return Spread.of(ratios) if ratios else None


def quality(measurement: Measurement) -> dict[str, float]:
    """The mean over the measured calls of each quality number, by the weight of each item.

    Error rates are thereby those of the corpus: all errors over all words of the references.
    """
    sums: dict[str, tuple[float, float]] = {}
    for call in measurement.measured():
        for name, value in call.quality.items():
            weight = call.weights.get(name, 1.0)
            total, weights = sums.get(name, (0.0, 0.0))
            sums[name] = total + weight * value, weights + weight
    return {name: total / weights for name, (total, weights) in sums.items() if weights}


def metrics(measurement: Measurement) -> dict[str, float]:
    """The median over the measured calls of each metric that the task reports."""
    columns: dict[str, list[float]] = {}
    for call in measurement.measured():
        for name, value in call.metrics.items():
            columns.setdefault(name, []).append(value)
    return {name: median(values) for name, values in columns.items()}


def first_call_seconds(measurement: Measurement) -> float | None:
    """Seconds of the first call, which loads the model; None where it failed."""
    return next((call.seconds for call in measurement.calls if call.kind == "first"), None)


def peak_bytes(measurement: Measurement) -> int:
    """The highest memory of the process during any call, the first (with the load) included."""
    return max((call.peak_bytes for call in measurement.calls), default=0)


def _by_item(calls: Iterable[Call]) -> dict[int, float]:
    grouped: dict[int, list[float]] = {}
    for call in calls:
        grouped.setdefault(call.item, []).append(call.seconds)
    return {item: median(values) for item, values in grouped.items()}
