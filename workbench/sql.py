"""SQL that only reads, on DuckDB, SQLite, CSV, Parquet, Excel and JSON files.

``execute`` is the one way by which the workbench runs SQL: guarded, in a process of its own,
with limits on rows, time and memory.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from workbench.errors import UserInputError

if TYPE_CHECKING:
    from workbench.tasks.sql.rows import Rows
    from workbench.tasks.sql.schema import Schema

__all__ = ["check", "execute", "schema"]

Database = str | os.PathLike[str]


def execute(
    database: Database, sql: str, *, limit: int = 1000, timeout_seconds: float = 30.0
) -> Rows:
    """Run one statement that only reads, and return at most ``limit`` rows.

    ``database`` is a DuckDB, SQLite, CSV, Parquet, Excel or JSON file, or a folder of such
    files; none of them is changed. Raises InvalidDatabase, UnsafeSQL, QueryFailed, QueryTimeout.
    """
    from workbench.tasks.sql.execute import run_checked

    if limit < 1 or timeout_seconds <= 0:
        raise UserInputError(
            "The row limit and the time limit must be above zero.", "Give positive numbers."
        )
    return run_checked(database, sql, limit, timeout_seconds)


def schema(database: Database) -> Schema:
    """The tables, columns, types, keys, comments and row counts. Raises InvalidDatabase."""
    from workbench.tasks.sql.execute import load_schema

    return load_schema(database)


def check(database: Database, sql: str) -> None:
    """Return if `execute` would run ``sql``. Raises UnsafeSQL, QueryFailed, InvalidDatabase."""
    from workbench.tasks.sql import guard

    known = schema(database)
    guard.check(sql, known.dialect, known.table_names)
