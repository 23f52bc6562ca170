"""What a measurement depends on beside its configuration: the code, the models, the machine."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from workbench.errors import UserInputError
from workbench.memory.devices import cpu_device
from workbench.models import sources
from workbench.models.spec import ModelSpec
from workbench.settings import get_settings
from workbench.tasks.record import environment
from workbench.units import format_bytes

_PACKAGE = Path(__file__).resolve().parents[1]
#: Parts of the package that cannot change what a trial measures.
_NOT_MEASURED = (
    "cli.py",
    "doctor.py",
    "lab/statistics.py",
    "lab/store.py",
    "lab/study.py",
    "lab/track.py",
)


@lru_cache(maxsize=1)
def code_version() -> str:
    """A hash of the package's source files.

    Unlike a commit it is right on a tree with changes and where there is no repository, and it
    stays the same when only documents or tests change.
    """
    digest = hashlib.sha256()
    for path in sorted(_PACKAGE.rglob("*.py")):
        name = path.relative_to(_PACKAGE).as_posix()
        if name not in _NOT_MEASURED:
            digest.update(name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


@lru_cache(maxsize=1)
def git_commit() -> str | None:
    """The commit of the checkout, ``-dirty`` appended when files differ; None without git."""
    command = ["git", "-C", str(_PACKAGE), "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def machine() -> dict[str, str]:
    """The class of this machine: processor, logical cores that may be used, memory, threads."""
    name = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        name = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model na"))
    except (OSError, StopIteration):
        pass  # not Linux, or a processor that does not say its name
    threads = get_settings().threads or os.environ.get("OMP_NUM_THREADS")
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count()
    return {
        "processor": name,
        "cores": str(cores),
        "memory": format_bytes(cpu_device().total_bytes),
        "threads": str(threads or "engine's choice"),
    }


def file_digest(path: Path) -> str:
    """The sha256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def weights_digest(spec: ModelSpec) -> str:
    """What tells two versions of a model's weights apart: their sha256, else names and dates."""
    known = sources.digest(spec)
    path = None if known or spec.is_remote else sources.locate(spec)
    if path is None:
        return known or ""
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    stats = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    return hashlib.sha256(json.dumps(stats).encode()).hexdigest()


def trial_key(configuration: Mapping[str, Any], spec: ModelSpec, files: Iterable[Path]) -> str:
    """The hash by which a finished trial is found again.

    It covers the configuration, the model's catalogue entry and weights, the content of the
    input files, the code, the library versions and the machine class.
    Raises UserInputError when ``configuration`` holds something that JSON cannot.
    """
    parts = {
        "configuration": configuration,
        "model": spec.model_dump(mode="json"),
        "weights": weights_digest(spec),
        "files": [file_digest(path) for path in files if path.is_file()],
        "code": code_version(),
        "environment": environment(),
        "machine": machine(),
    }
    try:
        text = json.dumps(parts, sort_keys=True, ensure_ascii=False)
    except TypeError as error:
        raise UserInputError(
            f"The sweep holds a value that cannot be stored: {error}.",
            "Use texts, numbers, lists and mappings.",
        ) from None
    return hashlib.sha256(text.encode()).hexdigest()[:24]
