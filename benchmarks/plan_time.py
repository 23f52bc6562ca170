"""How long a plan takes once the headers were read: median and 95th percentile, in milliseconds.

    python benchmarks/plan_time.py [--runs 50]

It plans each starter that is here in three ways: as the workbench would load it, one that does
not fit (its fixes are planned too), and a search over every way to load.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import workbench
from workbench.memory.plan import MemoryPlan

CASES: dict[str, dict[str, object]] = {
    "fits": {"memory": "16GiB"},
    "fits not": {"memory": "64MiB"},
    "search": {"memory": "16GiB", "best": True},
    "what is free": {},
}


def milliseconds(make: Callable[[], MemoryPlan], runs: int) -> list[float]:
    """Each run's time; the first plan, which reads files, is left out."""
    make()
    found = []
    for _ in range(runs):
        started = time.perf_counter()
        make()
        found.append(1000 * (time.perf_counter() - started))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=50)
    runs = parser.parse_args().runs
    print(f"{'model':<22}{'plan':<14}{'median ms':>10}{'p95 ms':>10}")
    for spec in workbench.models.list():
        if not spec.starter or workbench.models.locate(spec.id) is None:
            continue
        for case, given in CASES.items():
            times = milliseconds(lambda: workbench.plan(spec.id, **given), runs)  # type: ignore[arg-type]  # noqa: B023
            p95 = statistics.quantiles(times, n=20)[-1]
            print(f"{spec.id:<22}{case:<14}{statistics.median(times):>10.1f}{p95:>10.1f}")


if __name__ == "__main__":
    main()
