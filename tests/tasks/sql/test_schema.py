"""Reading schemas and writing them down for a model."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import duckdb
import pytest

import workbench as wb
from workbench.tasks.sql import process
from workbench.tasks.sql.schema import ForeignKey, identifier


def test_keys_types_comments_and_counts(database: Path):
    schema = wb.sql.schema(database)
    tables = {table.name: table for table in schema.tables}
    assert set(tables) == {"customers", "orders", "Bảng giá", "order"}
    assert tables["customers"].primary_key == ("id",)
    assert tables["customers"].row_count == 3
    assert not tables["customers"].columns[1].nullable
    assert tables["orders"].foreign_keys == (ForeignKey(("customer_id",), "customers", ("id",)),)
    assert tables["orders"].columns[3].type == "DATE"


def test_the_prompt_s_form(duckdb_file: Path):
    text = wb.sql.schema(duckdb_file).to_sql()
    assert text.split("CREATE TABLE ")[1:] == [
        '"Bảng giá" (\n  Mã VARCHAR,\n  Giá INTEGER\n);\n',
        "customers ( -- Khách hàng\n  id INTEGER PRIMARY KEY,\n  name VARCHAR,\n"
        "  city VARCHAR -- Thành phố\n);\n",
        '"order" (\n  "select" INTEGER\n);\n',
        "orders (\n  id INTEGER PRIMARY KEY,\n  customer_id INTEGER,\n  amount DECIMAL(10,2),\n"
        "  ordered_on DATE,\n  FOREIGN KEY (customer_id) REFERENCES customers (id)\n);",
    ]


def test_the_prompt_s_form_is_sql_that_makes_the_tables_again(database: Path):
    connection = sqlite3.connect(":memory:")
    connection.executescript(wb.sql.schema(database).to_sql())
    names = {row[0] for row in connection.execute("SELECT name FROM sqlite_master")}
    assert {"customers", "orders", "Bảng giá", "order"} <= names


def test_schemas_views_and_long_keys_of_duckdb(tmp_path: Path):
    path = tmp_path / "more.duckdb"
    with duckdb.connect(str(path)) as connection:
        connection.execute(
            """
            CREATE SCHEMA sales;
            CREATE TABLE sales.lines (a INTEGER, b INTEGER, PRIMARY KEY (b, a));
            CREATE TABLE returned (a INTEGER, b INTEGER);
            CREATE VIEW big AS SELECT a FROM sales.lines WHERE a > 10;
            """
        )
    schema = wb.sql.schema(path)
    tables = {table.name: table for table in schema.tables}
    assert set(tables) == {"sales.lines", "returned", "big"}
    assert tables["sales.lines"].primary_key == ("b", "a")
    assert tables["big"].kind == "view"
    assert tables["big"].row_count is None
    assert "PRIMARY KEY (b, a)" in schema.to_sql()
    for name in ("sales.lines", "SALES.Lines", "big"):
        assert wb.sql.execute(path, f"SELECT count(*) FROM {name}").rows == ((0,),)


def test_odd_sqlite_databases(tmp_path: Path):
    path = tmp_path / "odd.sqlite"
    connection = sqlite3.connect(path)
    connection.executescript(
        """
        CREATE TABLE parent (a, b, PRIMARY KEY (a, b));
        CREATE TABLE child (x, y, FOREIGN KEY (x, y) REFERENCES Parent);
        CREATE TABLE orphan (x REFERENCES nowhere (id), g GENERATED ALWAYS AS (x + 1));
        CREATE VIRTUAL TABLE notes USING fts5 (body);
        INSERT INTO notes VALUES ('hello world');
        CREATE TABLE gone (a); CREATE VIEW broken AS SELECT a FROM gone; DROP TABLE gone;
        """
    )
    connection.close()
    tables = {table.name: table for table in wb.sql.schema(path).tables}
    assert set(tables) == {"parent", "child", "orphan", "notes", "broken"}
    assert tables["child"].foreign_keys == (ForeignKey(("x", "y"), "parent", ("a", "b")),)
    assert tables["orphan"].foreign_keys == ()
    assert [c.name for c in tables["orphan"].columns] == ["x", "g"]
    rows = wb.sql.execute(path, "SELECT body FROM notes WHERE notes MATCH 'hello'")
    assert rows.rows == (("hello world",),)


def test_a_schema_is_read_once(duckdb_file: Path, monkeypatch: pytest.MonkeyPatch):
    first = wb.sql.schema(duckdb_file)

    def fail(*args: object) -> None:
        raise AssertionError("read again")

    monkeypatch.setattr(process, "read_schema", fail)
    assert wb.sql.schema(duckdb_file) is first


def test_a_changed_database_is_read_again(tmp_path: Path):
    path = tmp_path / "t.sqlite"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE a (x)")
    assert wb.sql.schema(path).table_names == ("a",)
    connection.execute("CREATE TABLE b (x)")
    connection.close()
    assert wb.sql.schema(path).table_names == ("a", "b")


def test_html_is_escaped(tmp_path: Path):
    path = tmp_path / "t.duckdb"
    with duckdb.connect(str(path)) as connection:
        connection.execute('CREATE TABLE "<b>x" ("<script>" INTEGER)')
    page = wb.sql.schema(path)._repr_html_()
    assert "<script>" not in page and "&lt;script&gt;" in page


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("name", "name"),
        ("Giá", "Giá"),
        ("two words", '"two words"'),
        ("Order", '"Order"'),
        ("1st", '"1st"'),
        ('a"b', '"a""b"'),
        ("", '""'),
    ],
)
def test_identifiers_are_quoted_where_they_must_be(name: str, written: str):
    assert identifier(name) == written
