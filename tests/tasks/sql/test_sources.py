"""What a path means, and files that are no database."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path

import duckdb
import pytest

import workbench as wb
from workbench.errors import InvalidDatabase
from workbench.tasks.sql.sources import table_name


def test_a_database_is_told_by_its_content(duckdb_file: Path, sqlite_file: Path, tmp_path: Path):
    shutil.copy(duckdb_file, tmp_path / "a.db")
    shutil.copy(sqlite_file, tmp_path / "b.csv")
    assert wb.sql.schema(tmp_path / "a.db").dialect == "duckdb"
    assert wb.sql.schema(tmp_path / "b.csv").dialect == "sqlite"


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("empty.db", b"", "is empty"),
        ("notes.txt", b"hello", "is not a database"),
        ("cut.sqlite", b"SQLite format 3\x00" + b"\x00" * 50, "cannot be"),
        ("cut.duckdb", b"\x00" * 8 + b"DUCK" + b"\x00" * 50, "cannot be opened"),
        ("cut.parquet", b"PAR1 and no more", "cannot be read"),
        ("cut.xlsx", b"PK\x03\x04 and no more", "is not an Excel workbook"),
        ("latin.csv", "Tên,Giá\náo,1\n".encode("cp1258", "replace") + b"\xe1\xff", "UTF-8"),
        ("broken.json", b'{"a": ', "cannot be read"),
    ],
)
def test_a_broken_file_is_named_with_a_remedy(name: str, content: bytes, says: str, tmp_path: Path):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InvalidDatabase, match=name.split(".", maxsplit=1)[0]) as failed:
        wb.sql.schema(path)
    assert says in str(failed.value)
    assert failed.value.remedy
    assert path.read_bytes() == content


def test_what_is_not_there_is_refused(tmp_path: Path):
    with pytest.raises(InvalidDatabase, match="There is no file"):
        wb.sql.schema(tmp_path / "none.duckdb")
    with pytest.raises(InvalidDatabase, match="no table files"):
        wb.sql.schema(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_url_is_refused_without_showing_its_password():
    with pytest.raises(InvalidDatabase, match="postgresql://") as failed:
        wb.sql.schema("postgresql://user:secret@host/db")
    assert "secret" not in str(failed.value)


def test_a_database_without_tables_is_refused(tmp_path: Path):
    duckdb.connect(str(tmp_path / "none.duckdb")).close()
    with pytest.raises(InvalidDatabase, match="has no tables"):
        wb.sql.schema(tmp_path / "none.duckdb")
    connection = sqlite3.connect(tmp_path / "none.sqlite")
    connection.executescript("CREATE TABLE t (a); DROP TABLE t")
    connection.close()
    with pytest.raises(InvalidDatabase, match="has no tables"):
        wb.sql.schema(tmp_path / "none.sqlite")


def test_a_duckdb_file_that_is_open_for_writing_is_named(tmp_path: Path):
    path = tmp_path / "busy.duckdb"
    with duckdb.connect(str(path)) as writer:
        writer.execute("CREATE TABLE t AS SELECT 1 AS a")
        with pytest.raises(InvalidDatabase, match="open for writing"):
            wb.sql.schema(path)
    assert wb.sql.execute(path, "SELECT a FROM t").rows == ((1,),)


def test_a_duckdb_file_can_be_written_right_after_a_question(tmp_path: Path):
    path = tmp_path / "shop.duckdb"
    with duckdb.connect(str(path)) as writer:
        writer.execute("CREATE TABLE t AS SELECT 1 AS a")
    wb.sql.execute(path, "SELECT a FROM t")
    with duckdb.connect(str(path)) as writer:
        writer.execute("INSERT INTO t VALUES (2)")
    assert wb.sql.execute(path, "SELECT sum(a) FROM t").rows == ((3,),)


def test_a_sqlite_file_in_wal_mode_gets_nothing_beside_it(tmp_path: Path):
    path = tmp_path / "wal.sqlite"
    writer = sqlite3.connect(path)
    writer.execute("PRAGMA journal_mode = WAL")
    writer.execute("CREATE TABLE t (a)")
    writer.execute("INSERT INTO t VALUES (1)")
    writer.commit()
    # a writer is there: what is only in the journal is read too
    assert wb.sql.execute(path, "SELECT a FROM t").rows == ((1,),)
    copied = tmp_path / "copied" / "wal.sqlite"
    copied.parent.mkdir()
    for suffix in ("", "-wal"):
        shutil.copy(f"{path}{suffix}", f"{copied}{suffix}")
    writer.close()
    assert wb.sql.execute(path, "SELECT a FROM t").rows == ((1,),)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["copied", "wal.sqlite"]
    with pytest.raises(InvalidDatabase, match="not in it yet"):
        wb.sql.schema(copied)


@pytest.mark.parametrize(
    ("text", "name"),
    [("Doanh thu 2024", "Doanh_thu_2024"), ("2024", "t_2024"), ("a-b", "a_b"), ("---", "data")],
)
def test_table_names_need_no_quotes(text: str, name: str):
    assert table_name(text) == name
