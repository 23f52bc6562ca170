"""A package index (PEP 503) of wheels made on the spot, for the real pip."""

from __future__ import annotations

import base64
import hashlib
import io
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler

from tests.servers.http_server import serve


def make_wheel(name: str, version: str, members: dict[str, bytes]) -> tuple[str, bytes]:
    """(file name, bytes) of a valid wheel with these members."""
    module = name.replace("-", "_")
    info = f"{module}-{version}.dist-info"
    files = {
        **{f"{module}/{member}": data for member, data in members.items()},
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = ""
    for path, data in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        record += f"{path},sha256={digest},{len(data)}\n"
    files[f"{info}/RECORD"] = (record + f"{info}/RECORD,,\n").encode()
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for path, data in files.items():
            archive.writestr(path, data)
    return f"{module}-{version}-py3-none-any.whl", out.getvalue()


@contextmanager
def package_index(*wheels: tuple[str, bytes]) -> Iterator[tuple[str, list[str]]]:
    """Serve the wheels; yields the index address and the list of paths that were asked for."""
    files = dict(wheels)
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            parts = self.path.strip("/").split("/")
            if parts[0] == "simple" and len(parts) == 2:
                module = parts[1].replace("-", "_")
                links = [f for f in files if f.startswith(module + "-")]
                body = "".join(f'<a href="/files/{f}">{f}</a>' for f in links).encode()
                kind = "text/html"
            elif parts[0] == "files" and parts[-1] in files:
                body, kind = files[parts[-1]], "application/octet-stream"
            else:
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            """Say nothing."""

    with serve(Handler) as address:
        yield f"{address}/simple", asked
