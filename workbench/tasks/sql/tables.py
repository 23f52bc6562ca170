"""Loads CSV, Parquet, Excel and JSON files as tables of an in-memory DuckDB.

The files are read once and the connection is locked after that, so a query cannot reach a file
at all; that is safer than views, which would need file access while the query runs.
"""

from __future__ import annotations

import datetime as dt
import zipfile
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from workbench.errors import InvalidDatabase
from workbench.tasks.sql.locked import first_line
from workbench.tasks.sql.schema import quoted
from workbench.tasks.sql.sources import Source, TableFile, table_name

if TYPE_CHECKING:
    import duckdb

_READERS = {
    # every row is looked at, so a late value of another type cannot break the load
    "csv": "read_csv(?, sample_size = -1)",
    "parquet": "read_parquet(?)",
    "json": "read_json(?, sample_size = -1)",
}


def load_tables(source: Source, memory_bytes: int, threads: int) -> duckdb.DuckDBPyConnection:
    """The files of ``source`` as tables; the connection is not locked yet.

    Raises InvalidDatabase naming the file that cannot be read.
    """
    import duckdb

    limits = {"memory_limit": f"{memory_bytes}B", "threads": threads}
    connection = duckdb.connect(":memory:", config=limits)
    for file in source.files:
        name = file.path.rsplit("/", 1)[-1]
        try:
            if file.format == "excel":
                _load_workbook(connection, file, alone=file.path == source.path)
                continue
            reader = _READERS[file.format]
            connection.execute(
                f"CREATE TABLE {quoted(file.table)} AS SELECT * FROM {reader}",  # noqa: S608
                [file.path],
            )
            if file.format == "csv":
                _note_skipped_lines(connection, file)
        except (duckdb.OutOfMemoryException, MemoryError):
            raise InvalidDatabase(
                f"{name} does not fit into the memory that a query may use.",
                "Set WORKBENCH_MEMORY__QUERY higher, or turn the file into a DuckDB database.",
            ) from None
        except (duckdb.Error, UnicodeDecodeError) as error:
            remedy = "Save the file again as UTF-8." if "utf-8" in str(error) else "Check the file."
            raise InvalidDatabase(f"{name} cannot be read: {first_line(error)}", remedy) from None
    return connection


def _note_skipped_lines(connection: duckdb.DuckDBPyConnection, file: TableFile) -> None:
    """DuckDB leaves out lines above what it takes for the header; the schema must say so."""
    row = connection.execute("SELECT SkipRows FROM sniff_csv(?)", [file.path]).fetchone()
    if row and row[0]:
        note = f"the first {row[0]} lines of the file are not in this table"
        connection.execute(f"COMMENT ON TABLE {quoted(file.table)} IS '{note}'")


def _load_workbook(connection: duckdb.DuckDBPyConnection, file: TableFile, alone: bool) -> None:
    """One table a sheet that has cells: named as the file, or as the sheets if there are more."""
    import openpyxl

    try:
        book = openpyxl.load_workbook(file.path, read_only=True, data_only=True)
        sheets = [(sheet.title, _cells(sheet)) for sheet in book.worksheets]
        book.close()
    except (zipfile.BadZipFile, KeyError, ValueError, OSError) as error:
        raise InvalidDatabase(
            f"{file.path.rsplit('/', 1)[-1]} is not an Excel workbook: {first_line(error)}",
            "Save it again as .xlsx.",
        ) from None
    filled = [(title, rows) for title, rows in sheets if rows]
    if not filled:
        raise InvalidDatabase(
            f"{file.path.rsplit('/', 1)[-1]} has no cells.", "Give a workbook with a table."
        )
    taken: set[str] = set()
    for title, rows in filled:
        name = file.table
        if len(filled) > 1:
            name = table_name(title if alone else f"{file.table}_{title}")
        name = next(n for n in _numbered(name) if n.casefold() not in taken)
        taken.add(name.casefold())
        _create_table(connection, name, rows)


def _cells(sheet: Any) -> list[list[Any]]:
    """The rows of a sheet without the empty ones, cut at the last column that has a value."""
    sheet.reset_dimensions()  # some writers store wrong ones, and openpyxl believes them
    rows = [list(row) for row in sheet.iter_rows(values_only=True)]
    rows = [row for row in rows if any(cell is not None for cell in row)]
    width = max((i + 1 for row in rows for i, c in enumerate(row) if c is not None), default=0)
    return [(row + [None] * width)[:width] for row in rows]


def _create_table(connection: duckdb.DuckDBPyConnection, table: str, rows: list[list[Any]]) -> None:
    header, body = rows[0], rows[1:]
    names = _column_names(header)
    parts = []
    columns = []
    for index, name in enumerate(names):
        kind, values = _typed([row[index] for row in body])
        parts.append(f"unnest(CAST(? AS {kind}[])) AS {quoted(name)}")
        columns.append(values)
    connection.execute(f"CREATE TABLE {quoted(table)} AS SELECT {', '.join(parts)}", columns)


def _column_names(header: Sequence[Any]) -> list[str]:
    names: list[str] = []
    for position, cell in enumerate(header, start=1):
        text = " ".join(str(cell).split()) if cell is not None else ""
        taken = {name.casefold() for name in names}
        base = text or f"column_{position}"
        names.append(next(n for n in _numbered(base) if n.casefold() not in taken))
    return names


def _numbered(name: str) -> Iterator[str]:
    """``name``, ``name_2``, ``name_3`` ..."""
    yield name
    number = 2
    while True:
        yield f"{name}_{number}"
        number += 1


def _typed(cells: list[Any]) -> tuple[str, list[Any]]:
    """The DuckDB type that holds all the cells, and the cells in it."""
    kinds = {type(cell) for cell in cells if cell is not None}
    if kinds == {int} and all(c is None or abs(c) < 2**63 for c in cells):
        return "BIGINT", cells
    if kinds and kinds <= {int, float}:
        return "DOUBLE", [None if c is None else float(c) for c in cells]
    if kinds and kinds <= {dt.datetime, dt.date}:
        if all(not isinstance(c, dt.datetime) or c.time() == dt.time() for c in cells):
            return "DATE", [c.date() if isinstance(c, dt.datetime) else c for c in cells]
        return "TIMESTAMP", cells
    if kinds in ({bool}, {dt.time}):
        return "BOOLEAN" if kinds == {bool} else "TIME", cells
    return "VARCHAR", [None if c is None else str(c) for c in cells]
