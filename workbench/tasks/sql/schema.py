"""What a database holds: tables, columns, keys, comments and row counts."""

from __future__ import annotations

import html
import re
from dataclasses import asdict, dataclass
from typing import Any, Literal

from workbench.tasks.sql.sources import Dialect

_PLAIN = re.compile(r"[^\W\d]\w*")
#: Words that DuckDB or SQLite does not take as a bare table or column name.
_RESERVED_WORDS = """
all and as asc between both by case cast check collate column commit constraint create cross
current_date current_time current_timestamp default deferrable delete desc distinct drop else end
escape except exists false fetch for foreign from full group having in index inner insert
intersect into is join lateral leading left like limit natural not null offset on only or order
outer primary qualify references right select set some table then to trailing transaction true
union unique update using values when where window with
"""
_RESERVED = frozenset(_RESERVED_WORDS.split())


@dataclass(frozen=True)
class Column:
    """One column. ``type`` is the database's own name of it; SQLite may have none."""

    name: str
    type: str
    nullable: bool = True
    comment: str | None = None


@dataclass(frozen=True)
class ForeignKey:
    """``columns`` of this table hold ``referenced_columns`` of ``table``."""

    columns: tuple[str, ...]
    table: str
    referenced_columns: tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """One table or view. ``row_count`` is None where counting would take long."""

    name: str
    columns: tuple[Column, ...]
    kind: Literal["table", "view"] = "table"
    primary_key: tuple[str, ...] = ()
    foreign_keys: tuple[ForeignKey, ...] = ()
    comment: str | None = None
    row_count: int | None = None


@dataclass(frozen=True)
class Schema:
    """The tables of one database, in the SQL dialect that it speaks."""

    database: str
    dialect: Dialect
    tables: tuple[Table, ...]

    @property
    def table_names(self) -> tuple[str, ...]:
        """The names of all tables and views, with their schema where it is not the main one."""
        return tuple(table.name for table in self.tables)

    def to_sql(self) -> str:
        """One compact CREATE TABLE a table: what a language model reads.

        Views are written as tables, because a question does not care.
        """
        return "\n".join(_create(table) for table in self.tables)

    def to_dict(self) -> dict[str, Any]:
        """The schema as JSON types."""
        return asdict(self)

    def _repr_html_(self) -> str:
        blocks = []
        for table in self.tables:
            count = "" if table.row_count is None else f" ({table.row_count:,} rows)"
            title = f"<summary><b>{html.escape(table.name)}</b>{count}</summary>"
            rows = "".join(
                "<tr>" + "".join(f"<td>{html.escape(text)}</td>" for text in cells) + "</tr>"
                for c in table.columns
                for cells in [(c.name, c.type, _role(table, c), c.comment or "")]
            )
            blocks.append(f"<details open>{title}<table>{rows}</table></details>")
        return "".join(blocks)


def identifier(name: str) -> str:
    """``name`` as SQL, in quotes only where they are needed. Dots part a schema from a table."""
    if _PLAIN.fullmatch(name) and name.lower() not in _RESERVED:
        return name
    return quoted(name)


def quoted(name: str) -> str:
    """``name`` as an SQL identifier in quotes."""
    return '"' + name.replace('"', '""') + '"'


def _table_identifier(name: str) -> str:
    return ".".join(identifier(part) for part in name.split(".", 1))


def _create(table: Table) -> str:
    lines = []
    for column in table.columns:
        parts = [identifier(column.name), column.type]
        if table.primary_key == (column.name,):
            parts.append("PRIMARY KEY")
        lines.append((" ".join(part for part in parts if part), column.comment))
    if len(table.primary_key) > 1:
        lines.append((f"PRIMARY KEY ({_list(table.primary_key)})", None))
    for key in table.foreign_keys:
        target = f"{_table_identifier(key.table)} ({_list(key.referenced_columns)})"
        lines.append((f"FOREIGN KEY ({_list(key.columns)}) REFERENCES {target}", None))
    body = []
    for index, (text, comment) in enumerate(lines):
        comma = "," if index < len(lines) - 1 else ""
        body.append(f"  {text}{comma}" + (f" -- {' '.join(comment.split())}" if comment else ""))
    note = f" -- {' '.join(table.comment.split())}" if table.comment else ""
    return f"CREATE TABLE {_table_identifier(table.name)} ({note}\n" + "\n".join(body) + "\n);"


def _list(names: tuple[str, ...]) -> str:
    return ", ".join(identifier(name) for name in names)


def _role(table: Table, column: Column) -> str:
    """``primary key``, ``-> customers.id``, or nothing."""
    roles = ["primary key"] if column.name in table.primary_key else []
    for key in table.foreign_keys:
        if column.name in key.columns:
            target = key.referenced_columns[key.columns.index(column.name)]
            roles.append(f"-> {key.table}.{target}")
    return ", ".join(roles)
