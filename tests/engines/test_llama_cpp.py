"""GGUF models through llama.cpp, on the smallest starter."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import workbench
from workbench.engines import llama_cpp
from workbench.engines.base import ChatOptions, Message
from workbench.engines.llama_cpp import LlamaCppChat
from workbench.errors import Unavailable, UnknownOption, UserInputError
from workbench.memory.request import LoadOptions

HELLO = [Message("user", "Say hello")]
LONG = [Message("user", "Write a long story about the sea.")]


def _text(model: LlamaCppChat, messages: list[Message], **options: Any) -> str:
    return "".join(d.text for d in model.stream(messages, ChatOptions(**options)))


@pytest.fixture(scope="module")
def model() -> Iterator[LlamaCppChat]:
    spec = workbench.models.get("smollm2-135m")
    path = workbench.models.locate(spec.id)
    assert path is not None, "pull the starters first"
    model = llama_cpp.load(spec, path, LoadOptions(context_tokens=1024))
    yield model
    model.close()


@pytest.mark.models
class TestSmallest:
    def test_usage_and_speed_are_the_engines(self, model):
        *pieces, last = model.stream(HELLO, ChatOptions(max_tokens=8))
        assert last.usage.completion_tokens == 8 == len(pieces)
        assert 20 < last.usage.prompt_tokens < 60
        assert last.speed.tokens_per_second > 0
        assert last.speed.prompt_tokens_per_second > 0

    def test_a_seed_is_an_answer(self, model):
        first, again, other = (
            _text(model, LONG, max_tokens=20, temperature=1.0, seed=seed) for seed in (1, 1, 2)
        )
        assert first == again != other

    def test_an_answer_does_not_depend_on_what_was_asked_before(self, model):
        first = _text(model, LONG, max_tokens=24)
        _text(model, [*LONG, Message("assistant", "No."), *LONG], max_tokens=4)
        assert _text(model, LONG, max_tokens=24) == first

    def test_a_reused_prefix_is_not_computed_again(self, model):
        # 1 token of the prompt is left, too little to give a speed in the hundreds
        list(model.stream(LONG, ChatOptions(max_tokens=2)))
        chunks: list[dict[str, Any]] = []
        server, model._server = model._server, _Recording(model._server, chunks)
        try:
            *_, last = model.stream(LONG, ChatOptions(max_tokens=2, reuse_prefix=True))
        finally:
            model._server = server
        assert chunks[-1]["timings"]["prompt_n"] < 4
        assert last.usage.prompt_tokens > 20

    def test_a_stop_string_ends_the_answer_and_is_not_shown(self, model):
        words = _text(model, LONG, max_tokens=20).split()
        stop = words[3]
        *_, last = model.stream(LONG, ChatOptions(max_tokens=20, stop=(stop,)))
        assert last.finish_reason == "stop"
        assert stop not in _text(model, LONG, max_tokens=20, stop=(stop,))

    @pytest.mark.parametrize("max_tokens", range(1, 9))
    def test_characters_are_never_split(self, model, max_tokens: int):
        wanted = "😀🇻🇳ệ"
        text = _text(model, HELLO, max_tokens=max_tokens, grammar=f'root ::= "{wanted}"')
        assert wanted.startswith(text)

    def test_a_schema_is_kept(self, model):
        schema = {
            "type": "object",
            "properties": {"age": {"type": "integer", "maximum": 9}},
            "required": ["age"],
            "additionalProperties": False,
        }
        assert set(json.loads(_text(model, HELLO, max_tokens=60, json_schema=schema))) == {"age"}

    @pytest.mark.parametrize(
        "options",
        [{"grammar": "root ::= (unclosed"}, {"json_schema": {"type": "nonsense"}}],
        ids=["grammar", "schema"],
    )
    def test_a_wrong_form_is_the_users_error(self, model, options):
        with pytest.raises(UserInputError, match="cannot take this request"):
            _text(model, HELLO, max_tokens=4, **options)
        assert _text(model, HELLO, max_tokens=2)

    def test_a_prompt_that_is_too_long_is_refused_with_the_numbers(self, model):
        with pytest.raises(UserInputError, match=r"has 15\d\d tokens .* holds 1024"):
            _text(model, [Message("user", "word " * 1500)])

    def test_an_answer_that_fills_the_context_says_so(self, model):
        near = [Message("user", "word " * 980)]
        *_, last = model.stream(near, ChatOptions(max_tokens=400))
        assert last.finish_reason in ("length", "stop")
        assert last.usage.prompt_tokens + last.usage.completion_tokens <= 1024

    def test_stop_reaches_the_computation(self, model):
        stop = threading.Event()
        chunks: list[dict[str, Any]] = []
        server, model._server = model._server, _Recording(model._server, chunks)
        try:
            stream = model.stream(LONG, ChatOptions(max_tokens=900), stop.is_set)
            next(stream)
            stop.set()
            *_, last = stream
        finally:
            model._server = server
        assert last.finish_reason == "cancelled"
        # the engine itself ended: `handle_chat_completions` returned long before 900 tokens
        assert 1 <= last.usage.completion_tokens <= len(chunks) < 100

    def test_stop_while_the_prompt_is_read(self, model):
        long_prompt = [Message("user", "word " * 900)]
        [last] = model.stream(long_prompt, ChatOptions(max_tokens=4), lambda: True)
        assert last.finish_reason == "cancelled"
        assert last.usage.prompt_tokens > 900
        assert last.usage.completion_tokens == 0

    def test_a_waiting_request_can_be_stopped(self, model):
        running = model.stream(LONG, ChatOptions(max_tokens=900))
        next(running)
        [last] = model.stream(HELLO, ChatOptions(max_tokens=4), lambda: True)
        assert last.finish_reason == "cancelled"
        assert last.usage.prompt_tokens == 0
        running.close()

    def test_requests_from_many_threads_do_not_mix(self, model):
        alone = [_text(model, [Message("user", f"Count to {n}")], max_tokens=6) for n in range(3)]
        together = [""] * 3

        def ask(number: int) -> None:
            together[number] = _text(model, [Message("user", f"Count to {number}")], max_tokens=6)

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert together == alone

    def test_nothing_is_printed(self, model, capfd):
        spec = model.spec
        own = llama_cpp.load(spec, workbench.models.locate(spec.id), LoadOptions())
        _text(own, HELLO, max_tokens=2)
        own.close()
        assert capfd.readouterr() == ("", "")

    def test_the_library_s_port_needs_a_key(self, model):
        import httpx

        url = f"{model._server.listening_address}/v1/chat/completions"
        answer = httpx.post(url, json={"messages": [{"role": "user", "content": "x"}]})
        assert answer.status_code == 401

    def test_a_context_beyond_the_training_is_refused(self, model):
        path = workbench.models.locate(model.spec.id)
        with pytest.raises(UserInputError, match="was trained for"):
            llama_cpp.load(model.spec, path, LoadOptions(context_tokens=10**6))


class _Recording:
    """The server, with every chunk that it sends also kept."""

    def __init__(self, server: Any, chunks: list[dict[str, Any]]) -> None:
        self._server = server
        self._chunks = chunks

    def handle_chat_completions(self, request: dict[str, Any], callback: Any) -> None:
        def both(chunk: dict[str, Any]) -> Any:
            self._chunks.append(chunk)
            return callback(chunk)

        self._server.handle_chat_completions(request, both)


def test_a_damaged_file_is_said_to_be_damaged(write_model, tmp_path: Path):
    path = tmp_path / "bad.gguf"
    path.write_bytes(b"GGUF" + bytes(100))
    spec = workbench.models.get(write_model(engine="llama_cpp"))
    with pytest.raises(Unavailable, match=r"cannot load bad\.gguf"):
        llama_cpp.load(spec, path, LoadOptions())


def test_a_compute_type_is_not_ignored(write_model, tmp_path: Path):
    spec = workbench.models.get(write_model(engine="llama_cpp"))
    with pytest.raises(UnknownOption, match="quantization of a llama_cpp file is fixed"):
        llama_cpp.load(spec, tmp_path / "x.gguf", LoadOptions(compute_type="int8"))


@pytest.mark.parametrize(("own", "spins"), [({}, "100"), ({"GOMP_SPINCOUNT": "7"}, "7")])
def test_threads_do_not_spin_for_long_unless_the_user_says_so(own, spins):
    code = (
        "import os; from workbench.engines import llama_cpp; llama_cpp._import_llama_cpp();"
        "print(os.environ.get('GOMP_SPINCOUNT'))"
    )
    environment = {k: v for k, v in os.environ.items() if k != "OMP_WAIT_POLICY"}
    environment |= {"OMP_DISPLAY_ENV": "VERBOSE", **own}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    if "GOMP_SPINCOUNT" not in done.stderr:
        pytest.skip("this build of llama.cpp has no libgomp")
    assert f"GOMP_SPINCOUNT = '{spins}'" in done.stderr
    # not left behind for torch and for child processes
    assert done.stdout.strip() == str(own.get("GOMP_SPINCOUNT"))


@pytest.mark.models
def test_a_model_closed_right_after_loading_does_not_hang():
    """A hang inside llama.cpp cannot be interrupted, so it happens in another process."""
    code = (
        "import workbench as wb\n"
        "spec = wb.models.get('smollm2-135m')\n"
        "for _ in range(5):\n"
        "    with wb.pool.acquire(spec): pass\n"
        "    assert wb.pool.unload() == [spec.id]\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
