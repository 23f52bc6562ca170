"""Imports Gradio in 60 % of its time, and without writing into site-packages.

On import Gradio parses the source of each of its components and renders a ``.pyi`` file beside
it, for editors. That is 1.4 of 3.2 CPU seconds here and fails quietly where site-packages is
read-only. Gradio leaves a component out when its source has no file, so while it is imported,
that one question gets the answer "no file". Nothing else of it changes.
"""

from __future__ import annotations

import inspect
import sys
from typing import Any

_ASKER = "gradio.component_meta"


def import_gradio() -> None:
    """``import gradio``, once and quickly."""
    if "gradio" in sys.modules:
        return
    real = inspect.getfile

    def getfile(thing: Any) -> str:
        if sys._getframe(1).f_globals.get("__name__") == _ASKER:
            raise OSError("no file")
        return real(thing)

    inspect.getfile = getfile  # type: ignore[assignment]
    try:
        import gradio  # noqa: F401 - for sys.modules
    finally:
        inspect.getfile = real
