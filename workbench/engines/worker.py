"""Turns a computation that calls back into one that is iterated over. Knows no engine."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import TypeVar

from workbench.engines.base import StopCheck

Item = TypeVar("Item")

#: Hands one item to the reader; True means that nobody reads any more.
Emit = Callable[[Item], bool]

_POLL_SECONDS = 0.05


@dataclass(frozen=True)
class _End:
    error: BaseException | None


def iterate(
    work: Callable[[Emit[Item]], None], abandon_when: StopCheck | None = None
) -> Generator[Item, None, None]:
    """Run ``work(emit)`` in a thread of its own and yield what it emits, as it comes.

    The work never waits for the reader. Whatever ``work`` raises is raised here. When the reader
    leaves, ``emit`` returns True and the work must end; the reader waits for that, so a model is
    never freed under a running computation.

    With ``abandon_when`` the reader leaves as soon as that returns True and waits for nothing:
    right for work that hangs on a network and holds no model.
    """
    items: queue.SimpleQueue[Item | _End] = queue.SimpleQueue()
    left = threading.Event()

    def emit(item: Item) -> bool:
        items.put(item)
        return left.is_set()

    def run() -> None:
        error: BaseException | None = None
        try:
            work(emit)
        except BaseException as raised:
            error = raised
        items.put(_End(error))

    # not a daemon where native code runs: Python must not end under it
    thread = threading.Thread(target=run, name="engine", daemon=abandon_when is not None)
    thread.start()
    try:
        while True:
            try:
                item = items.get(timeout=None if abandon_when is None else _POLL_SECONDS)
            except queue.Empty:
                if abandon_when is not None and abandon_when():
                    return
                continue
            if isinstance(item, _End):
                if item.error is not None:
                    raise item.error
                return
            yield item
    finally:
        left.set()
        if abandon_when is None:
            thread.join()
