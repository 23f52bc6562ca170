"""Runs what the plan calls fitting inside a hard limit: ``python benchmarks/memory_limit.py``.

Each run is a random request to a starter in a fresh process: it imports the engine's libraries,
plans the request, limits itself to the upper bound of the plan, loads the model and runs. A run
that the system refuses memory, or that fails in any other way, is an OOM of the plan. The second
part counts false refusals from the golden rows (see ``memory_measure.py``): a request whose
measured peak is 90 % of the budget must be accepted in at least 95 % of cases, and one at 80 %
always.

**The limit.** The plan counts resident memory, and Linux has no limit on that alone
(``RLIMIT_RSS`` does nothing since 2.4; a control group also charges file cache and needs rights
that a container rarely gives). ``RLIMIT_AS`` counts what is only reserved, such as malloc's arenas
of 64 MiB a thread, so it would leave room that was not planned. The limit is ``RLIMIT_DATA``, on
private writable memory, at the upper bound less the pages of files (libraries, mapped weights)
plus what is writable and never touched (thread stacks, ends of heaps, parts of buffers). Both are
measured for each model and each way to load it by one small request without a limit; the larger a
request, the more of what was set aside for it is touched, so this never gives too little room.

**The control.** The same small request, allowed 70 % of the writable memory that it took beyond
the libraries, must fail for each of them: it shows that the limit bites.

    python benchmarks/memory_limit.py --runs 200 --json benchmarks/memory/limit.json
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from memory_accuracy import Row, read_rows

from workbench import models
from workbench.engines import registry
from workbench.engines.facts import with_activations
from workbench.engines.measure import run_request
from workbench.memory.correction import apply, fit
from workbench.memory.devices import process_bytes
from workbench.memory.estimate import estimate
from workbench.memory.facts import ModelFacts, read_facts
from workbench.memory.machine import Machine
from workbench.memory.request import LoadOptions, RequestSize
from workbench.memory.terms import Estimate
from workbench.models import sources
from workbench.models.spec import ModelSpec

MODELS = ("smollm2-135m", "whisper-tiny.en", "minilm-l6", "shapes-32")
#: One after the other would leave a core idle while a process imports its libraries.
_AT_ONCE = 2
_CONTROL_SHARE = 0.7
_TIMEOUT_SECONDS = 300.0


@dataclass(frozen=True)
class Run:
    """One request inside its limit, in bytes. ``failure`` is None for a run that finished."""

    model: str
    options: dict[str, Any]
    size: dict[str, Any]
    predicted_bytes: int
    upper_bytes: int
    limit_bytes: int
    peak_bytes: int
    failure: str | None


def ways(spec: ModelSpec) -> list[LoadOptions]:
    """The ways to load that the runs choose from."""
    if spec.task == "chat":
        return [LoadOptions(context_tokens=tokens) for tokens in (512, 1024, 2048, 4096)]
    if spec.task == "speech":
        return [LoadOptions(compute_type=name) for name in ("int8", "float32")]
    return [LoadOptions()]


def draw(spec: ModelSpec, options: LoadOptions, chance: random.Random) -> RequestSize:
    """A random request that the model can take."""
    if spec.task == "chat":
        # caches and buffers are made for the whole context, however long the prompt is
        return RequestSize(prompt_tokens=chance.randrange(8, 100))
    if spec.task == "speech":
        return RequestSize(
            audio_seconds=round(chance.uniform(1, 45), 1),
            beams=chance.randrange(1, 6),
            words=chance.random() < 0.3,
        )
    if spec.task == "image":
        return RequestSize(batch=chance.randrange(1, 25), guided=chance.random() < 0.7)
    return RequestSize(prompt_tokens=chance.randrange(8, 256), batch=chance.randrange(1, 33))


def smallest(spec: ModelSpec) -> RequestSize:
    """The request that measures what is mapped and not touched."""
    if spec.task == "speech":
        return RequestSize(audio_seconds=2.0, beams=1)
    return RequestSize(prompt_tokens=16 if spec.task in ("chat", "embed") else None)


def request_of(
    spec: ModelSpec, path: Path, facts: ModelFacts, options: LoadOptions, size: RequestSize
) -> dict[str, Any]:
    """What a process is told; ``limit_bytes`` or ``offset_bytes`` may be added."""
    return {
        "spec": spec.model_dump(mode="json"),
        "path": str(path),
        "facts": facts.model_dump(mode="json"),
        "options": asdict(options),
        "size": asdict(size),
    }


def ask(request: dict[str, Any]) -> dict[str, Any]:
    """The answer of a fresh process to ``request``; ``failure`` is in it if it died."""
    try:
        process = subprocess.run(
            [sys.executable, __file__, "--child"],
            input=json.dumps(request),
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return {"failure": f"it took longer than {_TIMEOUT_SECONDS:g} s"}
    # what is planned is said before the model is loaded: native code may end the process
    found: dict[str, Any] = {}
    for line in process.stdout.splitlines():
        if line.startswith("{"):
            found.update(json.loads(line))
    if "peak_bytes" not in found and "failure" not in found:
        said = (process.stderr.strip().splitlines() or ["it said nothing"])[-1]
        found["failure"] = f"ended with {process.returncode}: {said}"[:200]
    return found


def child() -> None:
    """The fresh process: plan, limit, load, run; each answer is a line of JSON."""
    request = json.load(sys.stdin)
    spec = ModelSpec.model_validate(request["spec"])
    options, size = LoadOptions(**request["options"]), RequestSize(**request["size"])
    facts = ModelFacts.model_validate(request["facts"])
    for module in registry.find_engine(spec.engine).imports:
        importlib.import_module(module)
    machine = Machine(is_measured=True, context_bytes={spec.engine: process_bytes()})
    planned = estimate(facts, options, size, machine)
    limit = request.get("limit_bytes")
    if "offset_bytes" in request:
        limit = planned.upper_bytes + request["offset_bytes"]
    say(
        predicted_bytes=planned.peak_bytes,
        upper_bytes=planned.upper_bytes,
        limit_bytes=limit or 0,
        before_bytes=status("VmData"),
    )
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if limit is not None:
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    try:
        model = registry.load(spec, Path(request["path"]), options)
        run_request(model, spec.task, size)
    except (Exception, MemoryError) as error:
        say(failure=f"{type(error).__name__}: {error}"[:200])
    else:
        say(
            peak_bytes=status("VmHWM"),
            data_bytes=status("VmData"),
            anonymous_bytes=status("RssAnon"),
            file_bytes=status("RssFile"),
        )
    sys.stdout.flush()
    os._exit(0)  # a destructor that cannot allocate would turn an answer into a crash


def say(**values: Any) -> None:
    """One line for the process that asked."""
    print(json.dumps(values), flush=True)


def status(name: str) -> int:
    """A line of ``/proc/self/status``, in bytes."""
    text = Path("/proc/self/status").read_text(encoding="ascii")
    return next(int(line.split()[1]) for line in text.splitlines() if line.startswith(name)) * 1024


def probe(
    spec: ModelSpec, path: Path, facts: ModelFacts, options: LoadOptions
) -> tuple[int, str | None]:
    """What the limit is above the bound, in bytes, and how the control run failed, if it did."""
    request = request_of(spec, path, facts, options, smallest(spec))
    found = ask(request)
    if "failure" in found:
        sys.exit(f"The probe of {spec.id} failed: {found['failure']}")
    offset = found["data_bytes"] - found["anonymous_bytes"] - found["file_bytes"]
    enough = round(_CONTROL_SHARE * (found["data_bytes"] - found["before_bytes"]))
    control = ask({**request, "limit_bytes": found["before_bytes"] + enough})
    return offset, control.get("failure")


def run(request: dict[str, Any], offset_bytes: int, until: float) -> Run | None:
    """One random request inside its upper bound; None after ``until`` (`time.monotonic`)."""
    if time.monotonic() > until:
        return None
    answer = ask({**request, "offset_bytes": offset_bytes})
    return Run(
        model=request["spec"]["id"],
        options=changed(request["options"], LoadOptions()),
        size=changed(request["size"], RequestSize()),
        predicted_bytes=answer.get("predicted_bytes", 0),
        upper_bytes=answer.get("upper_bytes", 0),
        limit_bytes=answer.get("limit_bytes", 0),
        peak_bytes=answer.get("peak_bytes", 0),
        failure=answer.get("failure"),
    )


def changed(values: dict[str, Any], usual: Any) -> dict[str, Any]:
    """The values that are not at their default."""
    return {name: value for name, value in values.items() if value != getattr(usual, name)}


@dataclass(frozen=True)
class Refusals:
    """Golden rows that a budget refuses though the measured peak is 90 or 80 % of it."""

    family: str
    rows: int
    at_90: tuple[str, ...]
    at_80: tuple[str, ...]


def refusals(name: str, rows: Sequence[tuple[Row, Estimate]]) -> Refusals:
    """Which of ``rows`` are refused; each with the bound / measured peak."""

    def refused(share: float) -> tuple[str, ...]:
        return tuple(
            f"{row.case} ({found.upper_bytes / row.measured_bytes:.2f}x)"
            for row, found in rows
            if found.upper_bytes > row.measured_bytes / share
        )

    return Refusals(name, len(rows), refused(0.9), refused(0.8))


def all_refusals(rows: Sequence[Row]) -> dict[str, list[Refusals]]:
    """As shipped, and after learning from the other rows of the family; by engine, then all."""
    taught = []
    for row in rows:
        others = [r.sample for r in rows if r.estimate.family == row.estimate.family and r != row]
        taught.append((row, apply(fit(others), row.estimate) if others else row.estimate))
    answer = {}
    for title, pairs in (
        ("as shipped", [(row, row.estimate) for row in rows]),
        ("after learning", taught),
    ):
        families: dict[str, list[tuple[Row, Estimate]]] = defaultdict(list)
        for row, found in pairs:
            families[row.estimate.family].append((row, found))
        lines = [refusals(family, families[family]) for family in sorted(families)]
        answer[title] = [*lines, refusals("all", pairs)]
    return answer


def line_of(model: str, runs: Sequence[Run], probes: Sequence[tuple[int, str | None]]) -> str:
    """What is printed of a model's runs (at least one)."""
    ran = sum(failed is None for _, failed in probes)
    failed = sum(run.failure is not None for run in runs)
    over = sum(run.peak_bytes > run.upper_bytes for run in runs)
    bounds = [run.upper_bytes / run.peak_bytes for run in runs if run.peak_bytes]
    bound = f"{statistics.median(bounds):.2f}x" if bounds else "-"
    text = f"{model:<28}{len(runs):>4} runs{failed:>4} failed{over:>4} over the bound {bound}"
    return f"{text}   controls that ran: {ran} of {len(probes)}"


def main() -> None:
    """Run, count, and exit with 1 if a planned run failed or a control ran."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", help="one model")
    parser.add_argument("--minutes", type=float, default=60.0, help="of each model at most")
    parser.add_argument("--json", type=Path, help="write all runs there too")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.child:
        child()
    os.environ["GGML_NO_BACKTRACE"] = "1"  # a control run ends in an assertion, by design
    names = [asked.only] if asked.only else list(MODELS)
    runs: list[Run] = []
    controls: dict[str, str | None] = {}
    for number, name in enumerate(names):
        spec = models.get(name)
        path = sources.require(spec)
        facts = with_activations(read_facts(spec, path))
        chance = random.Random(f"{asked.seed}/{spec.id}")
        choices = ways(spec)
        with ThreadPoolExecutor(_AT_ONCE) as workers:
            probes = list(workers.map(partial(probe, spec, path, facts), choices))
            for way, (_, failed) in zip(choices, probes, strict=True):
                controls[f"{spec.id} {changed(asdict(way), LoadOptions())}"] = failed
            until = time.monotonic() + 60 * asked.minutes
            share = asked.runs // len(names) + (number < asked.runs % len(names))
            drawn = [chance.randrange(len(choices)) for _ in range(share)]
            sizes = [draw(spec, choices[index], chance) for index in drawn]
            requests = [
                request_of(spec, path, facts, choices[index], size)
                for index, size in zip(drawn, sizes, strict=True)
            ]
            offsets = [probes[index][0] for index in drawn]
            done: list[Run] = []
            for found in workers.map(partial(run, until=until), requests, offsets):
                if found is None:
                    continue
                done.append(found)
                if found.failure or found.peak_bytes > found.upper_bytes:
                    print(f"    {asdict(found)}", flush=True)
                if len(done) % 10 == 0:
                    print(f"{spec.id:<28}{len(done):>4} of {share}", flush=True)
        if not done:
            sys.exit(f"No run of {spec.id} was begun in time.")
        runs += done
        print(line_of(spec.id, done, probes), flush=True)
    rows = read_rows()
    summary = {
        "runs": len(runs),
        "failed": sum(found.failure is not None for found in runs),
        "over_bound": sum(found.peak_bytes > found.upper_bytes for found in runs),
        "controls": controls,
        "false_refusals": {
            title: [asdict(line) for line in lines] for title, lines in all_refusals(rows).items()
        },
    }
    for title, lines in all_refusals(rows).items():
        print(f"\nfalse refusals {title:<40}{'rows':>6}{'at 90 %':>9}{'at 80 %':>9}")
        for line in lines:
            print(f"{line.family:<55}{line.rows:>6}{len(line.at_90):>9}{len(line.at_80):>9}")
    if asked.json is not None:
        text = json.dumps({**summary, "each": [asdict(found) for found in runs]}, indent=1)
        asked.json.write_text(text + "\n", encoding="utf-8")
    if summary["failed"] or None in controls.values():
        sys.exit(1)


if __name__ == "__main__":
    main()
