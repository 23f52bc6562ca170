"""What `workbench doctor` shows: the state of this installation, as plain values."""

from __future__ import annotations

import shutil

from workbench.engines.registry import ENGINES
from workbench.errors import ChecksumMismatch
from workbench.memory.devices import budget, cpu_device
from workbench.models import sources
from workbench.models.catalog import get_catalog
from workbench.models.spec import ModelSpec
from workbench.settings import get_settings
from workbench.tasks.record import environment
from workbench.units import format_bytes


def examine() -> dict[str, dict[str, str]]:
    """Sections of name and value: versions, folders, memory, engines, models."""
    settings = get_settings()
    device = cpu_device()
    room = budget(device, 0)
    parent = next(p for p in (settings.home, *settings.home.parents) if p.exists())
    return {
        "versions": environment(),
        "folders": {
            "home (models)": str(settings.home),
            "home free": format_bytes(shutil.disk_usage(parent).free),
            "runs (results)": str(settings.runs),
            "mlflow": settings.mlflow_uri.split("@")[-1],
        },
        "memory": {
            "total": format_bytes(device.total_bytes),
            "free": format_bytes(device.free_bytes),
            "for models": f"{format_bytes(room.available_bytes)} ({room.reason})",
        },
        "engines": {
            engine.name: "ready" if engine.is_installed else f"needs {', '.join(engine.packages)}"
            for engine in ENGINES.values()
        },
        "models": {spec.id: _state(spec) for spec in get_catalog()},
    }


def _state(spec: ModelSpec) -> str:
    if spec.is_remote:
        return "at its provider"
    try:
        return "here" if sources.locate(spec) else f"not here: workbench models pull {spec.id}"
    except ChecksumMismatch:
        return f"damaged: workbench models pull {spec.id} --force"
