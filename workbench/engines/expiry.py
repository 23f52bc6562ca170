"""Frees models whose keep-alive is over: one thread a pool, which sleeps until the next one."""

from __future__ import annotations

import threading
import weakref
from typing import Protocol


class Expiring(Protocol):
    """What the thread asks of a pool."""

    def free_expired(self) -> None:
        """Free what has expired."""

    def expires_in_seconds(self) -> float | None:
        """Seconds until the next model expires; None: none will. Called under the pool's lock."""


class Expiry:
    """Starts the thread when there is something to wait for; it ends when there is nothing."""

    def __init__(self, pool: Expiring, lock: threading.RLock) -> None:
        # the thread must not keep a pool alive that nobody uses any more
        self._pool = weakref.ref(pool, lambda _: self._wake())
        self._sooner = threading.Condition(lock)
        self._thread: threading.Thread | None = None
        self._sleeps_seconds = 0.0

    def watch(self, seconds: float) -> None:
        """A model will expire in so many seconds. Called under the pool's lock."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="keep-alive", daemon=True)
            self._thread.start()
        elif seconds < self._sleeps_seconds:
            self._sooner.notify_all()

    def _run(self) -> None:
        while self._free_and_sleep():
            pass

    def _free_and_sleep(self) -> bool:
        """False: there is nothing left to wait for."""
        pool = self._pool()
        if pool is not None:
            pool.free_expired()
        with self._sooner:
            seconds = None if pool is None else pool.expires_in_seconds()
            del pool
            if seconds is None:
                self._thread = None
                return False
            self._sleeps_seconds = seconds
            self._sooner.wait(min(seconds, threading.TIMEOUT_MAX))
        return True

    def _wake(self) -> None:
        with self._sooner:
            self._sooner.notify_all()
