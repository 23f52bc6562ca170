"""Whatever passes the guard changes no file and reads no other file, on a locked connection."""

from __future__ import annotations

import contextlib
import hashlib
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import workbench as wb
from workbench.errors import UserInputError

CASES = Path(__file__).parents[2] / "sql_cases"
SECRET = "canary-7c1f"

# {canary} is the path of a file that must not be read, {out} one that must not appear
TABLES = st.sampled_from(
    [
        *("customers", "orders", '"Bảng giá"', "main.customers", "c", "nowhere", "sqlite_master"),
        *("'{canary}'", '"{canary}"', "read_text('{canary}')", "read_csv('{canary}')"),
        *("read_blob('{canary}')", "main.read_text('{canary}')", "glob('{canary}*')"),
        *("query('FROM read_text(''{canary}'')')", "query_table('{canary}')", "range(3)"),
        *("sniff_csv('{canary}')", "pragma_table_info('customers')", "json_each('[1]')"),
        *("duckdb_settings()", "information_schema.tables", "(VALUES (1)) AS v(id)"),
    ]
)
FUNCTIONS = st.sampled_from(
    [
        *("upper", "count", "max", "replace", "coalesce", "read_text", "readfile", "writefile"),
        *("load_extension", "getenv", "current_setting", "query", "nextval", "write_log"),
        *("json_execute_serialized_sql", "fts3_tokenizer", "length", "strftime", "hex"),
    ]
)
WRITES = st.sampled_from(
    [
        "INSERT INTO customers VALUES (9, 'x', 'y') RETURNING *",
        "UPDATE customers SET name = 'x' RETURNING id",
        "DELETE FROM customers RETURNING *",
        "DROP TABLE customers",
        "COPY customers TO '{out}'",
        "ATTACH '{out}' AS o",
        "CREATE TABLE t AS SELECT 1",
        "VACUUM INTO '{out}'",
        "EXPORT DATABASE '{out}'",
        "PRAGMA journal_mode = WAL",
        "CHECKPOINT",
    ]
)
EXPRESSIONS = st.recursive(
    st.sampled_from(["1", "'a'", "name", "*", "id", "NULL", "'{canary}'", '"id"', "'; --'"]),
    lambda inner: (
        st.builds("{}({})".format, FUNCTIONS, inner)
        | st.builds("({} = {})".format, inner, inner)
        | st.builds("CASE WHEN {} THEN {} END".format, inner, inner)
        | st.builds("(SELECT {} FROM {} LIMIT 1)".format, inner, TABLES)
        | st.builds("CAST({} AS VARCHAR)".format, inner)
        | st.builds("{} /* {} */".format, inner, inner)
    ),
    max_leaves=4,
)
SELECTS = st.builds("SELECT {} FROM {}".format, EXPRESSIONS, TABLES)
QUERIES = st.one_of(
    SELECTS,
    st.builds("{} WHERE {}".format, SELECTS, EXPRESSIONS),
    st.builds("{} UNION ALL {}".format, SELECTS, SELECTS),
    st.builds("WITH c AS ({}) {}".format, SELECTS | WRITES, SELECTS),
    st.builds("SELECT * FROM ({}) AS t".format, SELECTS | WRITES),
    st.builds("FROM {}".format, TABLES),
    st.builds("{} {}".format, st.sampled_from(["DESCRIBE", "SUMMARIZE", "EXPLAIN"]), SELECTS),
    st.builds("{} {}".format, st.sampled_from(["DESCRIBE", "SUMMARIZE", "SHOW"]), TABLES),
    WRITES,
)
JOINTS = st.sampled_from(["; ", ";--\n", " -- \n", "/* */;", "\n;\n", "/*/* */*/;", "--\r;"])
STATEMENTS = QUERIES | st.builds("{}{}{}".format, QUERIES, JOINTS, QUERIES)


def _spliced() -> st.SearchStrategy[str]:
    """Two statements of the fixture files cut and put together anywhere."""
    groups = [yaml.safe_load(path.read_text(encoding="utf-8")) for path in CASES.glob("*.yaml")]
    known = [s for g in groups for k in ("both", "duckdb", "sqlite") for s in g[k]]
    cut = st.floats(0, 1)

    def join(first: str, second: str, end: float, start: float) -> str:
        return first[: int(len(first) * end)] + second[int(len(second) * start) :]

    return st.builds(join, st.sampled_from(known), st.sampled_from(known), cut, cut)


def _state(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


@pytest.mark.parametrize("kind", ["duckdb", "sqlite"])
@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(sql=STATEMENTS | _spliced())
@example(sql="SELECT * FROM read_text('{canary}')")
@example(sql="SUMMARIZE '{canary}'")
def test_what_passes_only_reads_the_tables(kind: str, sql: str, request: pytest.FixtureRequest):
    database: Path = request.getfixturevalue(f"{kind}_file")
    folder = database.parent
    canary = folder / "canary.csv"
    canary.write_text(f"a,b\n{SECRET},2\n", encoding="utf-8")
    before = _state(folder)
    sql = sql.replace("{canary}", str(canary)).replace("{out}", str(folder / "out"))
    with contextlib.suppress(UserInputError):
        rows = wb.sql.execute(database, sql, limit=20, timeout_seconds=10)
        assert SECRET not in str(rows.rows)
        assert SECRET not in str(rows.columns)
    assert _state(folder) == before
