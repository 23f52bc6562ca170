"""Runs requests in worker processes and kills what takes too long.

One worker is kept between requests, because starting one costs more than most queries. It is
replaced after every timeout, crash and cancellation.
"""

from __future__ import annotations

import atexit
import os
import signal
import subprocess
import sys
import threading
import time
from multiprocessing import Pipe
from pathlib import Path

from workbench.engines.base import StopCheck, never_stop
from workbench.errors import Cancelled, QueryFailed, QueryTimeout, WorkbenchError
from workbench.settings import get_settings
from workbench.tasks.sql.messages import IDLE_SECONDS, Fetched, Reply, Request, Started
from workbench.tasks.sql.schema import Schema
from workbench.tasks.sql.sources import Source
from workbench.units import format_bytes, parse_bytes

#: Opening a database and loading files may take this long; it does not count as query time.
OPEN_SECONDS = 120.0
_POLL_SECONDS = 0.05
#: What the worker inherits; above all it gets no keys of providers.
_ENVIRONMENT = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")


def read_schema(source: Source, should_stop: StopCheck = never_stop) -> Schema:
    """The schema of ``source``. Raises InvalidDatabase, Cancelled."""
    reply = _run(Request("schema", source, OPEN_SECONDS), should_stop)
    assert isinstance(reply, Schema)
    return reply


def query(
    source: Source,
    sql: str,
    limit: int,
    timeout_seconds: float,
    should_stop: StopCheck = never_stop,
) -> Fetched:
    """At most ``limit`` rows of ``sql``, which the guard has passed.

    Raises QueryFailed, QueryTimeout, UnsafeSQL, InvalidDatabase, Cancelled.
    """
    reply = _run(Request("query", source, timeout_seconds, sql, limit), should_stop)
    assert isinstance(reply, Fetched)
    return reply


class Worker:
    """One worker process and the parent's end of its socket."""

    def __init__(self, memory_bytes: int) -> None:
        self.memory_bytes = memory_bytes
        self.owner = os.getpid()
        self.last_used = time.monotonic()
        self._connection, theirs = Pipe()
        root = str(Path(__file__).resolve().parents[3])
        paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
        try:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-P", "-m", "workbench.tasks.sql.worker"),
                    *(str(theirs.fileno()), str(memory_bytes)),
                ],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                # Ctrl-C is for the parent, which then kills the worker
                start_new_session=True,
                env={
                    **{name: os.environ[name] for name in _ENVIRONMENT if name in os.environ},
                    "PYTHONPATH": os.pathsep.join(paths),
                    # every arena of glibc reserves address space, which is limited
                    "MALLOC_ARENA_MAX": "2",
                },
            )
        finally:
            theirs.close()

    @property
    def is_usable(self) -> bool:
        """Whether it waits for a request and will for a while."""
        return (
            self.owner == os.getpid()
            and self._process.poll() is None
            and time.monotonic() - self.last_used < IDLE_SECONDS / 2
        )

    def call(self, request: Request, should_stop: StopCheck) -> Reply:
        """Send ``request`` and wait for its reply; the worker is unusable after an error."""
        try:
            self._connection.send(request)
            answer = self._receive(OPEN_SECONDS, request, should_stop)
            if isinstance(answer, Started):
                answer = self._receive(request.timeout_seconds, request, should_stop)
            assert not isinstance(answer, Started)
        except (EOFError, ConnectionError, BrokenPipeError):
            raise self._died() from None
        self.last_used = time.monotonic()
        return answer

    def kill(self) -> None:
        """End the process now, whatever it does."""
        if self.owner == os.getpid():
            self._process.kill()
            self._process.wait()
        self._connection.close()
        if self._process.stderr:
            self._process.stderr.close()

    def _receive(self, seconds: float, request: Request, should_stop: StopCheck) -> Reply | Started:
        deadline = time.monotonic() + seconds
        while not self._connection.poll(max(0.0, min(_POLL_SECONDS, deadline - time.monotonic()))):
            if should_stop():
                raise Cancelled("The query was stopped.")
            if time.monotonic() >= deadline:
                raise QueryTimeout(
                    f"{request.source.name} did not answer within {seconds:g} seconds.",
                    "Ask for less, or allow more time.",
                )
        reply: Reply | Started = self._connection.recv()
        return reply

    def _died(self) -> WorkbenchError:
        assert self._process.stderr is not None
        last = self._process.stderr.read().decode("utf-8", "replace").strip().splitlines()[-1:]
        code = self._process.wait()
        if code < 0:
            return QueryFailed(
                f"The query brought the database engine down ({signal.Signals(-code).name}).",
                f"It may need more than the {format_bytes(self.memory_bytes)} that a query may "
                "use; filter or aggregate earlier, or set WORKBENCH_MEMORY__QUERY higher.",
            )
        return WorkbenchError(
            f"The database worker ended by itself: {' '.join(last) or f'exit code {code}'}.",
            "Please report this with the SQL.",
        )


_lock = threading.Lock()
_idle: Worker | None = None


def _run(request: Request, should_stop: StopCheck) -> Reply:
    worker = _take(parse_bytes(get_settings().memory.query))
    try:
        reply = worker.call(request, should_stop)
    except BaseException:
        worker.kill()
        raise
    _keep(worker)
    if isinstance(reply, WorkbenchError):
        raise reply
    return reply


def _take(memory_bytes: int) -> Worker:
    """The idle worker if it fits, else a new one."""
    global _idle
    with _lock:
        worker, _idle = _idle, None
    if worker is not None:
        if worker.is_usable and worker.memory_bytes == memory_bytes:
            return worker
        worker.kill()
    return Worker(memory_bytes)


def _keep(worker: Worker) -> None:
    global _idle
    with _lock:
        surplus, _idle = _idle, worker
    if surplus is not None:
        surplus.kill()


@atexit.register
def close() -> None:
    """End the idle worker."""
    global _idle
    with _lock:
        worker, _idle = _idle, None
    if worker is not None:
        worker.kill()
