"""Runs what the plan calls fitting inside a hard limit: ``python benchmarks/memory_limit.py``.

Each run is a random request to a starter or to a random-weight model, loaded anew in a process
of its own whose limit is the upper bound of the estimate. A run that the system refuses memory,
or that fails in any other way, is an OOM of the plan. The second part counts false refusals from
the golden rows (see ``memory_measure.py``): a request whose measured peak is 90 % of the budget
must be accepted in at least 95 % of cases, and one at 80 % always.

**The limit.** The plan counts resident memory, and Linux has no limit on that alone
(``RLIMIT_RSS`` does nothing since 2.4; a control group also charges file cache and needs rights
that a container rarely gives). ``RLIMIT_AS`` counts what is only reserved, such as malloc's arenas
of 64 MiB a thread, so it would leave room that was not planned. The limit is ``RLIMIT_DATA``, on
private writable memory, at the upper bound less the pages of files (libraries, mapped weights)
plus what is writable and never touched (thread stacks, ends of heaps). Both are measured per model
by one small request without a limit. A control run of each model, that may take 70 % of what the
same small request took, must fail: it shows that the limit bites.

    python benchmarks/memory_limit.py --runs 200 --json benchmarks/memory/limit.json
"""

from __future__ import annotations

import argparse
import importlib
import json
import multiprocessing
import os
import random
import resource
import statistics
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml
from memory_accuracy import Row, read_rows
from memory_measure import FOLDER, build, spec_of

from workbench import models
from workbench.engines import registry
from workbench.engines.measure import run_request
from workbench.memory.correction import apply, fit
from workbench.memory.devices import process_bytes
from workbench.memory.estimate import estimate
from workbench.memory.facts import ModelFacts, read_facts
from workbench.memory.machine import Machine
from workbench.memory.request import LoadOptions, RequestSize
from workbench.memory.terms import Estimate
from workbench.models.spec import ModelSpec

STARTERS = ("smollm2-135m", "qwen2.5-coder-0.5b", "whisper-base", "whisper-tiny.en", "minilm-l6",
            "shapes-32")  # fmt: skip
#: Cases of ``memory/cases`` whose models are built for this; small enough for many runs.
RANDOM = ("tiny-int8-30s", "bert-base-b1")
_CONTROL_SHARE = 0.7


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


def draw(spec: ModelSpec, chance: random.Random) -> tuple[LoadOptions, RequestSize]:
    """A random request that the model can take."""
    if spec.task == "chat":
        context = chance.choice([512, 1024, 2048, 4096])
        options = LoadOptions(context_tokens=context)
        return options, RequestSize(prompt_tokens=chance.randrange(8, min(context - 64, 700)))
    if spec.task == "speech":
        options = LoadOptions(compute_type=chance.choice(["int8", "float32"]))
        size = RequestSize(
            audio_seconds=round(chance.uniform(1, 60), 1),
            beams=chance.randrange(1, 6),
            words=chance.random() < 0.3,
        )
        return options, size
    if spec.task == "image":
        return LoadOptions(), RequestSize(
            batch=chance.randrange(1, 33), guided=chance.random() < 0.7
        )
    tokens = chance.randrange(8, 256)
    return LoadOptions(), RequestSize(prompt_tokens=tokens, batch=chance.randrange(1, 49))


def smallest(spec: ModelSpec) -> tuple[LoadOptions, RequestSize]:
    """The request that measures what is mapped and not touched."""
    if spec.task == "chat":
        return LoadOptions(context_tokens=512), RequestSize(prompt_tokens=16)
    if spec.task == "speech":
        return LoadOptions(compute_type="int8"), RequestSize(audio_seconds=2.0, beams=1)
    return LoadOptions(), RequestSize(prompt_tokens=16)


def serve(spec_json: str, path: str, runs: int, seed: int, answers: Any) -> None:
    """The process of one model: imports its engine once and forks a child for each run.

    Tells whether the control run failed, then each `Run`, then None; a text is a problem.
    """
    spec = ModelSpec.model_validate_json(spec_json)
    for module in registry.find_engine(spec.engine).imports:
        importlib.import_module(module)
    facts = read_facts(spec, Path(path))
    machine = Machine(is_measured=True, context_bytes={spec.engine: process_bytes()})
    chance = random.Random(f"{seed}/{spec.id}")
    probe = in_child(spec, path, *smallest(spec), limit_bytes=None)
    if "failure" in probe:
        answers.send(f"the probe failed: {probe['failure']}")
        return
    offset = probe["data_bytes"] - probe["anonymous_bytes"] - probe["file_bytes"]
    before = status("VmData")
    enough = round(_CONTROL_SHARE * (probe["data_bytes"] - before))
    control = in_child(spec, path, *smallest(spec), limit_bytes=before + enough)
    answers.send("failure" in control)
    for _ in range(runs):
        answers.send(one(spec, path, facts, machine, offset, *draw(spec, chance)))
    answers.send(None)


def gather(answers: Any, until: float) -> tuple[list[Run], bool]:
    """The runs that were finished by ``until`` (`time.monotonic`), and how the control went."""
    runs: list[Run] = []
    control_failed = False
    while True:
        if not answers.poll(max(0.0, until - time.monotonic())):
            return runs, control_failed
        answer = answers.recv()
        if isinstance(answer, str):
            sys.exit(answer)
        if answer is None:
            return runs, control_failed
        if isinstance(answer, bool):
            control_failed = answer
        else:
            runs.append(answer)


def one(
    spec: ModelSpec,
    path: str,
    facts: ModelFacts,
    machine: Machine,
    offset_bytes: int,
    options: LoadOptions,
    size: RequestSize,
) -> Run:
    """One random request inside its upper bound."""
    planned = estimate(facts, options, size, machine)
    limit = planned.upper_bytes + offset_bytes
    answer = in_child(spec, path, options, size, limit)
    return Run(
        model=spec.id,
        options={k: v for k, v in asdict(options).items() if v != getattr(LoadOptions(), k)},
        size={k: v for k, v in asdict(size).items() if v != getattr(RequestSize(), k)},
        predicted_bytes=planned.peak_bytes,
        upper_bytes=planned.upper_bytes,
        limit_bytes=limit,
        peak_bytes=answer.get("peak_bytes", 0),
        failure=answer.get("failure"),
    )


def in_child(
    spec: ModelSpec, path: str, options: LoadOptions, size: RequestSize, limit_bytes: int | None
) -> dict[str, Any]:
    """Load and run in a fork of this process; its peaks, or how it failed."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        answer: dict[str, Any] = {}
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        try:
            if limit_bytes is not None:
                resource.setrlimit(resource.RLIMIT_DATA, (limit_bytes, limit_bytes))
            model = registry.load(spec, Path(path), options)
            run_request(model, spec.task, size)
            answer = {
                "peak_bytes": status("VmHWM"),
                "data_bytes": status("VmData"),
                "anonymous_bytes": status("RssAnon"),
                "file_bytes": status("RssFile"),
            }
        except BaseException as error:
            answer = {"failure": f"{type(error).__name__}: {error}"[:200]}
        os.write(writing, json.dumps(answer).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        said = pipe.read()
    _, state = os.waitpid(child, 0)
    if not said:  # native code ends the process where C++ cannot allocate
        return {"failure": f"ended with status {os.waitstatus_to_exitcode(state)}"}
    found: dict[str, Any] = json.loads(said)
    return found


def status(name: str) -> int:
    """A line of ``/proc/self/status``, in bytes."""
    text = Path("/proc/self/status").read_text(encoding="ascii")
    return next(int(line.split()[1]) for line in text.splitlines() if line.startswith(name)) * 1024


def refusals(rows: list[Row]) -> dict[str, Any]:
    """Shares of golden rows that a budget refuses though the measured peak is 90 or 80 % of it."""
    taught: list[tuple[Estimate, int]] = []
    for row in rows:
        others = [r.sample for r in rows if r.estimate.family == row.estimate.family and r != row]
        found = apply(fit(others), row.estimate) if others else row.estimate
        taught.append((found, row.measured_bytes))
    shipped = [(row.estimate, row.measured_bytes) for row in rows]
    return {
        f"{name}, at {percent} %": sum(
            found.upper_bytes > measured * 100 / percent for found, measured in pairs
        )
        / len(pairs)
        for name, pairs in (("as shipped", shipped), ("after learning", taught))
        for percent in (90, 80)
    }


def all_models(folder: Path, only: str | None) -> list[tuple[ModelSpec, Path]]:
    """The starters, and the random models that are built into ``folder``."""
    found = []
    for name in STARTERS:
        if only in (None, name):
            spec = models.get(name)
            found.append((spec, models.sources.require(spec)))
    for file in sorted((FOLDER / "cases").glob("*.yaml")):
        for case in yaml.safe_load(file.read_text(encoding="utf-8")):
            if case["id"] in RANDOM and only in (None, case["id"]):
                place = folder / case["id"]
                place.mkdir()
                path = build(case, place)
                found.append((spec_of(case, path), path))
    return found


def main() -> None:
    """Run, count, and exit with 1 if a planned run failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", help="one model")
    parser.add_argument("--minutes", type=float, default=60.0, help="stop after so long")
    parser.add_argument("--json", type=Path, help="write all runs there too")
    asked = parser.parse_args()
    until = time.monotonic() + 60 * asked.minutes
    os.nice(5)
    os.environ["GGML_NO_BACKTRACE"] = "1"  # a control run ends in an assertion, by design
    spawning = multiprocessing.get_context("spawn")
    runs: list[Run] = []
    controls: dict[str, bool] = {}
    with tempfile.TemporaryDirectory(prefix="workbench-limit-") as folder:
        found = all_models(Path(folder), asked.only)
        for number, (spec, path) in enumerate(found):
            share = asked.runs // len(found) + (number < asked.runs % len(found))
            # a pipe, not a queue: a queue's thread would be forked with the process
            answers, speaks = spawning.Pipe(duplex=False)
            process = spawning.Process(
                target=serve,
                args=(spec.model_dump_json(), str(path), share, asked.seed, speaks),
            )
            process.start()
            left = until - time.monotonic()
            done, control_failed = gather(answers, time.monotonic() + left / (len(found) - number))
            process.terminate()
            process.join()
            name = spec.id
            if not done:
                print(f"{name:<28} no run was finished in time", flush=True)
                continue
            runs += done
            controls[name] = control_failed
            bad = [run for run in done if run.failure]
            over = sum(run.peak_bytes > run.upper_bytes for run in done)
            bound = statistics.median(run.upper_bytes / max(1, run.peak_bytes) for run in done)
            print(
                f"{name:<28}{len(done):>4} runs{len(bad):>4} failed{over:>4} over the bound"
                f"   bound {bound:.2f}x   control {'failed' if control_failed else 'RAN'}",
                flush=True,
            )
            for run in bad:
                print(f"    {run.options} {run.size}: {run.failure}", flush=True)
    rows = read_rows()
    summary = {
        "runs": len(runs),
        "failed": sum(run.failure is not None for run in runs),
        "over_bound": sum(run.peak_bytes > run.upper_bytes for run in runs),
        "controls_that_failed_as_they_must": sum(controls.values()),
        "controls": len(controls),
        "golden_rows": len(rows),
        "false_refusals": refusals(rows) if rows else {},
    }
    print(json.dumps(summary, indent=1))
    if asked.json is not None:
        text = json.dumps({**summary, "each": [asdict(run) for run in runs]}, indent=1)
        asked.json.write_text(text + "\n", encoding="utf-8")
    if summary["failed"]:
        sys.exit(1)


if __name__ == "__main__":
    main()
