"""Finds the SQL in what a language model wrote, also while it is still writing."""

from __future__ import annotations

import re

_VERBS = "SELECT|INSERT|UPDATE|DELETE|DROP|CREATE|ALTER|TRUNCATE|MERGE|COPY|ATTACH|PRAGMA|SHOW"
_WITH = (
    r"WITH\s+(?:RECURSIVE\s+)?(?:\"[^\"]+\"|\w+)\s*(?:\([^()]*\)\s*)?"
    r"AS\s*(?:NOT\s+)?(?:MATERIALIZED\s*)?\("
)
_REASONING = re.compile(
    r"<(think|thinking|thought|reasoning)>.*?(?:</\1>|\Z)", re.DOTALL | re.IGNORECASE
)
_FENCE = re.compile(r"```[ \t]*(\w*)[ \t]*\r?\n?(.*?)(```|\Z)", re.DOTALL)
_LABEL = re.compile(r"\bSQL(?:\s*query)?\s*:\s*", re.IGNORECASE)
_LINE_START = re.compile(rf"^[ \t(]*(?:(?:{_VERBS})\b|{_WITH})", re.IGNORECASE | re.MULTILINE)
# inside a sentence only capitals count: "select" is also an English word
_IN_LINE = re.compile(rf"\b(?:SELECT\s|{_WITH})")


def extract_sql(text: str) -> str:
    """The SQL in ``text`` without the last semicolon, or "" when there is none.

    Tried in this order, after reasoning tags are taken out: the first fenced block, what follows
    ``SQL:``, the first line that begins like a statement, the first SELECT or WITH in capitals.
    Text without a fence ends at its semicolon or at an empty line. A fenced block is taken
    whole, so several statements in it reach the guard, which refuses them.
    """
    text = _REASONING.sub("", text)
    for fence in _FENCE.finditer(text):
        language, body = fence[1].lower(), fence[2]
        if not language or "sql" in language or language in ("duckdb", "sqlite"):
            return _trim(body)
        if _begins_like_sql(fence[1] + " " + body):  # ```SELECT 1```
            return _trim(fence[1] + " " + body)
    label = _LABEL.search(text)
    if label and _begins_like_sql(text[label.end() :]):
        return _trim(_until_end(text[label.end() :]))
    start = _LINE_START.search(text) or _IN_LINE.search(text)
    return _trim(_until_end(text[start.start() :])) if start else ""


def is_complete(text: str) -> bool:
    """Whether a fenced block has been closed: what comes after it is talk."""
    text = _REASONING.sub("", text)
    return any(fence[3] and fence[2].strip() for fence in _FENCE.finditer(text))


def _begins_like_sql(text: str) -> bool:
    return _LINE_START.match(text.lstrip()) is not None


def _until_end(text: str) -> str:
    """Up to the first semicolon outside quotes, or else to the first empty line."""
    quote = ""
    for position, character in enumerate(text):
        if quote:
            quote = "" if character == quote else quote
        elif character in "'\"`":
            quote = character
        elif character == ";":
            return text[:position]
    return re.split(r"\n[ \t]*\r?\n", text, maxsplit=1)[0]


def _trim(sql: str) -> str:
    return sql.strip().rstrip(";").strip()
