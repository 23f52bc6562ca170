"""Questions in words, with a stub for the model."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import workbench as wb
from workbench.engines import pool as pool_module
from workbench.engines import stub
from workbench.engines.base import ChatDelta
from workbench.errors import InvalidDatabase, ProviderError, QueryFailed, UserInputError
from workbench.tasks.record import Record, observe
from workbench.tasks.sql import Attempt
from workbench.tasks.sql.prompt import write_prompt

SQL = "SELECT name FROM customers ORDER BY id"
FENCED = f"```sql\n{SQL};\n```"


@pytest.fixture
def reply_with(
    write_model: Callable[..., str], own_pool: pool_module.ModelPool
) -> Callable[..., str]:
    """A stub model that always writes the given text; returns its id."""

    def make(reply: str, **options: Any) -> str:
        return write_model("stub-sql", options={"reply": reply, **options})

    return make


def test_a_question_is_answered(reply_with: Callable[..., str], database: Path):
    answer = wb.ask(database, "Who are the customers?", model=reply_with(FENCED))
    assert (answer.sql, answer.error) == (SQL, None)
    assert answer.rows == (("An",), ("Bình",), ("Ann",))
    assert answer.columns == ("name",)
    assert list(answer.frame["name"]) == ["An", "Bình", "Ann"]
    assert answer.attempts == (Attempt(SQL, None),)
    assert answer.agreement is None
    assert {"schema", "load", "generate", "guard", "execute"} <= set(answer.record.phase_seconds)
    assert answer.record.quality == {"valid_sql": 1.0}


def test_the_json_form(reply_with: Callable[..., str], database: Path):
    result = wb.ask(database, "Who?", model=reply_with(FENCED), limit=2).to_dict()
    needed = {
        *("sql", "columns", "rows", "row_count", "truncated", "agreement", "seconds", "error"),
        *("question", "model", "attempts"),
    }
    assert set(result) == needed
    assert (result["row_count"], result["truncated"]) == (2, True)
    json.dumps(result, allow_nan=False)


def test_the_stream_shows_the_phases_and_the_sql_growing(
    reply_with: Callable[..., str], duckdb_file: Path
):
    stream = wb.ask(duckdb_file, "Who?", model=reply_with(FENCED), stream=True)
    events = [(event.phase, event.text) for event in stream]
    phases = [phase for phase, _ in events]
    assert (phases[0], phases[-2:]) == ("schema", ["guard", "execute"])
    grown = [text for phase, text in events if phase == "generate"]
    assert len(grown) > 2 and grown[-1] == SQL
    assert all(later.startswith(earlier) for earlier, later in itertools.pairwise(grown))
    assert stream.result.rows[0] == ("An",)


def test_talk_after_the_query_is_not_waited_for(reply_with: Callable[..., str], duckdb_file: Path):
    model = reply_with(f"{FENCED}\n" + "because " * 1000)
    answer = wb.ask(duckdb_file, "Who?", model=model)
    assert answer.sql == SQL
    assert answer.record.metrics["completion_tokens"] < 20


def test_unsafe_sql_is_an_answer_with_an_error(reply_with: Callable[..., str], database: Path):
    before = database.read_bytes()
    answer = wb.ask(database, "Remove them", model=reply_with("```sql\nDELETE FROM customers\n```"))
    assert answer.sql == "DELETE FROM customers"
    assert answer.error is not None and "DELETE" in answer.error
    assert (answer.rows, answer.row_count) == ((), 0)
    assert answer.record.quality["valid_sql"] == 0.0
    assert database.read_bytes() == before
    assert "DELETE" in answer._repr_html_()


def test_talk_without_sql_is_an_answer_with_an_error(
    reply_with: Callable[..., str], duckdb_file: Path
):
    answer = wb.ask(duckdb_file, "Hello?", model=reply_with("Good morning."))
    assert answer.error is not None and "wrote no SQL" in answer.error
    assert (answer.sql, len(answer.attempts)) == ("", 1)


def test_a_slow_query_is_an_answer_with_an_error(reply_with: Callable[..., str], duckdb_file: Path):
    slow = "SELECT count(*) FROM range(1000000) a, range(1000000) b WHERE a.range < -b.range"
    model = reply_with(f"```sql\n{slow}\n```")
    answer = wb.ask(duckdb_file, "How many?", model=model, timeout_seconds=0.3)
    assert answer.error is not None and "0.3 seconds" in answer.error
    assert len(answer.attempts) == 1


def test_a_failed_query_is_an_answer_with_the_engine_s_error(
    reply_with: Callable[..., str], database: Path
):
    answer = wb.ask(database, "Who?", model=reply_with("SELECT nme FROM customers"))
    assert answer.error is not None and "nme" in answer.error
    assert answer.attempts == (Attempt("SELECT nme FROM customers", answer.error),)


def test_an_answer_that_was_cut_says_so(reply_with: Callable[..., str], duckdb_file: Path):
    model = reply_with("```sql\nSELECT " + "1 + " * 1000)
    answer = wb.ask(duckdb_file, "Who?", model=model)
    assert answer.error is not None and "cut off after 512 tokens" in answer.error


@pytest.mark.parametrize(
    ("reference", "match"),
    [
        ("SELECT name AS who FROM customers ORDER BY 1 DESC", 0.0),
        ("SELECT name AS who FROM customers", 1.0),
        ("SELECT city FROM customers", 0.0),
    ],
)
def test_a_reference_is_compared_by_what_it_returns(
    reference: str, match: float, reply_with: Callable[..., str], database: Path
):
    answer = wb.ask(database, "Who?", model=reply_with(FENCED), reference=reference)
    assert answer.record.quality["execution_match"] == match


def test_a_failed_answer_does_not_match(reply_with: Callable[..., str], duckdb_file: Path):
    answer = wb.ask(duckdb_file, "Who?", model=reply_with("no"), reference="SELECT 1")
    assert answer.record.quality["execution_match"] == 0.0


def test_a_reference_longer_than_the_limit_gives_no_score(
    reply_with: Callable[..., str], duckdb_file: Path
):
    reference = "SELECT name FROM customers"
    answer = wb.ask(duckdb_file, "Who?", model=reply_with(FENCED), limit=2, reference=reference)
    assert "execution_match" not in answer.record.quality


def test_a_wrong_reference_is_the_user_s_mistake(reply_with: Callable[..., str], duckdb_file: Path):
    with pytest.raises(QueryFailed, match="custmers"):
        wb.ask(duckdb_file, "?", model=reply_with(FENCED), reference="SELECT * FROM custmers")


def test_stopping_keeps_the_sql_so_far_and_runs_nothing(
    reply_with: Callable[..., str], duckdb_file: Path
):
    stream = wb.ask(duckdb_file, "Who?", model=reply_with(FENCED), stream=True)
    for event in stream:
        if event.text.startswith("SELECT name"):
            stream.stop()
    answer = stream.result
    assert answer.sql.startswith("SELECT name")
    assert answer.error is not None and "stopped" in answer.error
    assert answer.rows == ()


def test_the_model_is_free_while_the_query_runs(
    reply_with: Callable[..., str], own_pool: pool_module.ModelPool, duckdb_file: Path
):
    stream = wb.ask(duckdb_file, "Who?", model=reply_with(FENCED), stream=True)
    users = {event.phase: [row.users for row in own_pool.loaded()] for event in stream}
    assert users["generate"] == [1]
    assert users["execute"] == [0]


def test_the_run_is_recorded(reply_with: Callable[..., str], duckdb_file: Path):
    records: list[Record] = []
    with observe(records.append):
        answer = wb.ask(duckdb_file, "Who?", model=reply_with(FENCED), hint="people")
    assert records == [answer.record]
    assert answer.record.task == "sql"
    assert answer.record.request == {
        "database": str(duckdb_file),
        "question": "Who?",
        "hint": "people",
        "limit": 1000,
        "timeout_seconds": 30.0,
        "reference": None,
    }


@pytest.mark.parametrize(
    "arguments", [{"question": " "}, {"limit": 0}, {"timeout_seconds": 0.0}], ids=str
)
def test_a_request_that_makes_no_sense_is_refused(
    arguments: dict[str, Any], reply_with: Callable[..., str], duckdb_file: Path
):
    with pytest.raises(UserInputError):
        wb.ask(duckdb_file, **{"question": "Who?", "model": reply_with(""), **arguments})


def test_other_failures_are_raised(reply_with: Callable[..., str], tmp_path: Path):
    model = reply_with(FENCED, fail="no credit")
    with pytest.raises(InvalidDatabase):
        wb.ask(tmp_path / "none.duckdb", "Who?", model=model)
    (tmp_path / "t.csv").write_text("a\n1\n", encoding="utf-8")
    with pytest.raises(ProviderError, match="no credit"):
        wb.ask(tmp_path / "t.csv", "Who?", model=model)


def test_a_schema_too_long_for_the_model_is_said_with_numbers(
    reply_with: Callable[..., str], duckdb_file: Path, monkeypatch: pytest.MonkeyPatch
):
    def refuse(*args: Any) -> Iterator[ChatDelta]:
        raise UserInputError(
            "The prompt has 9000 tokens and the context holds 4096.", "Shorten it."
        )

    monkeypatch.setattr(stub.StubModel, "stream", refuse)
    with pytest.raises(UserInputError, match=r"9000 .* 4096\. The schema has 4 tables with 10"):
        wb.ask(duckdb_file, "Who?", model=reply_with(""))


def test_the_prompt_holds_schema_hint_dialect_and_question(duckdb_file: Path):
    schema = wb.sql.schema(duckdb_file)
    (message,) = write_prompt(schema, "Who\nbuys?", "people are\ncustomers")
    assert message.role == "user"
    assert message.content.startswith(schema.to_sql())
    for part in ("-- Hint: people are customers\n", "DuckDB", "-- Who buys?"):
        assert part in message.content


@pytest.mark.models
@pytest.mark.parametrize(
    ("question", "rows"),
    [("How many customers are there?", ((3,),)), ("Có bao nhiêu khách hàng?", ((3,),))],
)
def test_the_starter_answers(question: str, rows: Any, database: Path):
    answer = wb.ask(database, question)
    assert answer.error is None, answer.error
    assert answer.rows == rows
