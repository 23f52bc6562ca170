"""What the language model is asked."""

from __future__ import annotations

from workbench.engines.base import Message
from workbench.tasks.sql.schema import Schema

_ENGINE = {"duckdb": "DuckDB", "sqlite": "SQLite"}


def write_prompt(schema: Schema, question: str, hint: str | None) -> list[Message]:
    """Ask for the SQL of ``question``: the schema first, so that the prompts of one database
    begin alike."""
    parts = [schema.to_sql(), ""]
    if hint:
        parts.append(f"-- Hint: {' '.join(hint.split())}")
    parts.append(
        f"-- Using valid {_ENGINE[schema.dialect]}, answer the following question for the tables "
        "provided above."
    )
    parts.append(f"-- {' '.join(question.split())}")
    return [Message("user", "\n".join(parts))]
