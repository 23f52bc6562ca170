"""Runs an engine in a process of its own, so that all of its memory returns when it is freed.

Some runtimes keep memory after a model is gone (arenas, device contexts); killing their process
gives everything back. `ChildModel` is the model as the rest of the program sees it: it has every
capability, and items, errors and stops go over a pipe. The price is a start of Python and the
engine's imports for every load, and a copy of what goes over the pipe.

The pipe carries pickles between two ends that are both this program; nobody else can write to it.
"""

from __future__ import annotations

import contextlib
import importlib
import itertools
import os
import pickle
import queue
import subprocess
import sys
import threading
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from workbench.engines import registry
from workbench.engines.base import (
    ChatDelta,
    ChatOptions,
    DrawnImages,
    ImageOptions,
    ImageStep,
    Message,
    Segment,
    SpeechInfo,
    SpeechOptions,
    StopCheck,
    never_stop,
)
from workbench.errors import DoesNotFit, WorkbenchError
from workbench.memory.request import LoadOptions

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from workbench.models.spec import ModelSpec

_STOP_CHECK_SECONDS = 0.05
_END_SECONDS = 5.0
_LENGTH_BYTES = 8
_LOAD = 0
_KILLED = -9


@dataclass(frozen=True)
class _Call:
    """Parent to child: run ``method``; its items come back under ``number``."""

    number: int
    method: str
    arguments: tuple[Any, ...]


@dataclass(frozen=True)
class _Stop:
    """Parent to child: ``should_stop`` is true now; with ``forget`` nobody reads any more."""

    number: int
    forget: bool


@dataclass(frozen=True)
class _Item:
    number: int
    value: Any


@dataclass(frozen=True)
class _End:
    number: int
    error: BaseException | None


def load(spec: ModelSpec, path: Path, options: LoadOptions) -> ChildModel:
    """Load the model in a new process. Raises what the engine raises."""
    return ChildModel(spec, path, options)


class ChildModel:
    """A model in another process; requests may run at once if its engine lets them."""

    def __init__(self, spec: ModelSpec, path: Path, options: LoadOptions) -> None:
        self.spec = spec
        self._numbers = itertools.count(_LOAD)
        self._replies: dict[int, queue.SimpleQueue[_Item | _End]] = {}
        self._lock = threading.Lock()
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "workbench.engines.child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        threading.Thread(target=self._read, name=f"child-{spec.id}", daemon=True).start()
        try:
            for _ in self._call("load", (spec.model_dump(mode="json"), str(path), options)):
                pass
        except BaseException:
            self.close()
            raise

    @property
    def is_alive(self) -> bool:
        """Whether the process still runs."""
        return self._process.poll() is None

    def resident_bytes(self) -> int:
        """Resident memory of the process (RSS)."""
        import psutil

        return int(psutil.Process(self._process.pid).memory_info().rss)

    def close(self) -> None:
        """End the process; its memory is back when this returns. Calling it twice does nothing."""
        self._process.kill()
        self._process.wait(_END_SECONDS)
        for pipe in (self._process.stdin, self._process.stdout):
            # closing the output waits for the reading thread, which ends with the process
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()

    def stream(
        self,
        messages: Sequence[Message],
        options: ChatOptions,
        should_stop: StopCheck = never_stop,
    ) -> Generator[ChatDelta, None, None]:
        """As in `ChatModel`."""
        yield from self._call("stream", (list(messages), options), should_stop)

    def transcribe(
        self,
        samples: NDArray[np.float32],
        options: SpeechOptions,
        should_stop: StopCheck = never_stop,
    ) -> tuple[SpeechInfo, Iterator[Segment]]:
        """As in `SpeechModel`."""
        items = self._call("transcribe", (samples, options), should_stop)
        return next(items), items

    def draw(
        self, options: ImageOptions, should_stop: StopCheck = never_stop
    ) -> Iterator[ImageStep | DrawnImages]:
        """As in `ImageModel`."""
        return self._call("draw", (options,), should_stop)

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """As in `EmbeddingModel`."""
        vectors: NDArray[np.float32] = next(self._call("embed", (list(texts),)))
        return vectors

    # -- inside ------------------------------------------------------------------------------

    def _call(
        self, method: str, arguments: tuple[Any, ...], should_stop: StopCheck = never_stop
    ) -> Generator[Any, None, None]:
        """Yield the items of one call. Leaving early stops it and waits until it has ended."""
        replies: queue.SimpleQueue[_Item | _End] = queue.SimpleQueue()
        number = next(self._numbers)
        self._replies[number] = replies
        timeout = None if should_stop is never_stop else _STOP_CHECK_SECONDS
        has_stopped = has_ended = False
        try:
            self._send(_Call(number, method, arguments))
            while True:
                if not has_stopped and should_stop():
                    has_stopped = True
                    self._send(_Stop(number, forget=False))
                try:
                    reply = replies.get(timeout=timeout)
                except queue.Empty:
                    continue
                if isinstance(reply, _End):
                    has_ended = True
                    if reply.error is not None:
                        raise reply.error
                    return
                yield reply.value
        finally:
            if not has_ended:
                self._send(_Stop(number, forget=True))
                while not isinstance(replies.get(), _End):
                    pass
            del self._replies[number]

    def _send(self, message: _Call | _Stop) -> None:
        assert self._process.stdin is not None
        # a process that has ended is noticed by the reading thread, which tells every call
        with self._lock, contextlib.suppress(OSError, ValueError):
            _write(self._process.stdin, message)
        if not self.is_alive:
            self._tell_all()

    def _read(self) -> None:
        assert self._process.stdout is not None
        try:
            while True:
                message = _next(self._process.stdout)
                replies = self._replies.get(message.number)
                if replies is not None:
                    replies.put(message)
        except (EOFError, OSError, ValueError, pickle.UnpicklingError):
            self._process.kill()  # an end that writes nonsense is of no use
            self._process.wait()
        self._tell_all()

    def _tell_all(self) -> None:
        """Every call that still waits hears that the process has ended."""
        for number, replies in list(self._replies.items()):
            replies.put(_End(number, self._ended()))

    def _ended(self) -> WorkbenchError:
        code = self._process.returncode
        if code == _KILLED:
            return DoesNotFit(
                f"The process of {self.spec.id} was killed, most likely because memory ran out.",
                "Ask for less at once, or choose a smaller model.",
            )
        return WorkbenchError(
            f"The process of {self.spec.id} ended with {code} while it worked.",
            "Ask again: it will be loaded anew.",
        )


# -- the pipe --------------------------------------------------------------------------------


def _write(pipe: BinaryIO | Any, message: object) -> None:
    body = pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL)
    pipe.write(len(body).to_bytes(_LENGTH_BYTES, "little") + body)
    pipe.flush()


def _next(pipe: BinaryIO | Any) -> Any:
    """The next message. Raises EOFError when the other end is gone."""
    head = pipe.read(_LENGTH_BYTES)
    if len(head) < _LENGTH_BYTES:
        raise EOFError
    return pickle.loads(pipe.read(int.from_bytes(head, "little")))  # noqa: S301 - see the top


# -- the child -------------------------------------------------------------------------------


class _Server:
    """Runs the calls of the parent, each in a thread of its own."""

    def __init__(self, pipe: BinaryIO) -> None:
        self._pipe = pipe
        self._lock = threading.Lock()
        self._model: Any = None
        self._stops: dict[int, threading.Event] = {}
        self._forgotten: set[int] = set()

    def handle(self, message: _Call | _Stop) -> None:
        """Start a call or stop one."""
        if isinstance(message, _Call):
            self._stops[message.number] = threading.Event()
            threading.Thread(target=self._run, args=(message,), daemon=True).start()
        elif message.number in self._stops:
            if message.forget:
                self._forgotten.add(message.number)
            self._stops[message.number].set()

    def _run(self, call: _Call) -> None:
        error: BaseException | None = None
        try:
            items = self._items(call)
            with contextlib.closing(items):
                for item in items:
                    if call.number in self._forgotten:
                        break
                    self._reply(_Item(call.number, item))
        except BaseException as raised:
            error = _portable(raised)
        self._forgotten.discard(call.number)
        del self._stops[call.number]
        self._reply(_End(call.number, error))

    def _items(self, call: _Call) -> Generator[Any, None, None]:
        should_stop = self._stops[call.number].is_set
        if call.method == "load":
            from workbench.models.spec import ModelSpec

            spec, path, options = call.arguments
            self._model = registry.load(ModelSpec.model_validate(spec), Path(path), options)
        elif call.method == "embed":
            yield self._model.embed(*call.arguments)
        elif call.method == "transcribe":
            info, segments = self._model.transcribe(*call.arguments, should_stop)
            yield info
            yield from segments
        else:
            items = getattr(self._model, call.method)(*call.arguments, should_stop)
            with contextlib.closing(items):
                yield from items

    def _reply(self, message: _Item | _End) -> None:
        with self._lock:
            _write(self._pipe, message)


def _portable(error: BaseException) -> BaseException:
    """The error, if it survives the pipe; else one that says the same."""
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes
    except Exception:
        return WorkbenchError(f"{type(error).__name__}: {error}")
    return error


def main() -> None:
    """The child: serve until the parent closes the pipe."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # native code prints to standard output
    # under its own name: what is pickled here must be found there
    server = importlib.import_module("workbench.engines.child")._Server(answers)
    with contextlib.suppress(EOFError, KeyboardInterrupt):
        while True:
            server.handle(_next(sys.stdin.buffer))
    os._exit(0)  # threads of an engine may still run for a parent that is gone


if __name__ == "__main__":
    main()
