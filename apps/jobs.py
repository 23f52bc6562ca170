"""Running work of the app's pages: one thread a job, each with its own stop flag.

A job runs in its own thread and sends events to the generator that draws the page, so the page
keeps moving (and Stop keeps working) while a model loads. Only one job uses the device at a time,
also when a page was closed and its job is still about to stop. Knows nothing about Gradio.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

from workbench.errors import Cancelled, UserInputError

#: Without an event for so long, the page is redrawn with the new time.
_TICK_SECONDS = 0.5
#: Events closer together than this are drawn together: a browser cannot follow 100 redraws/s.
_REDRAW_SECONDS = 0.08


class StreamLike(Protocol):
    """What a job needs of `workbench.tasks.stream.Stream`."""

    def __iter__(self) -> Iterator[Any]: ...
    def stop(self) -> None: ...
    @property
    def result(self) -> Any: ...


@dataclass(frozen=True)
class Update:
    """What happened since the last update; ``result`` is set in the last one."""

    events: list[Any]
    seconds: float
    waiting: bool = False
    result: Any = None


@dataclass(frozen=True)
class _Done:
    result: Any = None
    error: BaseException | None = None


@dataclass
class Job:
    """One run of one tab in one browser page."""

    stop_event: threading.Event = field(default_factory=threading.Event)
    started: bool = False
    _queue: queue.SimpleQueue[Any] = field(default_factory=queue.SimpleQueue)
    _stream: StreamLike | None = None
    _waiting: bool = False

    def stop(self) -> None:
        """Ask the work to stop at its next token, step or segment; any thread may."""
        self.stop_event.set()
        if self._stream is not None:
            self._stream.stop()

    def send(self, event: Any) -> None:
        """Called by the work: show ``event`` on the page."""
        self._queue.put(event)

    def play(self, stream: StreamLike) -> Any:
        """Called by the work: send every event of ``stream``; return its result."""
        self._stream = stream
        if self.stop_event.is_set():  # stopped while the stream was being made
            stream.stop()
        for event in stream:
            self.send(event)
        return stream.result

    def follow(
        self, work: Callable[[Job], Any], device: threading.Lock | None = None
    ) -> Iterator[Update]:
        """Run ``work(job)`` in a thread and yield what it sends; raises what it raises.

        ``device`` is held while it runs. Closing this iterator stops the work.
        """
        self.started = True
        started = time.perf_counter()
        threading.Thread(target=self._run, args=(work, device), daemon=True).start()
        try:
            done: _Done | None = None
            while done is None:
                events, done = self._collect()
                seconds = time.perf_counter() - started
                if done is not None and done.error is not None:
                    if events:
                        yield Update(events, seconds)
                    raise done.error
                yield Update(events, seconds, self._waiting, done.result if done else None)
        finally:
            self.stop()

    def _collect(self) -> tuple[list[Any], _Done | None]:
        events: list[Any] = []
        until = time.perf_counter() + _TICK_SECONDS
        while (left := until - time.perf_counter()) > 0:
            try:
                item = self._queue.get(timeout=left)
            except queue.Empty:
                break
            if isinstance(item, _Done):
                return events, item
            if not events:
                until = min(until, time.perf_counter() + _REDRAW_SECONDS)
            events.append(item)
        return events, None

    def _run(self, work: Callable[[Job], Any], device: threading.Lock | None) -> None:
        try:
            if device is not None:
                self._wait_for(device)
            try:
                self._queue.put(_Done(work(self)))
            finally:
                if device is not None:
                    device.release()
        except BaseException as error:  # handed to the page's thread, which raises it
            self._queue.put(_Done(error=error))

    def _wait_for(self, device: threading.Lock) -> None:
        self._waiting = True
        while not device.acquire(timeout=0.1):
            if self.stop_event.is_set():
                raise Cancelled("It was stopped while it waited for its turn.")
        self._waiting = False
        if self.stop_event.is_set():
            device.release()
            raise Cancelled("It was stopped before it began.")


class Jobs:
    """The jobs of all open pages, by (page, tab)."""

    def __init__(self) -> None:
        self.device = threading.Lock()
        self._jobs: dict[tuple[str, str], Job] = {}
        self._lock = threading.Lock()

    def begin(self, page: str, tab: str) -> Job:
        """A new job. Raises UserInputError while the tab's last one still runs."""
        with self._lock:
            if (page, tab) in self._jobs:
                raise UserInputError("This is still running.", "Wait for it or stop it first.")
            job = self._jobs[page, tab] = Job()
            return job

    def current(self, page: str, tab: str) -> Job:
        """The job that was begun, or a new one for a call that did not come from the page."""
        with self._lock:
            return self._jobs.setdefault((page, tab), Job())

    def end(self, page: str, tab: str, job: Job) -> None:
        """Forget ``job``, unless the tab has a newer one already."""
        with self._lock:
            if self._jobs.get((page, tab)) is job:
                del self._jobs[page, tab]

    def end_unstarted(self, page: str, tab: str) -> None:
        """Forget a job whose run never came: the page's values were refused before it."""
        with self._lock:
            job = self._jobs.get((page, tab))
            if job is not None and not job.started:
                del self._jobs[page, tab]

    def stop(self, page: str, tab: str) -> bool:
        """Stop the tab's job and no other. False: there is none."""
        with self._lock:
            job = self._jobs.get((page, tab))
        if job is not None:
            job.stop()
        return job is not None

    def close_page(self, page: str) -> None:
        """The browser page is gone: stop all of its jobs."""
        with self._lock:
            tabs = [key for key in self._jobs if key[0] == page]
            jobs = [self._jobs.pop(key) for key in tabs]
        for job in jobs:
            job.stop()

    def close(self) -> None:
        """The app ends: stop every job, so that its threads end too."""
        with self._lock:
            jobs = [*self._jobs.values()]
        for job in jobs:
            job.stop()
