"""Reads the schema out of an open connection. Runs in the worker process."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING, Any

from workbench.errors import InvalidDatabase
from workbench.tasks.sql.locked import stop_after
from workbench.tasks.sql.schema import Column, ForeignKey, Schema, Table, quoted
from workbench.tasks.sql.sources import Dialect, Source

if TYPE_CHECKING:
    import duckdb

#: SQLite counts rows by reading the table; after this long the rest stays uncounted.
_COUNT_SECONDS = 2.0

_DUCKDB_TABLES = """
    SELECT schema_name, table_name, 'table', comment FROM duckdb_tables() WHERE NOT internal
    UNION ALL
    SELECT schema_name, view_name, 'view', comment FROM duckdb_views() WHERE NOT internal
    ORDER BY ALL
"""
_DUCKDB_COLUMNS = """
    SELECT schema_name, table_name, column_name, data_type, is_nullable, comment
    FROM duckdb_columns() WHERE NOT internal ORDER BY schema_name, table_name, column_index
"""
_DUCKDB_KEYS = """
    SELECT schema_name, table_name, constraint_type, constraint_column_names, referenced_table,
        referenced_column_names
    FROM duckdb_constraints() WHERE constraint_type IN ('PRIMARY KEY', 'FOREIGN KEY')
    ORDER BY constraint_index
"""


def read_duckdb(connection: duckdb.DuckDBPyConnection, source: Source) -> Schema:
    """The schema of a DuckDB connection. Raises InvalidDatabase when there is no table."""
    columns: dict[str, list[Column]] = {}
    for schema, table, name, kind, nullable, comment in connection.execute(
        _DUCKDB_COLUMNS
    ).fetchall():
        column = Column(name, kind, bool(nullable), comment)
        columns.setdefault(_name(schema, table), []).append(column)
    primary: dict[str, tuple[str, ...]] = {}
    foreign: dict[str, list[ForeignKey]] = {}
    for schema, table, kind, names, other, others in connection.execute(_DUCKDB_KEYS).fetchall():
        key = _name(schema, table)
        if kind == "PRIMARY KEY":
            primary[key] = tuple(names)
        else:
            target = ForeignKey(tuple(names), _name(schema, other), tuple(others))
            foreign.setdefault(key, []).append(target)
    tables = []
    for schema, table, kind, comment in connection.execute(_DUCKDB_TABLES).fetchall():
        name = _name(schema, table)
        tables.append(
            Table(
                name=name,
                columns=tuple(columns.get(name, ())),
                kind=kind,
                primary_key=primary.get(name, ()),
                foreign_keys=tuple(foreign.get(name, ())),
                comment=comment,
                row_count=_count_duckdb(connection, schema, table) if kind == "table" else None,
            )
        )
    return _schema(source, "duckdb", tables)


def read_sqlite(connection: sqlite3.Connection, source: Source) -> Schema:
    """The schema of a SQLite connection. Raises InvalidDatabase when there is no table."""
    rows = connection.execute("PRAGMA main.table_list").fetchall()
    found = sorted(
        (row[1], row[2])
        for row in rows
        # a virtual table's content lives in shadow tables, which nobody asks for
        if row[2] in ("table", "view", "virtual") and not row[1].startswith("sqlite_")
    )
    keys = {name: _sqlite_columns(connection, name) for name, _ in found}
    stop_after(connection, _COUNT_SECONDS)
    tables = []
    for name, kind in found:
        columns, primary = keys[name]
        tables.append(
            Table(
                name=name,
                columns=columns,
                kind="view" if kind == "view" else "table",
                primary_key=primary,
                foreign_keys=_sqlite_foreign_keys(connection, name, keys),
                row_count=_count_sqlite(connection, name) if kind == "table" else None,
            )
        )
    stop_after(connection, 0)
    return _schema(source, "sqlite", tables)


def _schema(source: Source, dialect: Dialect, tables: list[Table]) -> Schema:
    if not tables:
        raise InvalidDatabase(f"{source.name} has no tables.", "Give a database with data.")
    return Schema(source.path, dialect, tuple(tables))


def _name(schema: str, table: str) -> str:
    return table if schema == "main" else f"{schema}.{table}"


def _count_duckdb(connection: duckdb.DuckDBPyConnection, schema: str, table: str) -> int:
    """Exact and quick: DuckDB answers ``count(*)`` from its metadata."""
    sql = f"SELECT count(*) FROM {quoted(schema)}.{quoted(table)}"  # noqa: S608
    row = connection.execute(sql).fetchone()
    assert row is not None
    return int(row[0])


def _sqlite_columns(
    connection: sqlite3.Connection, table: str
) -> tuple[tuple[Column, ...], tuple[str, ...]]:
    """The visible columns of a table and its primary key, in the key's order."""
    try:
        rows = connection.execute(f"PRAGMA main.table_xinfo({quoted(table)})").fetchall()
    except sqlite3.Error:
        return (), ()  # a view of something that is gone; a query of it gets SQLite's message
    shown = [row for row in rows if row[6] != 1]
    columns = tuple(Column(row[1], row[2], nullable=not row[3]) for row in shown)
    primary = sorted((row[5], row[1]) for row in shown if row[5])
    return columns, tuple(name for _, name in primary)


def _sqlite_foreign_keys(
    connection: sqlite3.Connection, table: str, keys: dict[str, Any]
) -> tuple[ForeignKey, ...]:
    rows = connection.execute(f"PRAGMA main.foreign_key_list({quoted(table)})").fetchall()
    found: dict[int, list[tuple[Any, ...]]] = {}
    for row in sorted(rows, key=lambda row: (row[0], row[1])):
        found.setdefault(row[0], []).append(row)
    names = {name.casefold(): name for name in keys}
    result = []
    for parts in found.values():
        other = names.get(parts[0][2].casefold())
        if other is None:
            continue  # SQLite lets a key point to a table that does not exist
        implied = keys[other][1]
        referenced = tuple(
            part[4] or (implied[part[1]] if part[1] < len(implied) else "rowid") for part in parts
        )
        result.append(ForeignKey(tuple(part[3] for part in parts), other, referenced))
    return tuple(result)


def _count_sqlite(connection: sqlite3.Connection, table: str) -> int | None:
    try:
        row = connection.execute(f"SELECT count(*) FROM main.{quoted(table)}").fetchone()  # noqa: S608
    except sqlite3.OperationalError:
        return None  # out of time, or a module that is not here
    return int(row[0])
