"""A model hub that speaks the part of the Hugging Face protocol that its client uses."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler

from tests.servers.http_server import serve

COMMIT = "a" * 40


@contextmanager
def model_hub(repo: str, files: dict[str, bytes]) -> Iterator[tuple[str, list[str]]]:
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
            start = 0
            if found := self.headers.get("Range"):
                start = int(found.removeprefix("bytes=").split("-")[0])
                headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
            return self._send(data[start:], headers, with_body, 206 if start else 200)

        def _send(
            self, body: bytes, headers: dict[str, str], with_body: bool, status: int = 200
        ) -> None:
            self.send_response(status)
            for key, value in headers.items():
                self.send_header(key, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if with_body:
                self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            """Say nothing."""

    with serve(Handler) as endpoint:
        yield endpoint, asked


def _oid(data: bytes) -> str:
    return hashlib.sha1(data).hexdigest()
