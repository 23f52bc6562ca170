"""Whose turn it is: the queue of requests that wait for a model, without starving and thrashing.

* First come, first served; only the first may load. Whoever holds a model already goes before
  those who hold none, and may load out of turn: others may be waiting for what it holds.
* A loaded model goes on serving newer requests while somebody waits for its memory, so the
  requests for one model are served together; after ``turn_seconds`` it takes only those that are
  not newer than the one that waits.
* An idle model that another client used a moment ago is not taken before it was idle as long as
  loading it again would take: waiting costs at most as much as the mistake that it avoids. A
  client that has ended, or that waits here itself, does not come back for it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable

from workbench.engines.base import never_stop
from workbench.engines.slots import Key, Request, Slot
from workbench.errors import Cancelled, WaitedTooLong
from workbench.settings import get_settings

#: Between two requests of one client there is some Python: shorter pauses say nothing.
_PAUSE_SECONDS = 0.05
#: ``should_stop`` can only be asked; a request without one sleeps until something changes.
_STOP_CHECK_SECONDS = 0.05


class Turns:
    """The waiting requests. Every method is called under the pool's lock."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._queue: list[Request] = []

    def join(self, request: Request) -> None:
        """Queue up."""
        self._queue.append(request)

    def leave(self, request: Request) -> None:
        """Served, refused or stopped."""
        self._queue.remove(request)

    def may_load(self, request: Request) -> bool:
        """Whether it is the first, or may not be made to wait for the first."""
        return request.is_nested or min(self._queue, key=lambda r: r.order) is request

    def wants(self, key: Key) -> bool:
        """Whether somebody waits for this very model."""
        return any(request.key == key for request in self._queue)

    def is_stuck(self, thread: threading.Thread) -> bool:
        """Whether ``thread`` waits for memory itself."""
        return any(r.thread is thread and r.needs_bytes for r in self._queue)

    def is_closed_to(self, request: Request) -> bool:
        """Whether a loaded model has served newer requests long enough: somebody waited a turn."""
        first = min(self._queue, key=lambda r: r.order)
        if first.key == request.key or not first.needs_bytes:
            return False
        return self._waited(first) >= get_settings().memory.turn_seconds

    def grace_seconds(self, request: Request, idle: Iterable[Slot]) -> float:
        """For how long these idle models are still left to the clients that used them last."""
        if self._waited(request) >= get_settings().memory.turn_seconds:
            return 0.0
        waiting = {r.thread for r in self._queue}
        left = [
            max(_PAUSE_SECONDS, slot.load_seconds) - (self._clock() - slot.last_used)
            for slot in idle
            if slot.last_thread is not None
            and slot.last_thread.is_alive()
            and slot.last_thread not in waiting
        ]
        return max([0.0, *left])

    def wait(self, request: Request, changed: threading.Condition, seconds: float) -> None:
        """Sleep until something changes, at most ``seconds``.

        Raises Cancelled, and DoesNotFit when the request has waited as long as it may.
        """
        if request.should_stop():
            raise Cancelled(f"It was stopped while it waited for memory for {request.spec.id}.")
        left = request.deadline - self._clock()
        if left <= 0:
            raise WaitedTooLong(
                f"{request.spec.id} waited {self._waited(request):.0f} s for memory that other "
                "requests use.",
                "Stop one of them, raise WORKBENCH_MEMORY__WAIT_SECONDS, or choose smaller models.",
            )
        if request.should_stop is not never_stop:
            left = min(left, _STOP_CHECK_SECONDS)
        changed.wait(min(left, seconds, threading.TIMEOUT_MAX))

    def _waited(self, request: Request) -> float:
        return self._clock() - request.since
