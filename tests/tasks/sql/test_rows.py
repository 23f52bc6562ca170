"""Rows as a pandas table and as HTML."""

from __future__ import annotations

import datetime as dt
import json
from decimal import Decimal
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

import workbench as wb
from workbench.tasks.sql.rows import Rows, json_value, make_frame, table_html


def test_the_frame_keeps_types_and_missing_values():
    frame = make_frame(
        ("i", "f", "s", "b", "t", "m", "i"),
        (
            (1, 1.0, "a", True, dt.datetime(2026, 1, 2), Decimal("1.5"), 2**70),
            (None, None, None, None, None, None, None),
        ),
    )
    assert list(frame.columns) == ["i", "f", "s", "b", "t", "m", "i"]
    kinds = ["Int64", "Float64", "string", "boolean", "datetime64[us]", "object", "object"]
    assert [str(kind) for kind in frame.dtypes] == kinds
    assert frame.isna().iloc[1].all()


def test_an_empty_result_keeps_its_columns(database: Path):
    frame = wb.sql.execute(database, "SELECT id, name FROM customers WHERE id < 0").frame
    assert list(frame.columns) == ["id", "name"]
    assert frame.empty


def test_html_is_escaped_and_says_what_is_left_out():
    page = table_html(("<i>",), (("<script>",), (None,)), truncated=True)
    assert "<script>" not in page and "&lt;i&gt;" in page and "NULL" in page
    assert "first 2 rows; there are more" in page
    many = Rows(("a",), tuple((i,) for i in range(80)), False, 0.1, "SELECT a")
    assert "80 rows, 50 shown" in many._repr_html_()


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.binary()
    | st.decimals()
    | st.dates()
    | st.datetimes()
    | st.times()
    | st.timedeltas()
    | st.uuids(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner),
    max_leaves=5,
)


@given(values)
def test_every_value_has_a_json_form(value: object):
    plain = json_value(value)
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain
