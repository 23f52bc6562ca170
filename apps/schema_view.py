"""The tables of a database as a list that unfolds: columns, types, keys and comments."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from apps.texts import text

if TYPE_CHECKING:
    from workbench.tasks.sql.schema import Column, Schema, Table


def schema_html(schema: Schema, language: str) -> str:
    """Every table of ``schema``, folded; everything that comes from the database is escaped."""
    return "".join(_table(table, language) for table in schema.tables)


def _table(table: Table, language: str) -> str:
    count = ""
    if table.row_count is not None:
        count = escape(text("sql.table_rows", language, count=table.row_count))
    comment = f"<p>{escape(table.comment)}</p>" if table.comment else ""
    columns = "".join(_column(table, column, language) for column in table.columns)
    return (
        f"<details><summary><b>{escape(table.name)}</b> <small>{count}</small></summary>"
        f"{comment}<ul>{columns}</ul></details>"
    )


def _column(table: Table, column: Column, language: str) -> str:
    marks = [column.type]
    if column.name in table.primary_key:
        marks.append(text("sql.primary_key", language))
    for key in table.foreign_keys:
        if column.name in key.columns:
            there = key.referenced_columns[key.columns.index(column.name)]
            marks.append(f"→ {key.table}.{there}")
    comment = f"<br><small>{escape(column.comment)}</small>" if column.comment else ""
    about = escape(" · ".join(mark for mark in marks if mark))
    return f"<li><code>{escape(column.name)}</code> <small>{about}</small>{comment}</li>"
