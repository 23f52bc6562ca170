"""Small pieces of HTML: the memory bar and the status line. Everything from outside is escaped."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape

from apps.texts import text
from workbench.units import format_bytes

MODEL_COLOURS = ("#2563eb", "#0d9488", "#9333ea", "#db2777", "#ea580c", "#65a30d")


@dataclass(frozen=True)
class Part:
    """One coloured part of the memory bar."""

    label: str
    size_bytes: int
    colour: str


def status(message: str, *, kind: str = "info", done: float | None = None) -> str:
    """A status line; ``done`` (0 to 1) adds a bar. ``kind``: info, done or error."""
    role = "alert" if kind == "error" else "status"
    bar = ""
    if done is not None:
        percent = max(0.0, min(1.0, done)) * 100
        bar = f'<div class="wb-bar"><div style="width:{percent:.1f}%"></div></div>'
    return f'<div class="wb-status wb-{kind}" role="{role}">{escape(message)}{bar}</div>'


def eta_seconds(done: float, total: float, seconds: float) -> float | None:
    """Seconds left if it goes on at the same pace; None while nothing is known."""
    if done <= 0 or total <= 0 or done >= total:
        return None
    return seconds / done * (total - done)


def memory_bar(language: str) -> str:
    """How much memory there is, who uses it, and which models are loaded. Costs about 1 ms."""
    import workbench
    from workbench.memory.devices import cpu_device, process_bytes

    device = cpu_device()
    models = workbench.pool.loaded()
    used = device.total_bytes - device.free_bytes
    own = max(0, process_bytes() - sum(row.measured_bytes for row in models))
    others = max(0, used - own - sum(row.measured_bytes for row in models))
    parts = [
        Part(text("memory.others", language), others, "#a1a1aa"),
        Part(text("memory.workbench", language), own, "#64748b"),
    ]
    for number, row in enumerate(models):
        colour = MODEL_COLOURS[number % len(MODEL_COLOURS)]
        parts.append(Part(row.id, row.measured_bytes, colour))
    summary = text(
        "memory.used",
        language,
        used=format_bytes(used),
        total=format_bytes(device.total_bytes),
        free=format_bytes(device.free_bytes),
    )
    bar = "".join(
        f'<div style="width:{100 * part.size_bytes / max(1, device.total_bytes):.2f}%;'
        f'background:{part.colour}" title="{escape(part.label)}"></div>'
        for part in parts
    )
    legend = "".join(
        f'<span><i style="background:{part.colour}"></i>{escape(part.label)} '
        f"{format_bytes(part.size_bytes)}</span>"
        for part in parts
    )
    if not models:
        legend += f"<span>{escape(text('memory.none', language))}</span>"
    return (
        f'<div class="wb-memory"><div class="wb-memory-title">'
        f"<b>{escape(text('memory.title', language))}</b> {escape(summary)}</div>"
        f'<div class="wb-memory-bar" role="img" aria-label="{escape(summary)}">{bar}</div>'
        f'<div class="wb-memory-legend">{legend}</div></div>'
    )
