"""Measures what plans need to know of this machine: memory of empty engines, and speeds.

Each part runs in a fresh process, so that nothing of one is in the figures of the next, and a
part that fails or hangs costs its own figures only. All together it takes well under a minute.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import importlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from workbench.engines.registry import ENGINES, find_engine
from workbench.errors import SettingsError, Unavailable
from workbench.memory.devices import devices, process_bytes
from workbench.memory.machine import Machine, library_versions, machine_file
from workbench.settings import get_settings
from workbench.units import format_bytes

#: Called with one line for each thing that was measured.
Report = Callable[[str], None]

_PART_SECONDS = 40.0
_COPY_BYTES = 256 * 2**20
_READ_BYTES = 256 * 2**20
_CHUNK_BYTES = 8 * 2**20
_MATRIX = 1024
_REPEATS = 3


def calibrate(progress: Report | None = None) -> Machine:
    """Measure, write ``machine.json`` and return its values.

    A figure that cannot be measured here keeps its reference value, and ``progress`` is told
    why. Raises SettingsError where the file cannot be written.
    """
    report = progress or (lambda line: None)
    there = devices()
    gpus = [device for device in there if device.name.startswith("cuda")]
    reference = Machine()
    contexts = dict(reference.context_bytes)
    for engine in ENGINES.values():
        measurable = engine.imports and engine.is_installed
        if measurable and (found := _part(["context", engine.name], report)):
            contexts[engine.name] = round(found["bytes"])
            report(f"{engine.name}: {format_bytes(contexts[engine.name])} before a model")
    speeds, flops = dict(reference.bytes_per_second), dict(reference.flops)
    for part in ("copy", "disk"):
        if found := _part([part], report):
            speeds |= found
            report(", ".join(f"{k}: {format_bytes(round(v))}/s" for k, v in found.items()))
    if found := _part(["multiply", "cpu"], report):
        flops |= found
        report(", ".join(f"{key}: {value / 1e9:.0f} GFLOP/s" for key, value in found.items()))
    if gpus:
        # torch opens the context that all engines of this process share
        if found := _part(["cuda"], report):
            context = round(found.pop("context"))
            contexts |= {f"{name}@cuda": context for name in tuple(contexts) if "@" not in name}
            speeds |= found
            report(f"CUDA context: {format_bytes(context)}")
        if found := _part(["multiply", "cuda"], report):
            flops |= found
    today = datetime.datetime.now(tz=datetime.UTC).date().isoformat()
    titles = " + ".join(device.title for device in (there[0], *gpus))
    machine = Machine(
        name=f"{titles}, measured {today}",
        is_measured=True,
        measured_on=today,
        versions=library_versions(),
        context_bytes=contexts,
        bytes_per_second=speeds,
        flops=flops,
    )
    _write(machine)
    return machine


def _write(machine: Machine) -> None:
    path = machine_file()
    temporary = path.with_name(path.name + ".new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(machine.model_dump_json(indent=1) + "\n", encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise SettingsError(
            f"{path} cannot be written: {error.strerror}.",
            "Set WORKBENCH_HOME to a folder that you own.",
        ) from None


def _part(arguments: list[str], report: Report) -> dict[str, float]:
    """The figures of one part, or none of them and a line that says why."""
    command = [sys.executable, "-P", "-m", "workbench.engines.calibrate", *arguments]
    what = " ".join(arguments)
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_PART_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        report(f"{what}: not measured, it took more than {_PART_SECONDS:.0f} s")
        return {}
    last = (done.stdout.strip().splitlines() or [""])[-1]
    if done.returncode == 0:
        found: dict[str, float] = json.loads(last)
        return found
    said = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
    report(f"{what}: not measured: {said}")
    return {}


# -- inside a fresh process ------------------------------------------------------------------


def _context(engine: str) -> dict[str, float]:
    """Resident bytes after the engine's libraries were imported, as measured requests see it."""
    # what the measuring process itself needs is part of every process that runs a model
    importlib.import_module("workbench.engines.measure")
    for module in find_engine(engine).imports:
        importlib.import_module(module)
    return {"bytes": process_bytes()}


def _copy() -> dict[str, float]:
    """Bytes a second that are read and written while a large array is copied."""
    import numpy as np

    source = np.ones(_COPY_BYTES, np.uint8)
    target = np.empty_like(source)

    def copy() -> None:
        np.copyto(target, source)

    return {"cpu": 2 * _COPY_BYTES / _best_seconds(copy)}


def _multiply(device: str) -> dict[str, float]:
    """Floating operations a second of a matrix product, by dtype, where torch has one."""
    import torch

    torch.set_num_threads(get_settings().threads or torch.get_num_threads())
    found = {}
    size = _MATRIX if device == "cpu" else 8 * _MATRIX
    for name in ("float32", "bfloat16", "float16") if device == "cuda" else ("float32", "bfloat16"):
        matrix = torch.ones((size, size), dtype=getattr(torch, name), device=device)

        def multiply(matrix: torch.Tensor = matrix) -> None:
            torch.mm(matrix, matrix)
            if device == "cuda":
                torch.cuda.synchronize()

        found[f"{device}/{name}"] = 2 * size**3 / _best_seconds(multiply)
    if device == "cpu":
        whole = torch.ones((size, size), dtype=torch.int8)
        with contextlib.suppress(RuntimeError):  # not on every processor
            seconds = _best_seconds(lambda: torch._int_mm(whole, whole))
            found["cpu/int8"] = 2 * size**3 / seconds
    return found


def _cuda() -> dict[str, float]:
    """Device memory of an empty context, and bytes a second of the device and to it."""
    import torch

    if not torch.cuda.is_available():
        raise Unavailable("torch was built without CUDA, or the driver does not fit.")
    torch.empty(1, device="cuda")
    torch.mm(torch.ones(64, 64, device="cuda"), torch.ones(64, 64, device="cuda"))
    torch.cuda.synchronize()
    held = next(device for device in devices() if device.name == "cuda:0")
    context = held.process_bytes or held.total_bytes - held.free_bytes
    context -= torch.cuda.memory_reserved(0)
    host = torch.empty(_COPY_BYTES, dtype=torch.uint8, pin_memory=True)
    source = torch.empty(_COPY_BYTES, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)

    def copy(origin: torch.Tensor) -> None:
        target.copy_(origin)
        torch.cuda.synchronize()

    return {
        "context": max(0, context),
        "cuda": 2 * _COPY_BYTES / _best_seconds(lambda: copy(source)),
        "host_to_cuda": _COPY_BYTES / _best_seconds(lambda: copy(host)),
    }


def _disk() -> dict[str, float]:
    """Bytes a second of reading in the models' folder, past the cache where that can be asked.

    The largest file there is read, up to a limit; without one, one is written for it.
    """
    folder = get_settings().home
    folder.mkdir(parents=True, exist_ok=True)
    files = [path for path in (folder / "models").rglob("*") if path.is_file()]
    largest = max(files, key=lambda path: path.stat().st_size, default=None)
    if largest is not None and largest.stat().st_size >= _READ_BYTES // 4:
        return {"disk": _read_speed(largest)}
    made = folder / f".calibrate-{os.getpid()}"
    try:
        with made.open("wb") as file:
            for _ in range(_READ_BYTES // 4 // _CHUNK_BYTES):
                file.write(os.urandom(_CHUNK_BYTES))
            file.flush()
            os.fsync(file.fileno())
        return {"disk": _read_speed(made)}
    finally:
        made.unlink(missing_ok=True)


def _read_speed(path: Path) -> float:
    done = 0
    with path.open("rb", buffering=0) as file:
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        start = time.perf_counter()
        while done < _READ_BYTES and (chunk := file.read(_CHUNK_BYTES)):
            done += len(chunk)
        return done / (time.perf_counter() - start)


def _best_seconds(run: Callable[[], object]) -> float:
    """The shortest of a few runs: other programs only ever make it longer."""
    run()
    best = float("inf")
    for _ in range(_REPEATS):
        start = time.perf_counter()
        run()
        best = min(best, time.perf_counter() - start)
    return best


def main() -> None:
    """Measure one part and print it as one line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("part", choices=("context", "copy", "disk", "multiply", "cuda"))
    parser.add_argument("of", nargs="?", default="")
    asked = parser.parse_args()
    if asked.part == "context":
        found = _context(asked.of)
    elif asked.part == "multiply":
        found = _multiply(asked.of)
    else:
        found = {"copy": _copy, "disk": _disk, "cuda": _cuda}[asked.part]()
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
