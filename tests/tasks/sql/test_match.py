"""Execution accuracy."""

from __future__ import annotations

import datetime as dt
import math
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.tasks.sql.match import is_ordered, same_answer


@pytest.mark.parametrize(
    ("expected", "actual"),
    [
        ([], []),
        ([(1, "a"), (2, "b")], [(2, "b"), (1, "a")]),
        ([(1, "a"), (2, "b")], [("a", 1), ("b", 2)]),
        ([(None, 1)], [(1, None)]),
        ([(1,), (1,), (2,)], [(2,), (1,), (1,)]),
        ([(100.0,)], [(100.005,)]),
        ([(3,)], [("3.00",)]),
        ([("3",)], [(3,)]),
        ([(Decimal("2.50"),)], [(2.5,)]),
        ([(True,)], [(1,)]),
        ([("2026-01-02",)], [(dt.date(2026, 1, 2),)]),
        ([(dt.date(2026, 1, 2),)], [(dt.datetime(2026, 1, 2),)]),
        ([("2026-01-02 03:04:05",)], [(dt.datetime(2026, 1, 2, 3, 4, 5),)]),
        ([(math.nan,)], [(math.nan,)]),
        ([(1.00001, "b"), (1.00002, "a")], [(1.00001, "a"), (1.00002, "b")]),
        ([(10**400,)], [(10**400,)]),
    ],
)
def test_the_same_answer(expected: Any, actual: Any):
    assert same_answer(expected, actual, ordered=False)


@pytest.mark.parametrize(
    ("expected", "actual"),
    [
        ([(1,)], []),
        ([], [(1,)]),
        ([(1,)], [(1, 2)]),
        ([(1,), (1,), (2,)], [(1,), (2,), (2,)]),
        ([(1, "a"), (2, "b")], [(1, "b"), (2, "a")]),
        ([(100.0,)], [(100.1,)]),
        ([(None,)], [(0,)]),
        ([(None,)], [("",)]),
        ([("a",)], [("A",)]),
        ([("x",)], [(1,)]),
        ([(1, 2), (3, 4)], [(1, 4), (3, 2)]),
    ],
)
def test_another_answer(expected: Any, actual: Any):
    assert not same_answer(expected, actual, ordered=False)


def test_order_counts_only_where_it_is_asked_for():
    assert not same_answer([(1,), (2,)], [(2,), (1,)], ordered=True)
    assert same_answer([(1, "a"), (2, "b")], [("a", 1), ("b", 2)], ordered=True)


@pytest.mark.parametrize(
    ("sql", "ordered"),
    [
        ("SELECT a FROM t ORDER BY a", True),
        ("SELECT a FROM t UNION SELECT b FROM u ORDER BY 1 LIMIT 3", True),
        ("SELECT a FROM (SELECT a FROM t ORDER BY a)", False),
        ("SELECT row_number() OVER (ORDER BY a) FROM t", False),
    ],
)
def test_only_the_outermost_order_counts(sql: str, ordered: bool):
    assert is_ordered(sql, "duckdb") is ordered


cells = st.one_of(
    st.none(), st.integers(-5, 5), st.sampled_from(["a", "b", "1"]), st.floats(-9, 9, width=16)
)
tables = st.integers(1, 3).flatmap(
    lambda width: st.lists(st.tuples(*[cells] * width), min_size=1, max_size=5)
)


@given(table=tables, data=st.data())
def test_shuffling_rows_and_columns_changes_nothing(table: list[tuple[Any, ...]], data: Any):
    columns = data.draw(st.permutations(range(len(table[0]))))
    shuffled = [tuple(row[i] for i in columns) for row in data.draw(st.permutations(table))]
    assert same_answer(table, shuffled, ordered=False)
    assert same_answer(shuffled, table, ordered=False)


@given(table=tables)
def test_one_row_more_is_another_answer(table: list[tuple[Any, ...]]):
    assert not same_answer(table, [*table, table[0]], ordered=False)
