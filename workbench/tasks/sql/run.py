"""`workbench.ask`: a question in words -> schema -> SQL -> guard -> rows."""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Literal, overload

from workbench.engines.base import ChatOptions, StopCheck
from workbench.engines.pool import default_pool
from workbench.errors import (
    Cancelled,
    QueryFailed,
    QueryTimeout,
    UnsafeSQL,
    UserInputError,
)
from workbench.models import get
from workbench.models.spec import ModelSpec
from workbench.settings import get_settings
from workbench.tasks.prompt_size import largest_size
from workbench.tasks.record import Recorder
from workbench.tasks.sql import guard
from workbench.tasks.sql.answer import Answer, AskEvent, Attempt
from workbench.tasks.sql.execute import run_guarded, schema_of
from workbench.tasks.sql.extract import extract_sql, is_complete
from workbench.tasks.sql.match import is_ordered, same_answer
from workbench.tasks.sql.prompt import write_prompt
from workbench.tasks.sql.rows import Rows
from workbench.tasks.sql.schema import Schema
from workbench.tasks.sql.sources import Source, find_source
from workbench.tasks.stream import Stream

_MAX_SQL_TOKENS = 512

Database = str | os.PathLike[str]
AskStream = Stream[AskEvent, Answer]


@overload
def ask(
    database: Database,
    question: str,
    *,
    model: str | None = None,
    hint: str | None = None,
    stream: Literal[False] = False,
    limit: int = 1000,
    timeout_seconds: float = 30.0,
    reference: str | None = None,
) -> Answer: ...


@overload
def ask(
    database: Database,
    question: str,
    *,
    model: str | None = None,
    hint: str | None = None,
    stream: Literal[True],
    limit: int = 1000,
    timeout_seconds: float = 30.0,
    reference: str | None = None,
) -> AskStream: ...


def ask(
    database: Database,
    question: str,
    *,
    model: str | None = None,
    hint: str | None = None,
    stream: bool = False,
    limit: int = 1000,
    timeout_seconds: float = 30.0,
    reference: str | None = None,
) -> Answer | AskStream:
    """Ask a database a question in words; the SQL is written by a language model and only reads.

    ``database`` is a DuckDB, SQLite, CSV, Parquet, Excel or JSON file, or a folder of such files.
    ``hint`` is what the schema does not say. ``limit`` is the most rows, ``timeout_seconds`` the
    longest that the query may run. ``reference`` is SQL known to be right: the record then has
    the quality ``execution_match`` (1 or 0; none if it has more rows than ``limit``).

    SQL that is unsafe or fails does not raise: `Answer.error` says it. Raises InvalidDatabase,
    UnknownModel, ModelMissing, DoesNotFit, UserInputError, and for ``reference`` UnsafeSQL,
    QueryFailed, QueryTimeout.
    """
    if not question.strip():
        raise UserInputError("There is no question.", "Write one.")
    if limit < 1 or timeout_seconds <= 0:
        raise UserInputError(
            "The row limit and the time limit must be above zero.", "Give positive numbers."
        )
    request = _Request(
        source=find_source(database),
        question=question,
        spec=get(model or get_settings().models.sql, "chat"),
        hint=hint,
        limit=limit,
        timeout_seconds=timeout_seconds,
        reference=reference,
    )
    run: AskStream = Stream(lambda should_stop: _Run(request, should_stop).events())
    return run if stream else run.result


@dataclass(frozen=True)
class _Request:
    source: Source
    question: str
    spec: ModelSpec
    hint: str | None
    limit: int
    timeout_seconds: float
    reference: str | None


class _Run:
    """One question on its way to an answer."""

    def __init__(self, request: _Request, should_stop: StopCheck) -> None:
        self._request = request
        self._should_stop = should_stop
        self._recorder = Recorder(
            "sql",
            request.spec,
            {
                "database": request.source.path,
                "question": request.question,
                "hint": request.hint,
                "limit": request.limit,
                "timeout_seconds": request.timeout_seconds,
                "reference": request.reference,
            },
        )

    def events(self) -> Generator[AskEvent, None, Answer]:
        """Yield where the work is; return the answer."""
        request, recorder = self._request, self._recorder
        with recorder:
            yield AskEvent("schema")
            with recorder.phase("schema"):
                schema = schema_of(request.source)
            reference = request.reference and guard.check(
                request.reference, schema.dialect, schema.table_names
            )
            attempt, rows = yield from self._attempt(schema)
            seconds = recorder.elapsed_seconds()
        recorder.quality["valid_sql"] = float(rows is not None)
        if reference:
            self._score(rows, reference, schema)
        return Answer(
            question=request.question,
            database=request.source.path,
            model=request.spec.id,
            sql=attempt.sql,
            columns=rows.columns if rows else (),
            rows=rows.rows if rows else (),
            truncated=rows.truncated if rows else False,
            seconds=seconds,
            error=attempt.error,
            attempts=(attempt,),
            record=recorder.finish(),
        )

    def _attempt(self, schema: Schema) -> Generator[AskEvent, None, tuple[Attempt, Rows | None]]:
        """Let the model write SQL and run it; the rows are None where that failed.

        A failed query is not given back to the model: small models write it again as it was.
        """
        request, recorder = self._request, self._recorder
        text, is_cut = yield from self._generate(schema)
        sql = extract_sql(text)
        try:
            if self._should_stop():
                raise Cancelled("The question was stopped before its SQL ran.")
            if not sql:
                raise QueryFailed(
                    f"{request.spec.id} wrote no SQL.", "Ask in other words or use a larger model."
                )
            if is_cut and text.rstrip().endswith(sql):  # it may run all the same, and be wrong
                raise QueryFailed(
                    f"The SQL was cut off after {_MAX_SQL_TOKENS} tokens.", "Ask for less at once."
                )
            yield AskEvent("guard", sql)
            with recorder.phase("guard"):
                sql = guard.check(sql, schema.dialect, schema.table_names)
            yield AskEvent("execute", sql)
            with recorder.phase("execute"):
                rows = run_guarded(
                    request.source, sql, request.limit, request.timeout_seconds, self._should_stop
                )
        except (UnsafeSQL, QueryFailed, QueryTimeout, Cancelled) as error:
            return Attempt(sql, str(error)), None
        return Attempt(sql, None), rows

    def _generate(self, schema: Schema) -> Generator[AskEvent, None, tuple[str, bool]]:
        """What the model wrote until its fenced block is closed, and whether it was cut off."""
        request, recorder = self._request, self._recorder
        messages = write_prompt(schema, request.question, request.hint)
        text = shown = ""
        is_cut = False

        def enough() -> bool:
            return self._should_stop() or is_complete(text)

        with ExitStack() as stack:
            options = ChatOptions(max_tokens=_MAX_SQL_TOKENS)
            with recorder.phase("load"):
                model = stack.enter_context(
                    default_pool().acquire(
                        request.spec,
                        size=largest_size(messages, options),
                        should_stop=self._should_stop,
                    )
                )
                recorder.uses(model)
            with recorder.phase("generate"):
                try:
                    for delta in model.stream(messages, options, enough):
                        text += delta.text
                        is_cut = delta.finish_reason == "length"
                        if delta.usage is not None:
                            recorder.metrics["prompt_tokens"] = delta.usage.prompt_tokens
                            recorder.metrics["completion_tokens"] = delta.usage.completion_tokens
                        sql = extract_sql(text)
                        if sql != shown:
                            shown = sql
                            yield AskEvent("generate", sql)
                except UserInputError as error:
                    # the prompt is made here, so only its length can be wrong
                    raise _schema_too_long(error, schema) from None
        return text, is_cut

    def _score(self, rows: Rows | None, reference: str, schema: Schema) -> None:
        """Compare with the reference, outside everything that is timed."""
        request = self._request
        expected = run_guarded(request.source, reference, request.limit, request.timeout_seconds)
        if expected.truncated:
            return
        ordered = is_ordered(reference, schema.dialect)
        matches = rows is not None and same_answer(expected.rows, rows.rows, ordered)
        self._recorder.quality["execution_match"] = float(matches)


def _schema_too_long(error: UserInputError, schema: Schema) -> UserInputError:
    columns = sum(len(table.columns) for table in schema.tables)
    return UserInputError(
        f"{error.message} The schema has {len(schema.tables)} tables with {columns} columns.",
        "Ask a database with fewer tables, or use a model with a longer context.",
    )
