"""What the language model is asked."""

from __future__ import annotations

from collections.abc import Sequence

from workbench.engines.base import Message
from workbench.tasks.sql.answer import Attempt
from workbench.tasks.sql.schema import Schema

_ENGINE = {"duckdb": "DuckDB", "sqlite": "SQLite"}


def first_messages(schema: Schema, question: str, hint: str | None) -> list[Message]:
    """The conversation that asks for the SQL of ``question``: the schema first, so that the
    prompts of one database begin alike."""
    parts = [schema.to_sql(), ""]
    if hint:
        parts.append(f"-- Hint: {' '.join(hint.split())}")
    parts.append(
        f"-- Using valid {_ENGINE[schema.dialect]}, answer the following question for the tables "
        "provided above."
    )
    parts.append(f"-- {' '.join(question.split())}")
    return [Message("user", "\n".join(parts))]


def repair_messages(
    conversation: Sequence[Message], failed: Attempt, schema: Schema
) -> list[Message]:
    """The conversation that asks to correct the SQL of ``failed``."""
    engine = _ENGINE[schema.dialect]
    return [
        *conversation,
        Message("assistant", f"```sql\n{failed.sql}\n```"),
        Message("user", f"{engine} refused this: {failed.error}\nWrite the corrected query."),
    ]
