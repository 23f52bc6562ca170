"""Whether two queries gave the same answer: execution accuracy, as Spider and BIRD count it.

Same multiset of rows whatever the order of the columns; the order of the rows counts only where
the reference orders them. Numbers agree to 1e-4 relative, NULL equals NULL, dates compare as ISO
text, and ``3`` equals ``'3.00'`` in a column that is numeric on either side.
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import Any

from workbench.tasks.sql.sources import Dialect

_RELATIVE = 1e-4
_MIDNIGHT = (" 00:00:00", "T00:00:00")

Table = Sequence[Sequence[Any]]
Cell = float | str | None


def same_answer(expected: Table, actual: Table, ordered: bool) -> bool:
    """Whether ``actual`` is the answer ``expected``, by the rules above."""
    if len(expected) != len(actual):
        return False
    if not expected:
        return True
    width = len(expected[0])
    if len(actual[0]) != width:
        return False
    wanted = [[row[i] for row in expected] for i in range(width)]
    given = [[row[i] for row in actual] for i in range(width)]
    return any(_equal_rows(pairs, ordered) for pairs in _pairings(wanted, given, ()))


def is_ordered(sql: str, dialect: Dialect) -> bool:
    """Whether the outermost query of ``sql`` has an ORDER BY."""
    import sqlglot

    return sqlglot.parse_one(sql, dialect=dialect).args.get("order") is not None


ColumnPair = tuple[list[Cell], list[Cell]]


def _pairings(
    wanted: list[list[Any]], given: list[list[Any]], chosen: tuple[int, ...]
) -> Iterator[list[ColumnPair]]:
    """Every way to pair the columns so that each pair holds the same values in some order."""
    position = len(chosen)
    if position == len(wanted):
        yield []
        return
    for index, column in enumerate(given):
        if index in chosen:
            continue
        pair = _comparable(wanted[position], column)
        if _equal_rows([pair], ordered=False):
            for rest in _pairings(wanted, given, (*chosen, index)):
                yield [pair, *rest]


def _comparable(wanted: list[Any], given: list[Any]) -> ColumnPair:
    numeric = any(
        all(isinstance(v, int | float | Decimal) for v in column if v is not None)
        and any(v is not None for v in column)
        for column in (wanted, given)
    )
    return [_cell(v, numeric) for v in wanted], [_cell(v, numeric) for v in given]


def _cell(value: Any, numeric: bool) -> Cell:
    if value is None:
        return None
    if isinstance(value, int | float | Decimal) or (numeric and isinstance(value, str)):
        try:
            return float(value)
        except (ValueError, OverflowError):
            return str(value)
    if isinstance(value, dt.date | dt.time):
        value = value.isoformat(sep=" ") if isinstance(value, dt.datetime) else value.isoformat()
    text = str(value)
    for suffix in _MIDNIGHT:
        text = text.removesuffix(suffix)
    return text


def _equal_rows(columns: list[ColumnPair], ordered: bool) -> bool:
    wanted = list(zip(*(pair[0] for pair in columns), strict=True))
    given = list(zip(*(pair[1] for pair in columns), strict=True))
    if not ordered:
        wanted.sort(key=_sort_key)
        given.sort(key=_sort_key)
    return all(
        _equal(a, b)
        for row, other in zip(wanted, given, strict=True)
        for a, b in zip(row, other, strict=True)
    )


def _sort_key(row: tuple[Cell, ...]) -> tuple[Any, ...]:
    """Text first: numbers that only nearly agree must not decide which rows are compared."""
    texts = tuple((cell is not None, cell or "") for cell in row if not isinstance(cell, float))
    return texts, tuple(cell for cell in row if isinstance(cell, float))


def _equal(wanted: Cell, given: Cell) -> bool:
    if isinstance(wanted, float) and isinstance(given, float):
        both_nan = math.isnan(wanted) and math.isnan(given)
        return both_nan or math.isclose(wanted, given, rel_tol=_RELATIVE, abs_tol=1e-9)
    return wanted == given
