"""What `workbench doctor` shows: the state of this installation, as plain values."""

from __future__ import annotations

import shutil

from workbench.engines.registry import ENGINES
from workbench.errors import ChecksumMismatch, SettingsError
from workbench.memory.devices import Device, budget, devices
from workbench.memory.machine import get_machine
from workbench.models import sources
from workbench.models.catalog import get_catalog
from workbench.models.spec import ModelSpec
from workbench.settings import get_settings
from workbench.tasks.record import environment
from workbench.units import format_bytes

_LARGE_BYTES = 100 * 2**20


def examine() -> dict[str, dict[str, str]]:
    """Sections of name and value: versions, folders, memory, engines, models."""
    settings = get_settings()
    there = devices()
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
            **{name: text for device in there for name, text in _memory(device).items()},
            "calibrated": _calibration(),
        },
        "engines": {
            engine.name: "ready" if engine.is_installed else f"needs {', '.join(engine.packages)}"
            for engine in ENGINES.values()
        },
        "models": {spec.id: _state(spec) for spec in get_catalog()},
    }


def _memory(device: Device) -> dict[str, str]:
    """What a device has, what is left of it for models, and who holds the most of the rest."""
    room = budget(device, 0)
    total = f"{format_bytes(device.total_bytes)}  {device.title}".rstrip()
    lines = {
        "total": total,
        "free": format_bytes(device.free_bytes),
        "for models": f"{format_bytes(room.available_bytes)} ({room.reason})",
    }
    large = [other for other in device.others if other.size_bytes >= _LARGE_BYTES]
    if large:
        held = (f"{o.name} ({o.pid}) {format_bytes(o.size_bytes)}" for o in large)
        lines["other processes"] = ", ".join(held)
    prefix = "" if device.name == "cpu" else f"{device.name} "
    return {prefix + name: text for name, text in lines.items()}


def _calibration() -> str:
    try:
        machine = get_machine()
    except SettingsError as error:
        return str(error)
    return machine.name if machine.is_measured else f"no: {machine.name}"


def _state(spec: ModelSpec) -> str:
    if spec.is_remote:
        return "at its provider"
    try:
        return "here" if sources.locate(spec) else f"not here: workbench models pull {spec.id}"
    except ChecksumMismatch:
        return f"damaged: workbench models pull {spec.id} --force"
