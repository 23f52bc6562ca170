"""Small pieces of HTML: the memory bar and the status line. Everything from outside is escaped."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

from apps.texts import text
from workbench.units import format_bytes

if TYPE_CHECKING:
    from workbench.engines.slots import LoadedModel
    from workbench.memory.devices import Device

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
    """A bar a device: how much memory there is, who uses it, which models are loaded. Costs
    about 1 ms."""
    import workbench
    from workbench.memory.devices import accelerators, cpu_device, process_bytes

    rows = workbench.pool.loaded()
    colours = {
        row.id: MODEL_COLOURS[number % len(MODEL_COLOURS)] for number, row in enumerate(rows)
    }
    cpu = cpu_device()
    bars = [_bar(cpu, process_bytes(), text("memory.title", language), rows, colours, language)]
    bars += [
        _bar(device, device.process_bytes, f"{device.name} {device.title}", rows, colours, language)
        for device in accelerators()
    ]
    return "".join(bars)


def _bar(
    device: Device,
    process_bytes: int,
    title: str,
    rows: list[LoadedModel],
    colours: dict[str, str],
    language: str,
) -> str:
    names = (device.name, device.name.removesuffix(":0"))
    models = [row for row in rows if row.device in names]
    used = device.total_bytes - device.free_bytes
    held = sum(row.measured_bytes for row in models)
    own = max(0, process_bytes - held)
    parts = [
        Part(text("memory.others", language), max(0, used - own - held), "#a1a1aa"),
        Part(text("memory.workbench", language), own, "#64748b"),
    ]
    parts += [Part(row.id, row.measured_bytes, colours[row.id]) for row in models]
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
        f"<b>{escape(title)}</b> {escape(summary)}</div>"
        f'<div class="wb-memory-bar" role="img" aria-label="{escape(summary)}">{bar}</div>'
        f'<div class="wb-memory-legend">{legend}</div></div>'
    )
