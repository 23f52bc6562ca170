"""One way to stream: iterate for the events, then ask for the result."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterator
from typing import Generic, TypeVar

Event = TypeVar("Event")
Result = TypeVar("Result")


class Stream(Generic[Event, Result]):
    """Events as they come, and the result at the end.

    ``for event in stream: ...`` then ``stream.result``. `stop` asks the engine to stop at the
    next token, segment or step; what was produced until then becomes the result.
    """

    def __init__(
        self, make: Callable[[Callable[[], bool]], Generator[Event, None, Result]]
    ) -> None:
        self._stop = threading.Event()
        self._events = make(self._stop.is_set)
        self._result: Result | None = None
        self._done = False

    def __iter__(self) -> Iterator[Event]:
        while not self._done:
            try:
                event = next(self._events)
            except StopIteration as end:
                self._result = end.value
                self._done = True
                return
            yield event

    def stop(self) -> None:
        """Stop the computation soon. May be called from any thread, any number of times."""
        self._stop.set()

    def close(self) -> None:
        """Stop and forget: frees the model at once; there will be no result."""
        self._stop.set()
        self._events.close()
        self._done = True

    @property
    def result(self) -> Result:
        """The result; runs the stream to its end if that has not happened yet."""
        for _ in self:
            pass
        if self._result is None:
            raise RuntimeError("the stream was closed or failed before it had a result")
        return self._result
