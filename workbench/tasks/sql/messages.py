"""What the parent and its worker process say to each other, pickled over a socket."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from workbench.errors import WorkbenchError
from workbench.tasks.sql.schema import Schema
from workbench.tasks.sql.sources import Source

#: An idle worker ends itself after this long; its parent stops using it earlier.
IDLE_SECONDS = 120.0


@dataclass(frozen=True)
class Request:
    """What the parent asks: the schema of a source, or the rows of a checked statement."""

    kind: Literal["schema", "query"]
    source: Source
    timeout_seconds: float
    sql: str = ""
    limit: int = 0


@dataclass(frozen=True)
class Fetched:
    """Rows as Python values, with the engine's name of each column's type."""

    columns: tuple[str, ...]
    types: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    truncated: bool
    seconds: float


@dataclass(frozen=True)
class Started:
    """The source is open and the statement begins: from here the parent counts the time."""


Reply = Schema | Fetched | WorkbenchError
