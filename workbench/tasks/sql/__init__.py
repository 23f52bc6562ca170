"""Questions in words, answered from a database by SQL that can only read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from workbench.tasks.sql.answer import Answer, AskEvent, Attempt
    from workbench.tasks.sql.rows import Rows
    from workbench.tasks.sql.run import ask

__all__ = ["Answer", "AskEvent", "Attempt", "Rows", "ask"]

_MODULES = {
    "Answer": "answer",
    "AskEvent": "answer",
    "Attempt": "answer",
    "Rows": "rows",
    "ask": "run",
}


def __getattr__(name: str) -> Any:
    """Import on first use: the worker process passes through here and needs none of it."""
    import importlib

    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value
    return value
