"""What a cell took of memory: ``%%memory`` after ``%load_ext workbench``, or `watch_memory`.

A cell that fails leaves its traceback behind, and every local variable of its frames with it:
arrays and models that nobody can reach any more stay in memory until the next error. Here they
are let go at once. Their price is that a debugger finds no local variables afterwards.
"""

from __future__ import annotations

import ast
import gc
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from workbench.memory.devices import process_bytes, trim_process
from workbench.memory.meter import PeakMemory
from workbench.units import format_bytes

_LAST = ("last_exc", "last_type", "last_value", "last_traceback")


class WatchedMemory:
    """What a block took of this process's memory, in bytes; complete when the block has ended.

    ``end_bytes`` is what is held when the block ends; where it failed, after its frames were
    let go, which gave ``released_bytes`` back. ``phases`` are those named with `mark`.
    """

    def __init__(self) -> None:
        self._meter = PeakMemory()
        self.error: str | None = None
        self.released_bytes = 0
        self.end_bytes = 0

    @property
    def start_bytes(self) -> int:
        return self._meter.start_bytes

    @property
    def peak_bytes(self) -> int:
        return self._meter.peak_bytes

    def mark(self, name: str) -> None:
        """From here on it is phase ``name``."""
        self._meter.mark(name)

    @property
    def phases(self) -> dict[str, int]:
        """The peak of each phase."""
        return {name: peaks.process_bytes for name, peaks in self._meter.phases.items()}

    def to_dict(self) -> dict[str, Any]:
        """All of it as JSON types; on CUDA with torch's and the driver's peaks."""
        device = self._meter.peaks.to_dict()
        return {
            "start_bytes": self.start_bytes,
            "peak_bytes": self.peak_bytes,
            "end_bytes": self.end_bytes,
            "released_bytes": self.released_bytes,
            "error": self.error,
            "method": self._meter.method,
            "phases": self.phases,
            **{name: value for name, value in device.items() if name != "process_bytes"},
        }

    def __str__(self) -> str:
        grown = self.peak_bytes - self.start_bytes
        kept = self.end_bytes - self.start_bytes
        parts = [
            f"start {format_bytes(self.start_bytes)}",
            f"peak {format_bytes(self.peak_bytes)} (+{format_bytes(grown)})",
            f"end {format_bytes(self.end_bytes)} ({'+' if kept >= 0 else ''}{format_bytes(kept)})",
            f"{format_bytes(max(0, self.peak_bytes - self.end_bytes))} came back",
        ]
        allocated = self._meter.peaks.allocated_bytes
        if allocated is not None:
            parts.append(f"CUDA peak {format_bytes(allocated)}")
        if self.error is not None:
            parts.append(
                f"{format_bytes(self.released_bytes)} of it by letting go what {self.error} held"
            )
        lines = ["memory: " + ", ".join(parts)]
        lines += [f"  {name}: {format_bytes(size)}" for name, size in self.phases.items()]
        return "\n".join(lines)


@contextmanager
def watch_memory(*, show: bool = True) -> Iterator[WatchedMemory]:
    """Measure the block: memory at its start, peak and end, and what came back.

    When it raises, the frames of the traceback are cleared, so that nothing is held by an error
    that was already shown; the error goes on as it was. ``show`` prints one line at the end.
    """
    watched = WatchedMemory()
    try:
        with watched._meter:
            try:
                yield watched
            except BaseException as error:
                watched.error = type(error).__name__
                before = process_bytes()
                release(error)
                watched.released_bytes = max(0, before - process_bytes())
                raise
    finally:
        watched.end_bytes = watched._meter.end_bytes
        if show:
            sys.stdout.write(f"{watched}\n")


def release(error: BaseException | None = None) -> None:
    """Let go of what ``error`` and the last uncaught error hold, and give freed memory back.

    Frames that still run keep their variables, and so does the notebook itself.
    """
    for name in _LAST:
        last = getattr(sys, name, None)
        if isinstance(last, BaseException):
            _clear_frames(last)
        if hasattr(sys, name):
            delattr(sys, name)
    if error is not None:
        _clear_frames(error)
    _forget_in_ipython()
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    trim_process()


def load_ipython_extension(shell: Any) -> None:
    """``%load_ext workbench`` makes ``%%memory`` known to IPython's ``shell``."""

    def memory(line: str, cell: str) -> Any:
        """Run the cell, then print its memory at start, peak and end and what came back."""
        with watch_memory():
            return run_cell(shell, cell)

    shell.register_magic_function(memory, magic_kind="cell", magic_name="memory")


def run_cell(shell: Any, cell: str) -> Any:
    """Run a cell's code in the notebook's namespace; the value of a last expression.

    A semicolon at the end hides that value, as in any cell.
    """
    source = shell.transform_cell(cell)
    name = shell.compile.cache(source)
    tree = shell.transform_ast(shell.compile.ast_parse(source, filename=name))
    last = None
    if tree.body and isinstance(tree.body[-1], ast.Expr):
        last = ast.Expression(tree.body.pop().value)
    exec(compile(tree, name, "exec"), shell.user_ns)  # noqa: S102 - it is what the user typed
    if last is None:
        return None
    value = eval(compile(last, name, "eval"), shell.user_ns)  # noqa: S307
    return None if cell.rstrip().endswith(";") else value


# -- inside ----------------------------------------------------------------------------------


def _clear_frames(error: BaseException) -> None:
    """Of the error and of all that it came from."""
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        found = waiting.pop()
        if found is None or id(found) in seen:
            continue
        seen.add(id(found))
        traceback.clear_frames(found.__traceback__)
        waiting += [found.__cause__, found.__context__]
        if isinstance(found, BaseExceptionGroup):
            waiting += found.exceptions


def _forget_in_ipython() -> None:
    """IPython keeps the last error for ``%tb`` and ``%debug``, and the last cell's result."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    if shell is None:
        return
    shell.InteractiveTB.tb = None
    result = shell.last_execution_result
    for name in ("error_before_exec", "error_in_exec"):
        held = getattr(result, name, None)
        if held is not None:
            _clear_frames(held)
