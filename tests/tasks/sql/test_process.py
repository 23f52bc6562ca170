"""Limits on time, memory and rows; what a killed worker leaves behind: nothing."""

from __future__ import annotations

import datetime as dt
import subprocess
import sys
import threading
import time
import uuid
from decimal import Decimal
from pathlib import Path

import duckdb
import pytest

import workbench as wb
from workbench.errors import Cancelled, QueryFailed, QueryTimeout, UnsafeSQL, UserInputError
from workbench.settings import get_settings
from workbench.tasks.sql import process
from workbench.tasks.sql.execute import run_guarded, schema_of
from workbench.tasks.sql.sources import find_source

ENDLESS = {
    "duckdb": "SELECT count(*) FROM range(1000000) a, range(1000000) b WHERE a.range < -b.range",
    "sqlite": "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x FROM n) SELECT max(x) FROM n",
}


@pytest.fixture
def small_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_MEMORY__QUERY", "256MiB")
    get_settings.cache_clear()


@pytest.mark.parametrize("kind", ["duckdb", "sqlite"])
def test_an_endless_query_is_killed_and_the_next_one_runs(
    kind: str, request: pytest.FixtureRequest
):
    database = request.getfixturevalue(f"{kind}_file")
    wb.sql.schema(database)
    started = time.monotonic()
    with pytest.raises(QueryTimeout, match="within 0.5 seconds"):
        wb.sql.execute(database, ENDLESS[kind], timeout_seconds=0.5)
    assert time.monotonic() - started < 10
    assert wb.sql.execute(database, "SELECT count(*) FROM customers").rows == ((3,),)


@pytest.mark.usefixtures("small_memory")
@pytest.mark.parametrize(
    "sql",
    [
        "SELECT repeat('x', 2000000000)",
        "SELECT length(repeat(repeat('x', 1000000), 2000))",
        "SELECT list(range) FROM range(100000000)",
        "SELECT string_agg(range::VARCHAR, ',') FROM range(100000000)",
        "SELECT count(*) FROM (SELECT DISTINCT hash(range) FROM range(100000000))",
    ],
)
def test_a_memory_blow_up_is_the_query_s_failure(sql: str, duckdb_file: Path):
    with pytest.raises(QueryFailed, match=r"256.00 MiB") as failed:
        wb.sql.execute(duckdb_file, sql)
    assert "WORKBENCH_MEMORY__QUERY" in failed.value.remedy


def test_sqlite_makes_no_endless_value(sqlite_file: Path):
    with pytest.raises(QueryFailed, match="too big"):
        wb.sql.execute(sqlite_file, "SELECT zeroblob(900000000)")


def test_a_result_too_large_to_hand_over_is_refused(duckdb_file: Path):
    with pytest.raises(QueryFailed, match="larger than 64 MiB"):
        wb.sql.execute(duckdb_file, "SELECT repeat('x', 1000000) FROM range(1000)")


def test_rows_are_limited_and_that_is_said(database: Path):
    rows = wb.sql.execute(database, "SELECT id FROM customers ORDER BY id", limit=2)
    assert (rows.rows, rows.truncated, rows.row_count) == (((1,), (2,)), True, 2)
    rows = wb.sql.execute(database, "SELECT id FROM customers ORDER BY id", limit=3)
    assert (rows.row_count, rows.truncated) == (3, False)


def test_a_huge_result_is_not_computed_for_its_first_rows(duckdb_file: Path):
    rows = wb.sql.execute(duckdb_file, "SELECT * FROM range(100000000000)", limit=3)
    assert (rows.rows, rows.truncated) == (((0,), (1,), (2,)), True)


@pytest.mark.parametrize(("limit", "timeout_seconds"), [(0, 1.0), (-1, 1.0), (1, 0.0), (1, -2.0)])
def test_limits_must_be_positive(limit: int, timeout_seconds: float, duckdb_file: Path):
    with pytest.raises(UserInputError, match="above zero"):
        wb.sql.execute(duckdb_file, "SELECT 1", limit=limit, timeout_seconds=timeout_seconds)


def test_stopping_kills_the_query(duckdb_file: Path):
    source = find_source(duckdb_file)
    schema_of(source)
    asked = threading.Event()

    def should_stop() -> bool:
        asked.set()
        return True

    with pytest.raises(Cancelled):
        run_guarded(source, ENDLESS["duckdb"], 10, 60.0, should_stop)
    assert asked.is_set()


def test_a_worker_that_dies_is_the_query_s_failure(
    duckdb_file: Path, monkeypatch: pytest.MonkeyPatch
):
    made: list[process.Worker] = []
    make = process.Worker.__init__

    def remember(self: process.Worker, memory_bytes: int) -> None:
        make(self, memory_bytes)
        made.append(self)

    monkeypatch.setattr(process.Worker, "__init__", remember)
    process.close()
    wb.sql.execute(duckdb_file, "SELECT 1")
    made[-1]._process.kill()
    made[-1]._process.wait()
    # the dead one is noticed and replaced
    assert wb.sql.execute(duckdb_file, "SELECT 1").rows == ((1,),)
    assert len(made) == 2

    def die() -> bool:
        made[-1]._process.kill()
        return False

    with pytest.raises(QueryFailed, match="SIGKILL"):
        run_guarded(find_source(duckdb_file), ENDLESS["duckdb"], 10, 60.0, die)


def test_the_engine_refuses_what_a_hole_in_the_guard_would_let_through(
    duckdb_file: Path, sqlite_file: Path, tmp_path: Path
):
    """The second line of defence, without the first."""
    canary = tmp_path / "canary.csv"
    canary.write_text("a\n1\n", encoding="utf-8")
    out = tmp_path / "out.csv"
    before = duckdb_file.read_bytes(), sqlite_file.read_bytes()
    attacks = [
        f"SELECT * FROM read_text('{canary}')",
        f"SELECT * FROM '{canary}'",
        f"COPY customers TO '{out}'",
        f"ATTACH '{out}' AS o",
        "SET lock_configuration = false",
        "SET VARIABLE x = 1",
        "CREATE TEMP TABLE t AS SELECT 1",
        "CHECKPOINT",
        "SELECT 1; SELECT 2",
        "DELETE FROM customers",
    ]
    for sql in attacks:
        with pytest.raises((UnsafeSQL, QueryFailed)):
            run_guarded(find_source(duckdb_file), sql, 10, 10.0)
    for sql in [
        "DELETE FROM customers",
        f"ATTACH '{out}' AS o",
        "PRAGMA user_version = 3",
        "SELECT * FROM sqlite_master",
        "SELECT load_extension('x')",
        f"VACUUM INTO '{out}'",
        "CREATE TEMP TABLE t AS SELECT 1",
        "UPDATE sqlite_master SET sql = ''",
    ]:
        with pytest.raises((UnsafeSQL, QueryFailed)):
            run_guarded(find_source(sqlite_file), sql, 10, 10.0)
    assert (duckdb_file.read_bytes(), sqlite_file.read_bytes()) == before
    assert not out.exists()


def test_values_keep_their_types_and_become_json(duckdb_file: Path):
    rows = wb.sql.execute(
        duckdb_file,
        "SELECT DATE '2026-01-02' AS d, TIMESTAMP '2026-01-02 03:04:05' AS t, 1.50 AS m, "
        "'\\xC3\\xA9'::BLOB AS b, [1, NULL] AS l, {'k': DATE '2026-01-02'} AS s, "
        "INTERVAL 90 MINUTE AS i, "
        "UUID '00000000-0000-0000-0000-000000000001' AS u, 'nan'::DOUBLE AS n, "
        "TIME '01:02:03' AS h",
    )
    assert rows.rows[0][:8] == (
        dt.date(2026, 1, 2),
        dt.datetime(2026, 1, 2, 3, 4, 5),
        Decimal("1.50"),
        "é".encode(),
        [1, None],
        {"k": dt.date(2026, 1, 2)},
        dt.timedelta(minutes=90),
        uuid.UUID(int=1),
    )
    result = rows.to_dict()
    assert set(result) == {"columns", "rows", "row_count", "truncated", "seconds"}
    assert result["rows"] == [
        [
            "2026-01-02",
            "2026-01-02T03:04:05",
            1.5,
            "w6k=",
            [1, None],
            {"k": "2026-01-02"},
            "1:30:00",
            "00000000-0000-0000-0000-000000000001",
            "nan",
            "01:02:03",
        ]
    ]


def test_a_value_that_python_cannot_hold_is_said(tmp_path: Path):
    path = tmp_path / "far.duckdb"
    with duckdb.connect(str(path)) as connection:
        connection.execute("CREATE TABLE t AS SELECT TIMESTAMP '20000-01-01' AS a")
    try:
        value = wb.sql.execute(path, "SELECT a FROM t").rows[0][0]
    except QueryFailed as error:
        assert "cannot be handed over" in error.message
    else:
        assert "20000" in str(value)


def test_the_worker_inherits_no_keys(duckdb_file: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    process.close()
    wb.sql.execute(duckdb_file, "SELECT 1")
    worker = process._idle
    assert worker is not None
    environment = Path(f"/proc/{worker._process.pid}/environ")
    if not environment.exists():
        pytest.skip("only Linux shows a process's environment")
    assert b"OPENAI_API_KEY" not in environment.read_bytes()


def test_a_script_without_a_main_guard_can_run_sql(duckdb_file: Path, tmp_path: Path):
    """Unlike multiprocessing's spawn, the worker does not run the user's script again."""
    script = tmp_path / "script.py"
    script.write_text(
        "import workbench as wb\n"
        f"print(wb.sql.execute({str(duckdb_file)!r}, 'SELECT 41 + 1').rows)\n",
        encoding="utf-8",
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True)
    assert done.stdout == "((42,),)\n"


def test_the_worker_imports_nothing_heavy():
    code = (
        "import sys, workbench.tasks.sql.worker; "
        "print({'torch', 'pandas', 'numpy', 'pydantic', 'sqlglot'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
