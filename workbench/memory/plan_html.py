"""A memory plan as a picture: the peak as a bar of its terms against the budget, in plain HTML."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from workbench.units import format_bytes

if TYPE_CHECKING:
    from workbench.memory.plan import MemoryPlan

_COLOURS = (
    *("#64748b", "#2563eb", "#0d9488", "#9333ea", "#db2777", "#ea580c", "#65a30d", "#ca8a04"),
    *("#7dd3fc", "#5eead4", "#d8b4fe", "#f9a8d4", "#fdba74", "#bef264", "#fde047", "#a8a29e"),
)
_BAR = "display:flex;height:16px;position:relative;background:rgba(128,128,128,.15)"
_SMALL = "font-size:12px;margin:2px 0"


def plan_html(plan: MemoryPlan) -> str:
    """The plan as HTML without script or style sheet; every text is escaped."""
    scale = 100 / max(1, plan.upper_bytes, min(plan.available_bytes, 2 * plan.upper_bytes))
    terms = _by_name(plan)
    colours = {name: _COLOURS[i % len(_COLOURS)] for i, name in enumerate(terms)}
    parts = "".join(
        _part(size * scale, colours[name], f"{name}: {provenance}")
        for name, (size, provenance) in terms.items()
    )
    spread = _part(
        (plan.upper_bytes - plan.peak_bytes) * scale,
        "repeating-linear-gradient(45deg,#9ca3af 0 3px,transparent 3px 6px)",
        "up to the upper bound",
    )
    legend = "".join(
        f'<span style="margin-right:14px;white-space:nowrap"><i style="display:inline-block;'
        f'width:9px;height:9px;border-radius:2px;background:{colours[name]}"></i> '
        f"{escape(name)} {format_bytes(size)}</span>"
        for name, (size, _) in terms.items()
    )
    verdict = "fits" if plan.fits else "does not fit"
    colour = "#16a34a" if plan.fits else "#dc2626"
    fixes = "".join(f"<li>{escape(fix)}</li>" for fix in plan.cheapest_fixes)
    return (
        f'<div style="max-width:900px;line-height:1.4"><div><b>{escape(plan.model)}</b> on '
        f'{escape(plan.device)}: <b style="color:{colour}">{verdict}</b>. Peak '
        f"{format_bytes(plan.peak_bytes)}, at most {format_bytes(plan.upper_bytes)} of "
        f"{format_bytes(plan.available_bytes)} ({escape(plan.reason)})</div>"
        f'<div style="{_BAR}" role="img" aria-label="{verdict}">{parts}{spread}'
        f"{_mark(plan.available_bytes * scale)}</div>"
        f'<div style="{_SMALL}">{legend}</div>{_phases(plan, scale)}'
        + (f'<ul style="margin:4px 0 0 18px">{fixes}</ul>' if fixes else "")
        + "</div>"
    )


def _by_name(plan: MemoryPlan) -> dict[str, tuple[int, str]]:
    """Bytes and provenance of the terms, those of one name together."""
    found: dict[str, tuple[int, str]] = {}
    for term in plan.terms:
        if term.size_bytes:
            size, provenance = found.get(term.name, (0, ""))
            said = f"{provenance}; {term.provenance}" if provenance else term.provenance
            found[term.name] = (size + term.size_bytes, said)
    return found


def _phases(plan: MemoryPlan, scale: float) -> str:
    """One thin bar a phase: which one makes the peak."""
    rows = [
        f'<tr style="border:0;font-weight:{"bold" if name == plan.binding_phase else "normal"}">'
        f'<td style="border:0;padding:0 8px 0 0">{escape(name)}</td>'
        f'<td style="border:0;width:60%"><div style="height:6px;border-radius:3px;'
        f'background:#94a3b8;width:{min(100.0, size * scale):.1f}%"></div></td>'
        f'<td style="border:0;text-align:right">{format_bytes(size)}</td></tr>'
        for name, size in plan.phases.items()
    ]
    return f'<table style="{_SMALL};width:100%;border:0">{"".join(rows)}</table>'


def _part(percent: float, background: str, title: str) -> str:
    return (
        f'<div style="width:{percent:.2f}%;background:{background}" title="{escape(title)}"></div>'
    )


def _mark(percent: float) -> str:
    """Where the budget ends, if that is inside the picture."""
    if percent > 100:
        return ""
    return (
        f'<div style="position:absolute;left:{percent:.2f}%;top:-3px;bottom:-3px;'
        'border-left:2px solid #dc2626" title="available"></div>'
    )
