"""Finding SQL in what a model wrote."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from workbench.tasks.sql.extract import extract_sql, is_complete

SQL = "SELECT name FROM customers"


@pytest.mark.parametrize(
    "text",
    [
        SQL,
        f"{SQL};",
        f"```sql\n{SQL};\n```",
        f"```\n{SQL}\n```\nThis query lists the names.",
        f"```SQL\r\n{SQL}\r\n```",
        f"```duckdb\n{SQL}\n```",
        f"```{SQL}```",
        f"```sql {SQL}```",
        f"Here is the query:\n\n```sql\n{SQL}\n```\nand another\n```sql\nSELECT 2\n```",
        f"First install it:\n```bash\npip install x\n```\n```sql\n{SQL}\n```",
        f"SQL: {SQL}",
        f"**SQL query:** \n{SQL};\n\nIt selects the names.",
        f"Sure! {SQL}; is the answer.",
        f"With this query you get the names:\n{SQL}\n\nI hope this helps you select them.",
        f"<think>SELECT 1 would be wrong; DROP TABLE x</think>\n{SQL}",
        f"<thinking>\n```sql\nSELECT 1\n```\n</thinking>```sql\n{SQL}\n```",
        f"```sql\n{SQL}",
    ],
)
def test_the_statement_is_found(text: str):
    assert extract_sql(text) == SQL


@pytest.mark.parametrize(
    "text",
    [
        "",
        "I cannot answer that.",
        "Please select a table first; with a view it is easier.",
        "<think>SELECT 1",
        "```python\nprint(1)\n```",
        "``````",
    ],
)
def test_no_statement_is_made_up(text: str):
    assert extract_sql(text) == ""


def test_a_with_query_is_taken_from_its_beginning():
    sql = 'WITH RECURSIVE "a b" (x) AS (SELECT 1)\nSELECT x FROM "a b"'
    assert extract_sql(f"The query is\n{sql}; done") == sql


def test_a_semicolon_in_a_string_does_not_end_it():
    sql = "SELECT 'a;b' AS \"c;d\" FROM t"
    assert extract_sql(f"{sql}; SELECT 2") == sql


def test_several_statements_in_a_fence_reach_the_guard_as_they_are():
    assert extract_sql("```sql\nSELECT 1;\nDROP TABLE t;\n```") == "SELECT 1;\nDROP TABLE t"


def test_a_write_is_shown_so_that_the_guard_can_say_why():
    assert extract_sql("DROP TABLE customers;") == "DROP TABLE customers"


@pytest.mark.parametrize(
    ("text", "complete"),
    [
        ("```sql\nSELECT 1", False),
        ("```sql\nSELECT 1\n```", True),
        ("```sql\n", False),
        ("``````", False),
        ("SELECT 1;", False),
        ("<think>```sql\nSELECT 1\n```", False),
    ],
)
def test_a_closed_fence_is_the_end(text: str, complete: bool):
    assert is_complete(text) is complete


statements = st.text(st.characters(exclude_characters="`<", exclude_categories=["Cs"])).map(
    lambda tail: f"SELECT {tail}".strip().rstrip(";").strip()
)


@given(sql=statements, before=st.sampled_from(["", "Here:\n", "<think>SELECT 0</think>\n"]))
@example(sql="SELECT '\n\n;--'", before="")
def test_a_fenced_statement_comes_out_as_it_went_in(sql: str, before: str):
    assert extract_sql(f"{before}```sql\n{sql}\n```\nThat is it: SELECT.") == sql


@given(st.text())
def test_any_text_is_taken(text: str):
    found = extract_sql(text)
    assert found in text
    assert extract_sql(found) == found or "`" in found or "<" in found


@given(statements)
def test_the_statement_only_grows_while_it_is_written(sql: str):
    text = f"```sql\n{sql}\n```"
    for end in range(10, len(text)):
        part = extract_sql(text[:end])
        assert sql.startswith(part.rstrip("`").strip())
