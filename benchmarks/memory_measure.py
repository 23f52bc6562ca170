"""Measures real peaks and writes them down as golden JSON: ``python benchmarks/memory_measure.py``.

Cases are in ``benchmarks/memory/cases/*.yaml``: a starter model, or one with random weights that
``benchmarks/random_models`` builds from a real configuration (memory does not depend on the
values of weights). A golden row has everything that `benchmarks/memory_accuracy.py` needs to
score the estimator without the model: facts, options, request, machine and measured bytes.

    python benchmarks/memory_measure.py                  # all cases that have no golden row yet
    python benchmarks/memory_measure.py --only whisper   # of one file
    python benchmarks/memory_measure.py --again          # measure all anew
    python benchmarks/memory_measure.py --device cuda    # the cases of cases_gpu, on a GPU

On a GPU the cases are those of ``cases_gpu``, at real sizes, and the rows go to
``golden/gpu_*.json``. A ``budget`` makes the card small: this process fills it until only so much
is free. (``torch.cuda.set_per_process_memory_fraction`` would bind torch alone, and neither
llama.cpp nor CTranslate2.)
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from workbench import models
from workbench.engines.facts import with_activations
from workbench.engines.measure import measure_memory
from workbench.memory.devices import devices
from workbench.memory.facts import read_facts
from workbench.memory.machine import get_machine
from workbench.memory.request import LoadOptions, RequestSize
from workbench.models.spec import LocalSource, ModelSpec
from workbench.tasks.record import environment
from workbench.units import parse_bytes

FOLDER = Path(__file__).parent / "memory"


def spec_of(case: dict[str, Any], path: Path) -> ModelSpec:
    """A catalogue entry for a model that was built for a case."""
    return ModelSpec(
        id=f"random/{case['id']}".lower(),
        title=case["id"],
        task=case["task"],
        engine=case["engine"],
        sources=(LocalSource(kind="local", path=str(path)),),
        dtype=case.get("dtype"),
        options=case.get("spec_options", {}),
        licence="none",
    )


def build(case: dict[str, Any], folder: Path) -> Path:
    """Make the random-weight model in a process of its own; returns its file or folder."""
    request = {"folder": str(folder), **case["build"]}
    done = subprocess.run(
        [sys.executable, "-m", "random_models", json.dumps(request)],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(f"{case['id']} cannot be built:\n{done.stderr[-3000:]}")
    return Path(done.stdout.strip().splitlines()[-1])


def measure(case: dict[str, Any], path: Path, spec: ModelSpec) -> dict[str, Any]:
    """The golden row of one case."""
    options = LoadOptions(**case.get("options", {}))
    size = RequestSize(**case.get("size", {}))
    with small_card(case.get("budget"), options.device):
        found = measure_memory(spec, path, options, size)
    row = {} if options.device == "cpu" else {"machine": get_machine().model_dump(mode="json")}
    return {
        **row,
        "case": case["id"],
        "facts": with_activations(read_facts(spec, path)).model_dump(mode="json"),
        "options": asdict(options),
        "size": asdict(found.size),
        "measured": found.model_dump(mode="json", exclude={"size"}),
        "environment": environment(),
    }


@contextmanager
def small_card(budget: str | None, device: str) -> Iterator[None]:
    """Leave only ``budget`` (such as ``8GiB``) free on the GPU while the block runs."""
    if budget is None:
        yield
        return
    import torch

    free, _ = torch.cuda.mem_get_info(device)
    if free < parse_bytes(budget):
        sys.exit(f"A card of {budget} cannot be simulated: {free / 2**30:.1f} GiB are free.")
    ballast = torch.empty(free - parse_bytes(budget), dtype=torch.uint8, device=device)
    try:
        yield
    finally:
        del ballast
        torch.cuda.empty_cache()


def read_cases(file: Path, device: str) -> list[dict[str, Any]]:
    """The cases of a file; on another device than the CPU, each says so in its options."""
    cases: list[dict[str, Any]] = yaml.safe_load(file.read_text(encoding="utf-8"))
    if device != "cpu":
        for case in cases:
            case["options"] = {**case.get("options", {}), "device": device}
    return cases


def has_device(device: str) -> bool:
    """Whether the device is there."""
    return device == "cpu" or any(
        found.name.split(":")[0] == device.partition(":")[0] for found in devices()
    )


def main() -> None:
    """Measure what is asked for; each finished row is written at once."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", help="the cases of one file, or one case by its id")
    parser.add_argument("--again", action="store_true", help="measure cases that have a row too")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N")
    asked = parser.parse_args()
    if not has_device(asked.device):
        sys.exit(f"There is no {asked.device} here; these cases wait for one.")
    on_cpu = asked.device == "cpu"
    for file in sorted((FOLDER / ("cases" if on_cpu else "cases_gpu")).glob("*.yaml")):
        cases = read_cases(file, asked.device)
        golden = FOLDER / "golden" / f"{'' if on_cpu else 'gpu_'}{file.stem}.json"
        rows = json.loads(golden.read_text(encoding="utf-8")) if golden.is_file() else {}
        built: dict[str, Path] = {}
        with tempfile.TemporaryDirectory(prefix="workbench-random-") as folder:
            for case in cases:
                if asked.only not in (None, file.stem, case["id"]):
                    continue
                if case["id"] in rows and not asked.again:
                    continue
                if "model" in case:
                    spec = models.get(case["model"])
                    path = models.sources.require(spec)
                else:
                    key = json.dumps(case["build"], sort_keys=True)
                    if key not in built:
                        place = Path(folder) / str(len(built))
                        place.mkdir()
                        built[key] = build(case, place)
                    path = built[key]
                    spec = spec_of(case, path)
                rows[case["id"]] = measure(case, path, spec)
                golden.parent.mkdir(parents=True, exist_ok=True)
                golden.write_text(
                    json.dumps(rows, indent=1, ensure_ascii=False, sort_keys=True) + "\n",
                    encoding="utf-8",
                )
                peak = rows[case["id"]]["measured"]["peak_bytes"]
                print(f"{file.stem:<12}{case['id']:<40}{peak / 2**20:>10.1f} MiB", flush=True)


if __name__ == "__main__":
    main()
