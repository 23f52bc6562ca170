"""What the pool costs, whether it is fair under load, and whether swapping leaves memory behind.

    python benchmarks/pool_stress.py [--swaps 200] [--json]

* overhead: seconds that acquiring and leaving a loaded model takes (target: at most 2 ms);
* clients: 8 clients over 4 stub models where 2 fit, loads of each model;
* swaps (``--swaps N``): chat, speech and image in turn under a limit that holds one; growth of
  resident memory after the first rounds, when every library is imported (target: at most 2 %).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import workbench
from workbench.engines.measure import run_request
from workbench.engines.pool import ModelPool
from workbench.memory.devices import process_bytes
from workbench.memory.plan import MemoryPlan
from workbench.memory.request import RequestSize
from workbench.models.spec import ModelSpec
from workbench.settings import get_settings
from workbench.units import format_bytes

MODELS = ("smollm2-135m", "whisper-tiny.en", "shapes-32")
SIZES = {
    "chat": RequestSize(prompt_tokens=32),
    "speech": RequestSize(audio_seconds=5.0, beams=1),
    "image": RequestSize(),
}
WARM_ROUNDS = 3


def main() -> None:
    """Run the parts that were asked for and print them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--swaps", type=int, default=0, help="with real models")
    parser.add_argument("--requests", type=int, default=25, help="of each of the 8 clients")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    found: dict[str, Any] = {"overhead": overhead(), "clients": clients(arguments.requests)}
    if arguments.swaps:
        found["swaps"] = swaps(arguments.swaps)
    print(json.dumps(found) if arguments.json else _text(found))


def overhead(rounds: int = 500) -> dict[str, float]:
    """Acquire and leave a loaded, planned model, again and again."""
    pool, spec = ModelPool(), workbench.models.get("whisper-tiny.en")
    size = RequestSize(audio_seconds=30.0)
    seconds = []
    with pool.acquire(spec, size=size):
        pass
    for _ in range(rounds):
        started = time.perf_counter()
        with pool.acquire(spec, size=size):
            pass
        seconds.append(time.perf_counter() - started)
    pool.unload()
    return {
        "median_ms": 1000 * statistics.median(seconds),
        "p95_ms": 1000 * sorted(seconds)[int(0.95 * rounds)],
    }


def clients(requests: int) -> dict[str, Any]:
    """8 clients, two a model, on a limit that holds two of the four models."""
    import pytest

    from tests.engines.pool_bench import Bench  # the machine that the tests use

    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        bench = Bench(Path(folder), patch, clock=time.monotonic)
        specs = [bench.spec(name, 45) for name in "abcd"]

        def client(spec: ModelSpec) -> None:
            for _ in range(requests):
                with bench.pool.acquire(spec):
                    time.sleep(0.001)

        threads = [threading.Thread(target=client, args=(specs[n % 4],)) for n in range(8)]
        started = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        stuck = sum(thread.is_alive() for thread in threads)
        reloads = {name: count - 1 for name, count in Counter(bench.loads).items()}
    get_settings.cache_clear()
    return {"reloads": reloads, "stuck": stuck, "seconds": time.perf_counter() - started}


def swaps(count: int) -> dict[str, Any]:
    """Load the three models in turn, ``count`` times in all, one request each."""
    pool = ModelPool()
    specs = [workbench.models.get(name) for name in MODELS]
    plans = [pool.plan(spec, size=SIZES[spec.task]) for spec in specs]
    resident: list[int] = []
    most = 0
    limit = _limit_for(plans)
    for number in range(count):
        spec = specs[number % len(specs)]
        with pool.acquire(spec, size=SIZES[spec.task]) as model:
            run_request(model, spec.task, SIZES[spec.task])
            most = max(most, len(pool.loaded()))
        if number % len(specs) == len(specs) - 1:
            resident.append(process_bytes())
            print(f"{number + 1} swaps: {format_bytes(resident[-1])}", file=sys.stderr, flush=True)
    first, last = resident[WARM_ROUNDS - 1], resident[-1]
    evictions = [entry for entry in pool.log() if entry["action"] == "evict"]
    kept = [entry["reason"] for entry in evictions if "come back" in entry["reason"]]
    pool.unload()
    os.environ.pop("WORKBENCH_MEMORY__LIMIT")
    get_settings.cache_clear()
    return {
        "swaps": count,
        "limit_bytes": limit,
        "first_bytes": first,
        "last_bytes": last,
        "growth_percent": 100 * (last / first - 1),
        "resident_mib": [round(size / 2**20, 1) for size in resident],
        "most_loaded": most,
        "evictions_logged": len(evictions),
        "not_returned": kept[-3:],
    }


def _limit_for(plans: list[MemoryPlan]) -> int:
    """Set a limit that holds every engine's libraries and the largest model, no second one."""
    contexts = [sum(t.size_bytes for t in p.terms if t.name == "context") for p in plans]
    needs = [plan.upper_bytes - context for plan, context in zip(plans, contexts, strict=True)]
    limit = sum(contexts) + max(needs) + 2**20
    os.environ["WORKBENCH_MEMORY__LIMIT"] = f"{limit // 2**20}MiB"
    get_settings.cache_clear()
    return limit


def _text(found: dict[str, Any]) -> str:
    cost, run = found["overhead"], found["clients"]
    lines = [
        f"overhead  median {cost['median_ms']:.3f} ms, p95 {cost['p95_ms']:.3f} ms",
        f"clients   reloads {run['reloads']}, stuck {run['stuck']}",
    ]
    if "swaps" in found:
        swap = found["swaps"]
        first, last = format_bytes(swap["first_bytes"]), format_bytes(swap["last_bytes"])
        lines.append(
            f"swaps     {swap['swaps']}: {first} to {last} ({swap['growth_percent']:+.2f} %)"
        )
        lines.append(f"          each round, MiB: {swap['resident_mib']}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
