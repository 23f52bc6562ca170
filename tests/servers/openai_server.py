"""A server that speaks OpenAI's chat-completions protocol, with server-sent events and faults.

The name of the model asked for chooses the behaviour: see `FAULTS`. Any other model counts in
words up to ``max_tokens``. Requests are kept in ``OpenAIServer.requests``.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from typing import Any

from tests.servers.http_server import serve

WORDS = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
#: model name -> HTTP status that it answers with
FAULTS = {
    "refuses-key": 401,
    "forbidden": 403,
    "unknown": 404,
    "bad-request": 400,
    "limited": 429,
    "broken": 500,
    "broken-once": 500,
}


class OpenAIServer:
    """What the server saw, and the gate that a hanging answer waits for."""

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self.keys: list[str] = []
        self.hung = threading.Event()
        self.release = threading.Event()
        self.url = ""


@contextmanager
def openai_server() -> Iterator[str]:
    """Serve until the block ends; yields the base URL."""
    with recording_server() as server:
        yield server.url


@contextmanager
def recording_server() -> Iterator[OpenAIServer]:
    """Like `openai_server`, but yields what the server sees."""
    seen = OpenAIServer()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            seen.requests.append(body)
            seen.keys.append(self.headers["Authorization"].removeprefix("Bearer "))
            model = body["model"]
            if self.path != "/v1/chat/completions":
                self._fail(404, "no such path")
            elif model in FAULTS and not (model == "broken-once" and len(seen.requests) > 1):
                self._fail(FAULTS[model], f"{model}: your key is {seen.keys[-1]}")
            elif model == "hangs":
                seen.hung.set()
                seen.release.wait(30)
                self.close_connection = True
            else:
                self._answer(model, body)

        def _fail(self, status: int, message: str) -> None:
            payload = json.dumps({"error": {"message": message, "type": "fault", "code": None}})
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(payload)))
            self.send_header("retry-after-ms", "1")
            self.end_headers()
            self.wfile.write(payload.encode())

        def _answer(self, model: str, body: dict[str, Any]) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Connection", "close")
            self.end_headers()
            self.close_connection = True
            count = min(body["max_tokens"], 40)
            try:
                if model == "thinks":
                    self._send({"reasoning_content": "Let me count."})
                for number in range(count):
                    if model in ("half", "quiet-end") and number == 3:
                        return
                    if model == "hangs-midway" and number == 3:
                        seen.hung.set()
                        seen.release.wait(30)
                        return
                    if model == "error-midway" and number == 3:
                        self._write({"error": {"message": "overloaded", "type": "server_error"}})
                        return
                    self._send({"content": f"{WORDS[number % 10]} "})
                finish = {"filtered": "content_filter"}.get(
                    model, "length" if count == body["max_tokens"] else "stop"
                )
                self._send({}, finish)
                if model != "counts-nothing":
                    usage = {"prompt_tokens": 7, "completion_tokens": count}
                    usage["total_tokens"] = 7 + count
                    self._write({**_CHUNK, "choices": [], "usage": usage})
                self.wfile.write(b"data: [DONE]\n\n")
            except (BrokenPipeError, ConnectionResetError):
                pass  # the client hung up, which is one of the things tested

        def _send(self, delta: dict[str, str], finish: str | None = None) -> None:
            choice = {"index": 0, "delta": delta, "finish_reason": finish}
            self._write({**_CHUNK, "choices": [choice]})

        def _write(self, event: dict[str, Any]) -> None:
            self.wfile.write(b"data: " + json.dumps(event).encode() + b"\n\n")

        def log_message(self, *args: object) -> None:
            pass

    with serve(Handler) as url:
        seen.url = f"{url}/v1"
        try:
            yield seen
        finally:
            seen.release.set()


_CHUNK = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "counter"}
