"""The process that touches databases: ``python -m workbench.tasks.sql.worker FD MEMORY_BYTES``.

It serves one request after the other over a socket, holds no state of a query, and is meant to
be killed. Before the first request it gives away what it will not need: memory beyond a limit,
and writing to any file. Start-up is paid by the first question, so it imports little.
"""

from __future__ import annotations

import os
import resource
import signal
import sqlite3
import sys
import time
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

from workbench.errors import InvalidDatabase, QueryFailed, UnsafeSQL, WorkbenchError
from workbench.tasks.sql import inspect, locked, tables
from workbench.tasks.sql.messages import IDLE_SECONDS, Fetched, Reply, Request, Started
from workbench.tasks.sql.sources import Kind, Source
from workbench.units import format_bytes

if TYPE_CHECKING:
    import duckdb

#: Past its limit, a worker whose parent is gone ends itself.
_GRACE_SECONDS = 10.0
_MAX_RESULT_BYTES = locked.MAX_VALUE_BYTES
_FETCH_ROWS = 256
#: Address space of Python, DuckDB and the stacks of its threads before the first query, measured
#: as 0.7 GiB on Linux (most of it is never touched).
_OVERHEAD_BYTES = 2**30
_CORRECT = "Correct the SQL."
_LESS = "Select fewer rows or shorter columns."


def main(descriptor: int, memory_bytes: int) -> None:
    """Serve requests until the parent closes its end or is silent for `IDLE_SECONDS`."""
    with Connection(descriptor) as parent:
        _give_up_writing()
        _limit_memory(memory_bytes)
        server = _Server(parent, memory_bytes)
        while parent.poll(IDLE_SECONDS):
            try:
                request = parent.recv()
            except EOFError:
                return
            parent.send(server.answer(request))
            signal.setitimer(signal.ITIMER_REAL, 0)


class _Server:
    """Keeps the tables of the last folder or file that had to be loaded; nothing else."""

    def __init__(self, parent: Connection, memory_bytes: int) -> None:
        self._parent = parent
        self._memory_bytes = memory_bytes
        self._fingerprint: str | None = None
        self._loaded: duckdb.DuckDBPyConnection | None = None

    def answer(self, request: Request) -> Reply:
        try:
            kind = request.source.read_kind()
            if kind == "sqlite":
                return self._answer_sqlite(request)
            return self._answer_duckdb(request, self._connect(request.source, kind))
        except OSError as error:
            return InvalidDatabase(
                f"{request.source.name} cannot be read: {error.strerror or error}.",
                "Check its permissions.",
            )
        except WorkbenchError as error:
            return error
        except MemoryError:
            return self._too_much_memory()
        except (ValueError, OverflowError) as error:  # such as a date after the year 9999
            return QueryFailed(
                f"A value cannot be handed over: {locked.first_line(error)}.",
                "Cast its column to text.",
            )

    def _answer_duckdb(self, request: Request, connection: duckdb.DuckDBPyConnection) -> Reply:
        import duckdb

        try:
            self._begin(request)
            if request.kind == "schema":
                return inspect.read_duckdb(connection, request.source)
            locked.require_one_select(connection, request.sql)
            started = time.perf_counter()
            cursor = connection.execute(request.sql)
            return _fetch(
                cursor, [str(column[1]) for column in cursor.description], request, started
            )
        except duckdb.OutOfMemoryException:
            return self._too_much_memory()
        except duckdb.PermissionException as error:
            raise UnsafeSQL(locked.first_line(error), "Only tables can be read.") from None
        except duckdb.Error as error:
            if request.kind == "schema":
                raise InvalidDatabase(
                    f"{request.source.name} cannot be read: {locked.first_line(error)}",
                    "Restore it from a backup.",
                ) from None
            raise QueryFailed(locked.first_line(error), _CORRECT) from None
        finally:
            connection.close()

    def _connect(self, source: Source, kind: Kind) -> duckdb.DuckDBPyConnection:
        """A connection for one request. A database file is let go of after each one, so that
        other programs can open it for writing."""
        threads = min(4, os.cpu_count() or 1)
        if kind == "duckdb":
            return locked.open_duckdb(source, self._memory_bytes, threads)
        if self._loaded is None or self._fingerprint != source.fingerprint:
            if self._loaded is not None:
                self._loaded.close()
            self._loaded = tables.load_tables(source, self._memory_bytes, threads)
            locked.lock_duckdb(self._loaded)
            self._fingerprint = source.fingerprint
        return self._loaded.cursor()

    def _answer_sqlite(self, request: Request) -> Reply:
        connection = locked.open_sqlite(request.source)
        try:
            self._begin(request)
            if request.kind == "schema":
                return inspect.read_sqlite(connection, request.source)
            locked.lock_sqlite(connection)
            started = time.perf_counter()
            cursor = connection.execute(request.sql)
            return _fetch(cursor, None, request, started)
        except (sqlite3.Error, sqlite3.Warning) as error:
            if "not authorized" in str(error) or "prohibited" in str(error):
                raise UnsafeSQL(f"SQLite refused: {error}.", "Only tables can be read.") from None
            if request.kind == "schema":
                raise InvalidDatabase(
                    f"{request.source.name} cannot be read: {error}.", "Restore it from a backup."
                ) from None
            raise QueryFailed(f"{locked.first_line(error)}.", _CORRECT) from None
        finally:
            connection.close()

    def _begin(self, request: Request) -> None:
        # the default action of SIGALRM ends the process even inside an engine's C++ code
        signal.setitimer(signal.ITIMER_REAL, request.timeout_seconds + _GRACE_SECONDS)
        self._parent.send(Started())

    def _too_much_memory(self) -> QueryFailed:
        return QueryFailed(
            f"The query needs more than the {format_bytes(self._memory_bytes)} that it may use.",
            "Filter or aggregate earlier, or set WORKBENCH_MEMORY__QUERY higher.",
        )


def _fetch(cursor: Any, types: list[str] | None, request: Request, started: float) -> Fetched:
    """At most ``limit`` rows; one more is asked for, to know whether there are more.

    Raises QueryFailed when they are too large to be handed over.
    """
    rows: list[tuple[Any, ...]] = []
    size_bytes = 0
    while len(rows) <= request.limit:
        part = cursor.fetchmany(min(_FETCH_ROWS, request.limit + 1 - len(rows)))
        if not part:
            break
        rows += part
        size_bytes += sum(_size_bytes(value) for row in part for value in row)
        if size_bytes > _MAX_RESULT_BYTES:
            raise QueryFailed(f"The result is larger than {_MAX_RESULT_BYTES // 2**20} MiB.", _LESS)
    truncated = len(rows) > request.limit
    columns = tuple(column[0] for column in cursor.description)
    return Fetched(
        columns=columns,
        types=tuple(types or [""] * len(columns)),
        rows=tuple(tuple(row) for row in rows[: request.limit]),
        truncated=truncated,
        seconds=time.perf_counter() - started,
    )


def _size_bytes(value: Any) -> int:
    """About what a value takes; exact enough to stop a runaway result."""
    if isinstance(value, dict):
        return 16 + sum(_size_bytes(k) + _size_bytes(v) for k, v in value.items())
    if isinstance(value, list | tuple):
        return 16 + sum(_size_bytes(item) for item in value)
    return sys.getsizeof(value)


def _give_up_writing() -> None:
    """No file can grow, nothing is dumped. A write raises OSError instead of a signal."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _limit_memory(memory_bytes: int) -> None:
    """Limit the address space, which only Linux holds a process to. DuckDB's own limit does not
    hold for every function: ``range(50000000)`` took 3.5 GB under a limit of 512 MB."""
    if not sys.platform.startswith("linux"):
        return
    limit_bytes = memory_bytes + _OVERHEAD_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit_bytes, limit_bytes))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
