"""Predicted against measured memory, run by run: a chart and a table of what was learned from."""

from __future__ import annotations

import time
from typing import Any

from apps.scatter import Point, scatter
from apps.texts import text
from workbench.memory.history import History, Observation
from workbench.units import format_bytes

_SHOWN_RUNS = 100
_MIB = 2**20


def history_chart(language: str) -> str:
    """A dot a run: predicted to the right, measured upwards; one line says how to read it."""
    runs = History().observations(limit=_SHOWN_RUNS)
    if not runs:
        return f"<p>{text('history.none', language)}</p>"
    points = [
        Point(run.predicted_bytes / _MIB, run.measured_bytes / _MIB, run.model, _label(run))
        for run in runs
    ]
    chart = scatter(points, text("history.predicted", language), text("history.measured", language))
    within = sum(run.measured_bytes <= run.upper_bytes for run in runs)
    line = text("history.summary", language, count=len(runs), within=within)
    return f"{chart}<p>{line}</p>"


def history_table(language: str) -> dict[str, Any]:
    """The newest runs: how they were loaded, predicted, measured, and by how much they differ."""
    names = ("time", "id", "how", "planned", "measured", "off")
    rows = [
        [
            time.strftime("%m-%d %H:%M:%S", time.localtime(run.at)),
            run.model,
            _how(run),
            format_bytes(run.predicted_bytes),
            format_bytes(run.measured_bytes),
            f"{100 * (run.measured_bytes / run.predicted_bytes - 1):+.1f} %",
        ]
        for run in History().observations(limit=_SHOWN_RUNS)
    ]
    return {"headers": [text(f"models.{name}", language) for name in names], "data": rows}


def _how(run: Observation) -> str:
    """The options that are not the engine's own choice."""
    usual = {None, False, "none", "cpu"}
    return ", ".join(str(value) for value in run.options.values() if value not in usual) or "–"


def _label(run: Observation) -> str:
    predicted, measured = format_bytes(run.predicted_bytes), format_bytes(run.measured_bytes)
    return f"{run.model} ({_how(run)}): {predicted} -> {measured}"
