"""Connections that can only read: opened in the worker process, never in the user's.

Whatever the guard let through meets an engine that opens no other file, runs one statement, and
cannot be talked out of it: DuckDB with a locked configuration, SQLite with an authorizer.
"""

from __future__ import annotations

import contextlib
import sqlite3
import time
from pathlib import Path
from typing import TYPE_CHECKING

from workbench.errors import InvalidDatabase, QueryFailed, UnsafeSQL
from workbench.tasks.sql.schema import quoted
from workbench.tasks.sql.sources import Source

if TYPE_CHECKING:
    import duckdb

#: Longest text or blob that SQLite may make; more could not be handed over anyway.
MAX_VALUE_BYTES = 64 * 2**20
_ONE_SELECT = "Write one SELECT that reads the tables of the database."
#: In this order: the temporary folder cannot be changed once external access is off, and nothing
#: can be changed after the last one.
_DUCKDB_LOCKS = (
    "SET temp_directory = ''",
    "SET enable_external_access = false",
    "SET python_enable_replacements = false",
    "SET autoinstall_known_extensions = false",
    "SET autoload_known_extensions = false",
    "SET allow_community_extensions = false",
    "SET lock_configuration = true",
)
_SQLITE_ALLOWED = frozenset(
    {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE}
)
_SQLITE_DENIED_FUNCTIONS = frozenset({"load_extension", "fts3_tokenizer"})
# https://sqlite.org/fileformat2.html#file_format_version_numbers
_SQLITE_READ_VERSION_AT, _SQLITE_WAL_VERSION = 19, 2


def open_duckdb(source: Source, memory_bytes: int, threads: int) -> duckdb.DuckDBPyConnection:
    """A locked, read-only connection to the DuckDB file. Raises InvalidDatabase."""
    import duckdb

    limits = {"memory_limit": f"{memory_bytes}B", "threads": threads}
    try:
        connection = duckdb.connect(source.path, read_only=True, config=limits)
    except duckdb.Error as error:
        if "Could not set lock" in str(error):
            raise InvalidDatabase(
                f"{source.name} is open for writing in another program.", "Close it there first."
            ) from None
        raise InvalidDatabase(
            f"{source.name} cannot be opened: {first_line(error)}",
            "Open it with the DuckDB version that wrote it, or restore a backup.",
        ) from None
    lock_duckdb(connection)
    return connection


def lock_duckdb(connection: duckdb.DuckDBPyConnection) -> None:
    """Turn off everything that reaches outside the connection, for good."""
    for statement in _DUCKDB_LOCKS:
        connection.execute(statement)


def require_one_select(connection: duckdb.DuckDBPyConnection, sql: str) -> None:
    """DuckDB's own parser must see one SELECT too, in case it reads text differently."""
    import duckdb

    try:
        statements = connection.extract_statements(sql)
    except duckdb.Error as error:
        raise QueryFailed(first_line(error), "Correct the SQL.") from None
    if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
        raise UnsafeSQL("DuckDB does not read this as one SELECT.", _ONE_SELECT)


def open_sqlite(source: Source) -> sqlite3.Connection:
    """A read-only connection to the SQLite file that leaves nothing beside it.

    SQLite makes ``-wal`` and ``-shm`` files when it opens a database in WAL mode, and a reader
    cannot remove them; without a ``-wal`` file nobody writes, so it is opened as immutable.
    Raises InvalidDatabase.
    """
    path = Path(source.path)
    mode = "mode=ro"
    with path.open("rb") as file:
        header = file.read(_SQLITE_READ_VERSION_AT + 1)
    if header[_SQLITE_READ_VERSION_AT:] == bytes([_SQLITE_WAL_VERSION]):
        journal = Path(f"{path}-wal")
        if not journal.is_file() or not journal.stat().st_size:
            mode = "mode=ro&immutable=1"
        elif not Path(f"{path}-shm").is_file():
            raise InvalidDatabase(
                f"{source.name} has changes that are not in it yet ({journal.name}).",
                f"Run `sqlite3 {source.name} 'PRAGMA wal_checkpoint(TRUNCATE)'` once.",
            )
    connection = sqlite3.connect(f"{path.as_uri()}?{mode}", uri=True, isolation_level=None)
    connection.text_factory = lambda raw: raw.decode("utf-8", "replace")
    try:
        connection.execute("PRAGMA query_only = ON")
        connection.execute("PRAGMA trusted_schema = OFF")
        connection.execute("PRAGMA temp_store = MEMORY")
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.Error as error:
        connection.close()
        raise InvalidDatabase(
            f"{source.name} cannot be opened: {error}.", "Restore it from a backup."
        ) from None
    connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_VALUE_BYTES)
    return connection


def lock_sqlite(connection: sqlite3.Connection) -> None:
    """Let later statements select from the user's tables and do nothing else.

    Virtual tables (full-text search, json_each) declare themselves when they are first used, by
    statements that are refused later; so they are used once before.
    """
    rows = connection.execute("PRAGMA main.table_list").fetchall()
    for name in ("json_each", "json_tree", *(row[1] for row in rows if row[2] == "virtual")):
        with contextlib.suppress(sqlite3.Error):  # a module that is not here: its query will say
            connection.execute(f"SELECT 1 FROM {quoted(name)} LIMIT 0")  # noqa: S608
    connection.set_authorizer(_authorize)


def _authorize(
    action: int, first: str | None, second: str | None, database: str | None, source: str | None
) -> int:
    if (action, first) == (sqlite3.SQLITE_PRAGMA, "data_version") and second is None:
        return sqlite3.SQLITE_OK  # full-text search asks whether its index is still valid
    if action not in _SQLITE_ALLOWED:
        return sqlite3.SQLITE_DENY
    if action == sqlite3.SQLITE_FUNCTION and (second or "").lower() in _SQLITE_DENIED_FUNCTIONS:
        return sqlite3.SQLITE_DENY
    if action == sqlite3.SQLITE_READ and (first or "").lower().startswith("sqlite_"):
        return sqlite3.SQLITE_DENY
    return sqlite3.SQLITE_OK


def stop_after(connection: sqlite3.Connection, seconds: float) -> None:
    """Interrupt what runs on ``connection`` once ``seconds`` from now are over; 0: never."""
    deadline = time.monotonic() + seconds
    check = (lambda: time.monotonic() > deadline) if seconds else None
    connection.set_progress_handler(check, 10_000)


def first_line(error: Exception) -> str:
    """An engine's message on one line, without its sketch of the statement and its advice."""
    text = str(error).split("\n\n")[0].split("\nLINE ")[0]
    text = " ".join(text.split())
    return text[:300] + ("..." if len(text) > 300 else "")
