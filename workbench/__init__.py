"""The workbench: choose, run and compare models on the hardware you have.

>>> import workbench as wb
>>> wb.chat("Say hello").text            # doctest: +SKIP
>>> wb.ask("data/shop.duckdb", "How many customers are there?")   # doctest: +SKIP

Importing this package is cheap: every name below is loaded when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from workbench import errors, models, sql
    from workbench.engines.pool import ModelPool
    from workbench.lab.sweep import sweep
    from workbench.lab.track import track
    from workbench.notebook import watch_memory
    from workbench.planning import plan
    from workbench.tasks.chat import chat
    from workbench.tasks.image import draw
    from workbench.tasks.speech import transcribe
    from workbench.tasks.sql import ask

    pool: ModelPool

__version__ = "0.1.0"

#: public name -> (module, attribute); no attribute: the module itself
_PUBLIC: dict[str, tuple[str, str | None]] = {
    "ask": ("workbench.tasks.sql", "ask"),
    "chat": ("workbench.tasks.chat", "chat"),
    "draw": ("workbench.tasks.image", "draw"),
    "errors": ("workbench.errors", None),
    "models": ("workbench.models", None),
    "plan": ("workbench.planning", "plan"),
    "sql": ("workbench.sql", None),
    "sweep": ("workbench.lab.sweep", "sweep"),
    "track": ("workbench.lab.track", "track"),
    "transcribe": ("workbench.tasks.speech", "transcribe"),
    "watch_memory": ("workbench.notebook", "watch_memory"),
}

__all__ = [
    "ask",
    "chat",
    "draw",
    "errors",
    "models",
    "plan",
    "pool",
    "sql",
    "sweep",
    "track",
    "transcribe",
    "watch_memory",
]


def __getattr__(name: str) -> Any:
    if name == "pool":
        from workbench.engines.pool import default_pool

        return default_pool()
    if name not in _PUBLIC:
        raise AttributeError(f"module 'workbench' has no attribute {name!r}")
    module_name, attribute = _PUBLIC[name]
    module = importlib.import_module(module_name)
    value = module if attribute is None else getattr(module, attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def load_ipython_extension(shell: Any) -> None:
    """``%load_ext workbench`` in a notebook: the cell magic ``%%memory``."""
    from workbench.notebook import load_ipython_extension as load

    load(shell)
