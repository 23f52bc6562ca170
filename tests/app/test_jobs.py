"""Jobs: events arrive, Stop stops, one job uses the device at a time, errors come through."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from apps.jobs import Job, Jobs
from workbench.errors import Cancelled, ProviderError, UserInputError
from workbench.tasks.stream import Stream

_LONG_SECONDS = 20.0  # of waiting for something that must come at once


def counting(limit: int, wait: threading.Event | None = None) -> Callable[[], Stream[int, str]]:
    """A stream of 0, 1, 2 ... that waits at every number from the second on."""

    def make(should_stop: Callable[[], bool]) -> Iterator[int]:
        for number in range(limit):
            if should_stop():
                return "stopped"
            yield number
            if wait is not None:
                wait.wait(_LONG_SECONDS)
        return "all"

    return lambda: Stream(make)  # type: ignore[arg-type]


def test_a_job_gives_every_event_once_and_then_the_result() -> None:
    updates = list(Job().follow(lambda job: job.play(counting(500)())))
    assert [event for update in updates for event in update.events] == list(range(500))
    assert updates[-1].result == "all"
    assert all(update.result is None for update in updates[:-1])


def test_stop_keeps_what_was_made_so_far() -> None:
    job, gate = Job(), threading.Event()
    updates = job.follow(lambda job: job.play(counting(10, gate)()))
    assert next(updates).events == [0]
    job.stop()
    gate.set()
    assert [update.result for update in updates][-1] == "stopped"


def test_stop_before_the_stream_is_made_stops_it() -> None:
    job = Job()

    def work(job: Job) -> Any:
        job.stop()  # as a click would, while the model is looked up
        return job.play(counting(10)())

    assert [update.result for update in job.follow(work)][-1] == "stopped"


def test_what_the_work_raises_comes_after_what_it_sent() -> None:
    def work(job: Job) -> None:
        job.send("half")
        raise ProviderError("It failed.", "Try later.")

    updates = Job().follow(work)
    assert next(updates).events == ["half"]
    with pytest.raises(ProviderError, match="It failed"):
        next(updates)


def test_closing_the_page_in_the_middle_stops_the_work() -> None:
    ended, gate = threading.Event(), threading.Event()

    def work(job: Job) -> None:
        job.send("begun")
        job.stop_event.wait(_LONG_SECONDS)
        ended.set()

    updates = Job().follow(work)
    next(updates)
    updates.close()  # type: ignore[attr-defined]
    assert ended.wait(_LONG_SECONDS)
    gate.set()


def test_the_device_is_used_by_one_job_at_a_time() -> None:
    device = threading.Lock()
    inside: list[str] = []
    most: list[int] = []
    gate = threading.Event()

    def work(name: str) -> Callable[[Job], None]:
        def run(job: Job) -> None:
            inside.append(name)
            most.append(len(inside))
            job.send(name)
            gate.wait(_LONG_SECONDS)
            inside.remove(name)

        return run

    first, second = Job(), Job()
    one = first.follow(work("one"), device)
    assert next(one).events == ["one"]
    two = second.follow(work("two"), device)
    assert next(two).waiting
    gate.set()
    assert [event for update in two for event in update.events] == ["two"]
    list(one)
    assert most == [1, 1]
    assert not device.locked()


def test_a_job_that_waits_for_the_device_can_be_stopped() -> None:
    device = threading.Lock()
    with device:
        job = Job()
        updates = job.follow(lambda job: pytest.fail("it must not run"), device)
        assert next(updates).waiting
        job.stop()
        with pytest.raises(Cancelled):
            list(updates)


def test_the_device_is_free_again_after_an_error() -> None:
    device = threading.Lock()

    def work(job: Job) -> None:
        raise MemoryError

    with pytest.raises(MemoryError):
        list(Job().follow(work, device))
    assert not device.locked()


def test_a_tab_runs_one_job_and_other_tabs_and_pages_their_own() -> None:
    jobs = Jobs()
    jobs.begin("page", "chat")
    with pytest.raises(UserInputError, match="still running"):
        jobs.begin("page", "chat")
    jobs.begin("page", "images")
    jobs.begin("other page", "chat")


def test_stopping_one_job_leaves_the_others_alone() -> None:
    jobs = Jobs()
    mine, theirs = jobs.begin("mine", "chat"), jobs.begin("theirs", "chat")
    images = jobs.begin("mine", "images")
    assert jobs.stop("mine", "chat")
    assert mine.stop_event.is_set()
    assert not theirs.stop_event.is_set() and not images.stop_event.is_set()
    assert not jobs.stop("nobody", "chat")


def test_a_page_that_is_closed_stops_all_its_jobs() -> None:
    jobs = Jobs()
    chat, images = jobs.begin("page", "chat"), jobs.begin("page", "images")
    other = jobs.begin("other", "chat")
    jobs.close_page("page")
    assert chat.stop_event.is_set() and images.stop_event.is_set()
    assert not other.stop_event.is_set()
    jobs.begin("page", "chat")  # its place is free again


def test_a_finished_job_does_not_end_the_one_that_followed_it() -> None:
    jobs = Jobs()
    first = jobs.begin("page", "chat")
    jobs.end("page", "chat", first)
    second = jobs.begin("page", "chat")
    jobs.end("page", "chat", first)
    assert jobs.current("page", "chat") is second


def test_a_job_whose_run_never_came_gives_its_place_back() -> None:
    jobs = Jobs()
    jobs.begin("page", "chat")
    jobs.end_unstarted("page", "chat")
    running = jobs.begin("page", "chat")
    list(running.follow(lambda job: None))
    jobs.end_unstarted("page", "chat")
    assert jobs.current("page", "chat") is running
