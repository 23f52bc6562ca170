"""Providers through the real LangChain and OpenAI libraries, against a server with faults."""

from __future__ import annotations

import threading
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers.openai_server import OpenAIServer, recording_server
from workbench.engines import providers
from workbench.engines.base import ChatDelta, ChatOptions, Message
from workbench.errors import ProviderError, SettingsError, UnknownOption
from workbench.memory.request import LoadOptions
from workbench.models.spec import ModelSpec

KEY = "sk-the-secret"
ASK = [Message("system", "Be brief."), Message("user", "Count.")]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[OpenAIServer]:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with recording_server() as server:
        yield server


def _spec(url: str | None, model: str, **options) -> ModelSpec:
    source = {"kind": "remote", "provider": "openai", "model": model, "base_url": url}
    return ModelSpec.model_validate(
        {
            "id": "far",
            "title": "Far away",
            "task": "chat",
            "engine": "providers",
            "licence": "terms of the provider",
            "sources": [source],
            "options": options,
        }
    )


def _answer(server: OpenAIServer, model: str = "counter", **options) -> list[ChatDelta]:
    loaded = providers.load(_spec(server.url, model), Path(), LoadOptions())
    return list(loaded.stream(ASK, ChatOptions(**{"max_tokens": 5, **options})))


def test_the_request_is_sent_as_asked(server):
    schema = {"type": "object"}
    *pieces, last = _answer(
        server, temperature=0.5, top_p=0.9, seed=3, stop=("x",), json_schema=schema
    )
    assert "".join(piece.text for piece in pieces) == "one two three four five "
    assert last.finish_reason == "length"
    assert (last.usage.prompt_tokens, last.usage.completion_tokens) == (7, 5)
    [request] = server.requests
    expected = {"model": "counter", "max_tokens": 5, "temperature": 0.5, "top_p": 0.9, "seed": 3}
    assert request.items() >= expected.items()
    assert request["stop"] == ["x"]
    assert request["response_format"]["json_schema"]["schema"] == schema
    assert [(m["role"], m["content"]) for m in request["messages"]] == [
        ("system", "Be brief."),
        ("user", "Count."),
    ]
    assert server.keys == [KEY]


def test_reasoning_is_kept_apart(server):
    deltas = _answer(server, "thinks")
    assert "".join(delta.reasoning for delta in deltas) == "Let me count."
    assert "count" not in "".join(delta.text for delta in deltas)


def test_a_server_that_does_not_count(server):
    assert _answer(server, "counts-nothing")[-1] == ChatDelta(finish_reason="length")


@pytest.mark.parametrize(
    ("model", "message", "tries"),
    [
        ("refuses-key", "refused the key in OPENAI_API_KEY", 1),
        ("forbidden", "refused the key in OPENAI_API_KEY", 1),
        ("unknown", "has no model 'unknown'", 1),
        ("bad-request", "answered 400: bad-request", 1),
        ("limited", "answered 429", 3),
        ("broken", "answered 500: broken", 3),
        ("half", "broke off its answer", 1),
        ("error-midway", "broke off its answer: overloaded", 1),
        ("filtered", "ended its answer with 'content_filter'", 1),
    ],
)
def test_every_failure_is_one_line_without_the_key(server, model, message, tries):
    with pytest.raises(ProviderError, match=message) as failure:
        _answer(server, model)
    assert failure.value.exit_code == 5
    assert failure.value.remedy
    assert "\n" not in str(failure.value)
    assert KEY not in "".join(traceback.format_exception(failure.value))
    assert len(server.requests) == tries


def test_a_retry_that_works_is_not_a_failure(server):
    assert _answer(server, "broken-once")[-1].finish_reason == "length"
    assert len(server.requests) == 2


def test_no_connection(server, monkeypatch):
    spec = _spec("http://127.0.0.1:9/v1", "m", max_retries=0)
    model = providers.load(spec, Path(), LoadOptions())
    with pytest.raises(ProviderError, match=r"127\.0\.0\.1:9 cannot be reached"):
        list(model.stream(ASK, ChatOptions()))


@pytest.mark.parametrize("name", ["hangs", "hangs-midway"])
def test_a_silent_server_times_out(server, name):
    spec = _spec(server.url, name, timeout_seconds=0.2, max_retries=0)
    model = providers.load(spec, Path(), LoadOptions())
    with pytest.raises(ProviderError, match="did not answer in time"):
        list(model.stream(ASK, ChatOptions()))


def test_a_stop_does_not_wait_for_a_silent_server(server):
    model = providers.load(_spec(server.url, "hangs-midway"), Path(), LoadOptions())
    [*pieces, last] = model.stream(ASK, ChatOptions(), server.hung.is_set)
    assert last.finish_reason == "cancelled"
    assert "".join(piece.text for piece in pieces) in ("", "one ", "one two ", "one two three ")


def test_a_stop_before_the_first_byte(server):
    model = providers.load(_spec(server.url, "hangs"), Path(), LoadOptions())
    assert list(model.stream(ASK, ChatOptions(), server.hung.is_set)) == [
        ChatDelta(finish_reason="cancelled")
    ]


def test_many_requests_at_once(server):
    model = providers.load(_spec(server.url, "counter"), Path(), LoadOptions())
    texts = []

    def ask() -> None:
        texts.append("".join(d.text for d in model.stream(ASK, ChatOptions(max_tokens=2))))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert texts == ["one two "] * 8


def test_without_a_key_openai_is_not_asked(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    with pytest.raises(ProviderError, match="the environment has no OPENAI_API_KEY") as failure:
        providers.load(_spec(None, "gpt-4o-mini"), Path(), LoadOptions())
    assert "local model" in failure.value.remedy


def test_a_server_of_ones_own_needs_no_key(server, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY")
    assert _answer(server)[-1].finish_reason == "length"


def test_the_usual_variable_names_another_server(server, monkeypatch):
    monkeypatch.setenv("OPENAI_BASE_URL", server.url)
    model = providers.load(_spec(None, "counter"), Path(), LoadOptions())
    assert next(model.stream(ASK, ChatOptions(max_tokens=1))).text == "one "


def test_openai_gets_the_new_name_of_max_tokens(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    model = providers.load(_spec(None, "gpt-4o-mini"), Path(), LoadOptions())
    payload = model._client._get_request_payload([("user", "x")], max_tokens=5)
    assert payload["max_completion_tokens"] == 5
    assert "max_tokens" not in payload


def test_a_grammar_is_not_ignored(server):
    with pytest.raises(UnknownOption, match="takes no grammar"):
        _answer(server, grammar='root ::= "x"')


def test_options_of_the_catalogue_are_checked(server):
    with pytest.raises(SettingsError, match="unknown options: retries"):
        providers.load(_spec(server.url, "m", retries=3), Path(), LoadOptions())
