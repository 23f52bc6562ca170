"""The tables of the Models & memory tab. Each is {headers, data} in one language."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import workbench
from apps.texts import text
from workbench.errors import ChecksumMismatch
from workbench.models.spec import ModelSpec
from workbench.units import format_bytes

if TYPE_CHECKING:
    from workbench.engines.slots import LoadedModel


def models_table(language: str) -> dict[str, Any]:
    """Every model of the catalogue: is it here, how big, what for, under which licence."""
    names = ("id", "task", "state", "size", "engine", "licence")
    rows = [
        [
            spec.id,
            spec.task,
            state_of(spec, language),
            size_of(spec),
            spec.engine,
            spec.licence,
        ]
        for spec in workbench.models.list()
    ]
    return {"headers": [text(f"models.{name}", language) for name in names], "data": rows}


def state_of(spec: ModelSpec, language: str) -> str:
    """Here, not here, damaged, or at a provider."""
    if spec.is_remote:
        return text("models.remote", language)
    try:
        path = workbench.models.locate(spec.id)
    except ChecksumMismatch:
        return text("models.damaged", language)
    return text("models.here" if path else "common.not_here", language)


def size_of(spec: ModelSpec) -> str:
    """Bytes of its files: as listed, else as found on this machine."""
    if spec.size_bytes:
        return format_bytes(spec.size_bytes)
    try:
        path = None if spec.is_remote else workbench.models.locate(spec.id)
    except ChecksumMismatch:
        path = None
    if path is None:
        return "–"
    found = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]
    return format_bytes(sum(p.stat().st_size for p in found))


def loaded_table(language: str) -> dict[str, Any]:
    """What is loaded now, who uses it, and how big it was planned and measured."""
    names = ("id", "engine", "users", "planned", "measured", "idle", "until", "reason")
    rows = [
        [
            row.id,
            row.engine,
            row.users,
            format_bytes(row.planned_bytes),
            format_bytes(row.measured_bytes),
            round(row.idle_seconds),
            until(row, language),
            row.reason,
        ]
        for row in workbench.pool.loaded()
    ]
    return {"headers": [text(f"models.{name}", language) for name in names], "data": rows}


def until(row: LoadedModel, language: str) -> str:
    """How long the model stays: pinned, in use, or the seconds until it is freed."""
    if row.is_pinned:
        return text("models.pinned", language)
    if row.users or row.expires_seconds is None:
        return "–"
    return f"{row.expires_seconds:.0f} s"


def log_table(language: str) -> dict[str, Any]:
    """The pool's last decisions, newest first."""
    names = ("time", "action", "id", "reason")
    rows = [
        [
            time.strftime("%H:%M:%S", time.localtime(entry["at"])),
            entry["action"],
            entry["model"],
            entry["reason"],
        ]
        for entry in reversed(workbench.pool.log()[-50:])
    ]
    return {"headers": [text(f"models.{name}", language) for name in names], "data": rows}


def plan_table(found: Any, language: str) -> dict[str, Any]:
    """The terms of a plan, and what they add up to."""
    names = ("term", "size", "provenance")
    rows = [[term.name, format_bytes(term.size_bytes), term.provenance] for term in found.terms]
    rows += [
        [text("models.peak", language), format_bytes(found.peak_bytes), ""],
        [text("models.upper", language), format_bytes(found.upper_bytes), ""],
        [text("models.available", language), format_bytes(found.available_bytes), found.reason],
    ]
    return {"headers": [text(f"models.{name}", language) for name in names], "data": rows}
