"""The rows of a query: typed for Python, plain for JSON, a table for a notebook."""

from __future__ import annotations

import base64
import datetime as dt
import html
import math
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

_SHOWN_ROWS = 50


class Table:
    """What has ``columns`` and ``rows``: how many there are, and the same for pandas."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]

    @property
    def row_count(self) -> int:
        """How many rows are here."""
        return len(self.rows)

    @property
    def frame(self) -> pd.DataFrame:
        """The rows as a pandas table; whole numbers stay whole where some are missing."""
        return make_frame(self.columns, self.rows)


@dataclass(frozen=True)
class Rows(Table):
    """What a query returned.

    ``rows`` hold Python values (dates, decimals, bytes, lists ...); ``row_count`` counts them,
    and ``truncated`` says that the database had more. ``seconds`` is the database's own time.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    truncated: bool
    seconds: float
    sql: str

    def to_dict(self) -> dict[str, Any]:
        """columns, rows, row_count, truncated, seconds as JSON types."""
        return {
            "columns": list(self.columns),
            "rows": json_rows(self.rows),
            "row_count": self.row_count,
            "truncated": self.truncated,
            "seconds": self.seconds,
        }

    def _repr_html_(self) -> str:
        return table_html(self.columns, self.rows, self.truncated)


#: Python type of all the values of a column -> pandas type that also holds missing values.
_FRAME_TYPES = {
    frozenset({bool}): "boolean",
    frozenset({int}): "Int64",
    frozenset({float}): "Float64",
    frozenset({int, float}): "Float64",
    frozenset({str}): "string",
    frozenset({dt.datetime}): "datetime64[us]",
}


def make_frame(columns: tuple[str, ...], rows: tuple[tuple[Any, ...], ...]) -> pd.DataFrame:
    """A pandas table. Dates, decimals and mixed columns keep their Python values."""
    import pandas as pd

    series = {}
    for position in range(len(columns)):
        values = [row[position] for row in rows]
        kind = _FRAME_TYPES.get(frozenset(type(value) for value in values if value is not None))
        try:
            series[position] = pd.Series(values, dtype=kind or object)
        except (OverflowError, TypeError, ValueError):
            # whole numbers beyond 64 bits, instants with different time zones
            series[position] = pd.Series(values, dtype=object)
    frame = pd.DataFrame(series)
    frame.columns = pd.Index(columns, dtype=object)  # names may repeat
    return frame


def json_rows(rows: tuple[tuple[Any, ...], ...]) -> list[list[Any]]:
    """The rows with every value as a JSON type."""
    return [[json_value(value) for value in row] for row in rows]


def json_value(value: Any) -> Any:  # noqa: PLR0911 - one line a type
    """``value`` as a JSON type: dates in ISO 8601, decimals as numbers, bytes in base64.

    Numbers that JSON does not have (NaN, infinity) become strings.
    """
    if isinstance(value, dict):
        return {str(key): json_value(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [json_value(item) for item in value]
    if isinstance(value, Decimal) and value.is_finite():  # a signalling NaN cannot be a float
        return float(value)
    if isinstance(value, float) and math.isfinite(value):
        return value
    if isinstance(value, dt.date | dt.time):  # a datetime is a date
        return value.isoformat()
    if isinstance(value, bytes):
        return base64.b64encode(value).decode("ascii")
    if value is None or isinstance(value, bool | int | str):
        return value
    return str(value)  # UUID, interval, NaN


def table_html(columns: tuple[str, ...], rows: tuple[tuple[Any, ...], ...], truncated: bool) -> str:
    """The first rows as an HTML table, everything escaped."""
    head = "".join(f"<th>{html.escape(name)}</th>" for name in columns)
    body = "".join(
        "<tr>" + "".join(f"<td>{_cell(value)}</td>" for value in row) + "</tr>"
        for row in rows[:_SHOWN_ROWS]
    )
    count = f"{len(rows):,} row{'' if len(rows) == 1 else 's'}"
    if truncated:
        count = f"the first {count}; there are more"
    elif len(rows) > _SHOWN_ROWS:
        count += f", {_SHOWN_ROWS} shown"
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table><p>{count}</p>"


def _cell(value: Any) -> str:
    return "<i>NULL</i>" if value is None else html.escape(str(value))
