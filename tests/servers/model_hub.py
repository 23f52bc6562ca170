"""A model hub that speaks the part of the Hugging Face protocol that its client uses."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from typing import Literal

from tests.servers.http_server import serve

COMMIT = "a" * 40


#: How a server may treat byte ranges; only ``kept`` is right.
Ranges = Literal["kept", "ignored", "shifted", "wrong length", "unreadable", "cut off", "too long"]


@contextmanager
def model_hub(
    repo: str, files: dict[str, bytes], ranges: Ranges = "kept"
) -> Iterator[tuple[str, list[str]]]:
    """Serve one repository; yields the endpoint and the list of "METHOD path" asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self._answer(with_body=False)

        def do_GET(self) -> None:
            self._answer(with_body=True)

        def _answer(self, with_body: bool) -> None:
            asked.append(f"{self.command} {self.path}")
            path = self.path.split("?")[0]
            if path == "/":
                return self._send(b"", {}, with_body)
            if path.startswith(f"/api/models/{repo}"):
                names = [{"rfilename": name} for name in files]
                if "/tree/" in path:
                    body = json.dumps(
                        [
                            {"type": "file", "path": n, "size": len(d), "oid": _oid(d)}
                            for n, d in files.items()
                        ]
                    )
                else:
                    body = json.dumps({"id": repo, "sha": COMMIT, "siblings": names})
                return self._send(body.encode(), {"Content-Type": "application/json"}, with_body)
            name = path.removeprefix(f"/{repo}/resolve/").partition("/")[2]
            if not path.startswith(f"/{repo}/resolve/") or name not in files:
                self.send_response(404)
                self.send_header(
                    "X-Error-Code", "EntryNotFound" if repo in path else "RepoNotFound"
                )
                self.send_header("Content-Length", "0")
                self.end_headers()
                return None
            data = files[name]
            headers = {"ETag": f'"{_oid(data)}"', "X-Repo-Commit": COMMIT}
            found = self.headers.get("Range")
            if found is None or ranges == "ignored":
                return self._send(data, headers, with_body)
            first, _, last = found.removeprefix("bytes=").partition("-")
            start, end = int(first), min(int(last or len(data)) + 1, len(data))
            part, total = data[start:end], len(data)
            if ranges == "shifted":
                start, end = start + 1, end + 1
            if ranges == "wrong length":
                total //= 2
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{total}"
            if ranges == "unreadable":
                headers["Content-Range"] = "bytes a-b/c"
            if ranges == "too long":
                part += b" " * 4096
            promised = len(part)
            if ranges == "cut off":
                part = part[:-1]
            return self._send(part, headers, with_body, 206, promised)

        def _send(
            self,
            body: bytes,
            headers: dict[str, str],
            with_body: bool,
            status: int = 200,
            promised_bytes: int | None = None,
        ) -> None:
            self.send_response(status)
            for key, value in headers.items():
                self.send_header(key, value)
            self.send_header("Content-Length", str(promised_bytes or len(body)))
            self.end_headers()
            if with_body:
                self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            """Say nothing."""

    with serve(Handler) as endpoint:
        yield endpoint, asked


def _oid(data: bytes) -> str:
    return hashlib.sha1(data).hexdigest()
