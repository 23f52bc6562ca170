"""Headers of weights in a hub repository, read by range requests: no weights are fetched.

Two requests for a ``.safetensors`` file (its length, its JSON); for a ``.gguf`` file as many
first bytes as its header has. A server that ignores ranges, says wrong lengths or breaks off is
named, and what it sends beyond the bytes asked for is never read.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from workbench.errors import SourceUnreachable
from workbench.memory.headers.base import WeightsHeader, broken
from workbench.memory.headers.gguf import parse_gguf
from workbench.memory.headers.safetensors import HEADER_LIMIT_BYTES, parse_safetensors
from workbench.models.spec import HubSource
from workbench.settings import get_settings

if TYPE_CHECKING:
    import httpx

_TIMEOUT_SECONDS = 10.0
_JSON_LIMIT_BYTES = 32 * 2**20
_GGUF_FIRST_BYTES = 2**20
_GGUF_LIMIT_BYTES = 64 * 2**20
_DEFAULT_ENDPOINT = "https://huggingface.co"


class RemoteFiles:
    """The files of one hub repository at one revision. Closed by ``with opened(source)``."""

    def __init__(self, source: HubSource, client: httpx.Client) -> None:
        self._source = source
        self._client = client
        # the variable that the hub's own client reads
        self._endpoint = os.environ.get("HF_ENDPOINT", _DEFAULT_ENDPOINT).rstrip("/")

    def names(self) -> list[str]:
        """Paths of all files. Raises SourceUnreachable."""
        path = f"/api/models/{self._source.repo}/revision/{self._source.revision}"
        with self._answer(path, {}) as answer:
            about = _json_object(self._source.repo, self._body(answer, _JSON_LIMIT_BYTES, path))
        files = about.get("siblings")
        named = files if isinstance(files, list) else []
        return [str(file["rfilename"]) for file in named if isinstance(file, dict)]

    def json(self, name: str) -> dict[str, Any]:
        """The JSON object in the small file ``name``. Raises SourceUnreachable, UserInputError."""
        with self._answer(self._path(name), {}) as answer:
            return _json_object(self._title(name), self._body(answer, _JSON_LIMIT_BYTES, name))

    def safetensors(self, name: str) -> WeightsHeader:
        """The header of one ``.safetensors`` file. Raises SourceUnreachable, UserInputError."""
        raw, total = self._range(name, 0, 8)
        if len(raw) < 8:
            raise broken(self._title(name), "it is shorter than its header")
        (length,) = struct.unpack("<Q", raw)
        if length > min(total - 8, HEADER_LIMIT_BYTES):
            raise broken(self._title(name), f"its header claims {length} bytes of {total}")
        header, _ = self._range(name, 8, length)
        return parse_safetensors(self._title(name), header, total)

    def gguf(self, name: str) -> WeightsHeader:
        """The header of one ``.gguf`` file. Raises SourceUnreachable, UserInputError."""
        data, size_bytes = b"", _GGUF_FIRST_BYTES
        while size_bytes <= _GGUF_LIMIT_BYTES:
            more, total = self._range(name, len(data), size_bytes - len(data))
            data += more
            found = parse_gguf(self._title(name), data, total)
            if found is not None:
                return found
            if len(data) >= total:
                raise broken(self._title(name), "it ends inside its header")
            size_bytes *= 4
        raise broken(self._title(name), f"its header is longer than {_GGUF_LIMIT_BYTES} bytes")

    def _range(self, name: str, start: int, size_bytes: int) -> tuple[bytes, int]:
        """Up to ``size_bytes`` from ``start``, fewer at the end of the file; the file's length."""
        last = start + size_bytes - 1
        with self._answer(self._path(name), {"Range": f"bytes={start}-{last}"}) as answer:
            total = self._total(name, answer, start, last)
            wanted = min(size_bytes, max(0, total - start))
            data = self._body(answer, wanted, name, exactly=wanted)
        return data, total

    def _total(self, name: str, answer: httpx.Response, start: int, last: int) -> int:
        """The file's length as the answer to a range says it."""
        if answer.status_code != 206:
            # a whole file that is no longer than what was asked for is an answer too
            length = answer.headers.get("Content-Length", "")
            if start == 0 and length.isdecimal() and int(length) <= last + 1:
                return int(length)
            raise self._unusable(name, "it does not answer to byte ranges")
        unit, _, rest = answer.headers.get("Content-Range", "").partition(" ")
        span, _, total = rest.partition("/")
        first, _, end = span.partition("-")
        if not (unit == "bytes" and first.isdecimal() and end.isdecimal() and total.isdecimal()):
            raise self._unusable(name, "its Content-Range cannot be read")
        if int(first) != start or int(end) != min(last, int(total) - 1):
            raise self._unusable(name, f"it sends bytes {span} instead of {start}-{last}")
        return int(total)

    def _body(
        self, answer: httpx.Response, most: int, name: str, exactly: int | None = None
    ) -> bytes:
        """What the server sends, at most ``most`` bytes of it."""
        import httpx

        data = bytearray()
        try:
            for chunk in answer.iter_bytes():
                data += chunk
                if len(data) > most:
                    raise self._unusable(name, f"it sends more than {most} bytes")
        except httpx.HTTPError as error:
            raise self._unusable(name, f"it broke off ({type(error).__name__})") from None
        if exactly is not None and len(data) != exactly:
            raise self._unusable(name, f"it sent {len(data)} of {exactly} bytes")
        return bytes(data)

    @contextmanager
    def _answer(self, path: str, headers: dict[str, str]) -> Iterator[httpx.Response]:
        import httpx

        try:
            with self._client.stream("GET", self._endpoint + path, headers=headers) as answer:
                if answer.status_code in (401, 403):
                    raise SourceUnreachable(
                        f"The hub does not show {self._source.repo} to everybody.",
                        "Accept its licence on the hub and set HF_TOKEN.",
                    )
                if answer.status_code not in (200, 206):
                    raise self._unusable(path, f"it answers {answer.status_code}")
                yield answer
        except httpx.HTTPError as error:
            raise SourceUnreachable(
                f"The model hub cannot be reached ({type(error).__name__}).",
                "Check the network and HF_ENDPOINT.",
            ) from None

    def _path(self, name: str) -> str:
        return f"/{self._source.repo}/resolve/{self._source.revision}/{name}"

    def _title(self, name: str) -> str:
        return f"{self._source.repo}/{name}"

    def _unusable(self, name: str, why: str) -> SourceUnreachable:
        return SourceUnreachable(
            f"The hub cannot be asked about {self._source.repo}: {why} ({name}).",
            "Pull the model, then its own files are read.",
        )


@contextmanager
def opened(source: HubSource) -> Iterator[RemoteFiles]:
    """The files of ``source``. Raises SourceUnreachable where asking the hub is not allowed."""
    if get_settings().offline or os.environ.get("HF_HUB_OFFLINE", "0") not in ("", "0"):
        raise SourceUnreachable(
            "The model hub is not asked: offline is set.", "Unset WORKBENCH_OFFLINE."
        )
    import httpx
    from huggingface_hub.utils import build_hf_headers

    # ranges count stored bytes: a compressed answer would not be one
    headers = {**build_hf_headers(), "Accept-Encoding": "identity"}
    with httpx.Client(headers=headers, timeout=_TIMEOUT_SECONDS, follow_redirects=True) as client:
        yield RemoteFiles(source, client)


def _json_object(title: str, data: bytes) -> dict[str, Any]:
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise broken(title, "it is not a JSON object")
    return found
