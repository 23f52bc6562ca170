"""Turns a computation that calls back into one that is iterated over. Knows no engine."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from workbench.engines.base import StopCheck

Item = TypeVar("Item")
Result = TypeVar("Result")

#: Hands one item to the reader; True means that nobody reads any more. None hands nothing over,
#: wakes nobody and only asks.
Emit = Callable[[Item], bool]

_POLL_SECONDS = 0.05


@dataclass(frozen=True)
class _End:
    error: BaseException | None


class ComputeThread:
    """One thread in which all that uses a library computes, from the first load to the last step.

    OpenMP keeps a team of threads for every thread that computes. With two such teams there are
    more threads than cores, and then libgomp lets idle ones sleep instead of spin, so that every
    operator waits for them to wake: a drawing of small pictures took twice as long. The thread
    starts when it is first needed. Work comes in turn.
    """

    def __init__(self, name: str) -> None:
        self._executor = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._local = threading.local()

    def run(self, work: Callable[[], Result]) -> Result:
        """What ``work`` returns; waits for it. Called from the thread itself it runs at once."""
        if getattr(self._local, "is_here", False):
            return work()
        return self._submit(work).result()

    def begin(self, work: Callable[[], None], should_stop: StopCheck | None) -> Callable[[], None]:
        """Start ``work`` and return, when its turn has come, a function that waits for its end.

        When ``should_stop`` returns True before its turn, the work runs here and now.
        """
        begun = threading.Event()

        def run() -> None:
            begun.set()
            work()

        future = self._submit(run)
        while not begun.wait(_POLL_SECONDS):
            if should_stop is not None and should_stop() and future.cancel():
                work()
                return lambda: None
        return future.result

    def _submit(self, work: Callable[[], Result]) -> Future[Result]:
        def run() -> Result:
            self._local.is_here = True
            return work()

        return self._executor.submit(run)


#: Where torch computes on a CPU.
torch_thread = ComputeThread("torch")


def iterate(
    work: Callable[[Emit[Item]], None],
    abandon_when: StopCheck | None = None,
    *,
    on: ComputeThread | None = None,
    should_stop: StopCheck | None = None,
) -> Generator[Item, None, None]:
    """Run ``work(emit)`` in a thread and yield what it emits, as it comes.

    The work never waits for the reader. Whatever ``work`` raises is raised here. When the reader
    leaves, ``emit`` returns True and the work must end; the reader waits for that, so a model is
    never freed under a running computation.

    ``on`` is the thread to run in; without it the work gets one of its own. Work whose turn there
    has not come when ``should_stop`` returns True runs in the reader's thread: it must ask
    ``should_stop`` before it computes, and end.

    With ``abandon_when`` the reader leaves as soon as that returns True and waits for nothing:
    right for work that hangs on a network and holds no model.
    """
    items: queue.SimpleQueue[Item | _End] = queue.SimpleQueue()
    left = threading.Event()

    def emit(item: Item) -> bool:
        if item is not None:
            items.put(item)
        return left.is_set()

    def run() -> None:
        error: BaseException | None = None
        try:
            work(emit)
        except BaseException as raised:
            error = raised
        items.put(_End(error))

    if on is None:
        # not a daemon where native code runs: Python must not end under it
        thread = threading.Thread(target=run, name="engine", daemon=abandon_when is not None)
        thread.start()
        wait: Callable[[], object] = thread.join
    else:
        wait = on.begin(run, should_stop)
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
            wait()
