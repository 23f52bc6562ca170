"""Lets another process of the same user see and free what a process has loaded.

Every process has its own pool, so ``workbench models loaded`` would have nothing to show. The
pool of a process therefore answers on a Unix socket in a folder that only its user may open; the
command line asks all sockets there. One JSON object a line each way. Where there are no Unix
sockets a process can only be asked from inside.
"""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import json
import os
import socket
import stat
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.errors import Unavailable
from workbench.settings import get_settings

if TYPE_CHECKING:
    from workbench.engines.pool import ModelPool

_TIMEOUT_SECONDS = 10.0
_PRIVATE = 0o700


def ask(do: str, model: str | None = None) -> list[dict[str, Any]]:
    """What every running process answers to ``do``: loaded, unload, pin or unpin."""
    answers = []
    for path in sorted(_folder().glob("*.sock")):
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(_TIMEOUT_SECONDS)
            try:
                connection.connect(str(path))
                connection.sendall(json.dumps({"do": do, "model": model}).encode() + b"\n")
                with connection.makefile("rb") as lines:
                    line = lines.readline()
            except ConnectionRefusedError:  # its process was killed
                path.unlink(missing_ok=True)
                continue
            except OSError:  # it ends just now, or it hangs
                continue
        if line:
            answers.append(json.loads(line))
    return answers


def serve(pool: ModelPool) -> None:
    """Answer for ``pool`` from now on, in a thread that sleeps until somebody asks."""
    if not hasattr(socket, "AF_UNIX"):
        return
    path = _folder() / f"{os.getpid()}.sock"
    path.unlink(missing_ok=True)  # of an earlier process with this number
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()
    atexit.register(path.unlink, missing_ok=True)
    threading.Thread(target=_listen, args=(pool, listener), name="control", daemon=True).start()


# -- inside ----------------------------------------------------------------------------------


def _folder() -> Path:
    """Short, since a socket's path may have 107 bytes; one for every WORKBENCH_HOME."""
    home = hashlib.sha256(str(get_settings().home).encode()).hexdigest()[:12]
    path = Path(tempfile.gettempdir(), f"workbench-{os.getuid()}-{home}")
    path.mkdir(mode=_PRIVATE, exist_ok=True)
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise Unavailable(
            f"{path} belongs to somebody else or is open to others.", "Remove that folder."
        )
    return path


def _listen(pool: ModelPool, listener: socket.socket) -> None:
    for connection in _connections(listener):
        connection.settimeout(_TIMEOUT_SECONDS)
        # who asks nonsense or leaves early gets no answer; the next one is served
        with connection, contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            with connection.makefile("rb") as lines:
                request = json.loads(lines.readline())
            reply = _answer(pool, request["do"], request["model"])
            connection.sendall(json.dumps(reply).encode() + b"\n")


def _connections(listener: socket.socket) -> Iterator[socket.socket]:
    while True:
        try:
            yield listener.accept()[0]
        except OSError:
            return


def _answer(pool: ModelPool, do: str, model: str | None) -> dict[str, Any]:
    reply: dict[str, Any] = {"process": os.getpid(), "program": Path(sys.argv[0]).name}
    if do == "loaded":
        reply |= {"loaded": [asdict(row) for row in pool.loaded()], "log": pool.log()}
    elif do == "unload":
        reply["freed"] = pool.unload(model)
    elif do in ("pin", "unpin") and model is not None:
        here = any(row.id == model for row in pool.loaded())
        if here:
            getattr(pool, do)(model)
        reply["done"] = here
    return reply
