"""What `workbench.ask` gives back."""

from __future__ import annotations

import html
from dataclasses import dataclass
from typing import Any, Literal

from workbench.tasks.record import Record
from workbench.tasks.sql.rows import Table, json_rows, table_html

Phase = Literal["schema", "generate", "guard", "execute"]


@dataclass(frozen=True)
class AskEvent:
    """Where the work is; ``text`` is the SQL so far."""

    phase: Phase
    text: str = ""


@dataclass(frozen=True)
class Attempt:
    """One statement that the model wrote, and why it was not the answer (None: it was)."""

    sql: str
    error: str | None


@dataclass(frozen=True)
class Answer(Table):
    """The answer to a question, with the SQL that found it.

    ``error`` says why there are no rows: the model wrote no SQL, or SQL that is unsafe or fails.
    ``agreement`` is the share of candidate queries with this result, None where only one was
    made. ``seconds`` is the whole time, with loading the model; `record` has the parts.
    """

    question: str
    database: str
    model: str
    sql: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    truncated: bool
    seconds: float
    error: str | None
    attempts: tuple[Attempt, ...]
    record: Record
    agreement: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """The answer as JSON types, without the record."""
        return {
            "question": self.question,
            "model": self.model,
            "sql": self.sql,
            "columns": list(self.columns),
            "rows": json_rows(self.rows),
            "row_count": self.row_count,
            "truncated": self.truncated,
            "agreement": self.agreement,
            "seconds": self.seconds,
            "error": self.error,
            "attempts": [{"sql": a.sql, "error": a.error} for a in self.attempts],
        }

    def _repr_html_(self) -> str:
        parts = [f"<p>{html.escape(self.question)}</p><pre>{html.escape(self.sql)}</pre>"]
        if self.error is None:
            parts.append(table_html(self.columns, self.rows, self.truncated))
        else:
            parts.append(f"<p><b>{html.escape(self.error)}</b></p>")
        return "".join(parts)
