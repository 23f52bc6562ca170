"""A computation that calls back, iterated over."""

from __future__ import annotations

import threading

import pytest

from workbench.engines.worker import ComputeThread, iterate


def test_items_come_in_order_and_end():
    def work(emit):
        for number in range(100):
            emit(number)

    assert list(iterate(work)) == list(range(100))


def test_items_come_while_the_work_goes_on():
    seen = threading.Event()

    def work(emit):
        emit("first")
        assert seen.wait(10)
        emit("second")

    items = iterate(work)
    assert next(items) == "first"
    seen.set()
    assert list(items) == ["second"]


def test_an_error_of_the_work_is_raised_after_its_items():
    def work(emit):
        emit(1)
        raise ValueError("broken")

    items = iterate(work)
    assert next(items) == 1
    with pytest.raises(ValueError, match="broken"):
        next(items)


def test_closing_tells_the_work_and_waits_for_it():
    ended = threading.Event()

    def work(emit):
        while not emit("more"):
            pass
        ended.set()

    items = iterate(work)
    next(items)
    items.close()
    assert ended.is_set()


def test_work_that_hangs_is_abandoned():
    release, stop = threading.Event(), threading.Event()

    def work(emit):
        emit("first")
        release.wait(30)

    items = iterate(work, abandon_when=stop.is_set)
    assert next(items) == "first"
    stop.set()
    assert list(items) == []
    release.set()


def test_all_work_of_a_compute_thread_is_in_one_thread():
    thread = ComputeThread("test")

    def work(emit):
        emit(threading.get_ident())
        emit(thread.run(threading.get_ident))  # work inside work does not wait for itself

    seen = {*iterate(work, on=thread), *iterate(work, on=thread), thread.run(threading.get_ident)}
    assert len(seen) == 1
    assert seen != {threading.get_ident()}


def test_a_stop_ends_the_wait_for_a_turn():
    thread, go, stop = ComputeThread("test"), threading.Event(), threading.Event()

    def work(emit):
        emit("cancelled" if stop.is_set() else "computed")

    busy = threading.Thread(target=thread.run, args=(lambda: go.wait(30),))
    busy.start()
    stop.set()
    assert list(iterate(work, on=thread, should_stop=stop.is_set)) == ["cancelled"]
    assert busy.is_alive()
    go.set()
    busy.join(30)


def test_an_error_in_a_compute_thread_is_raised_to_the_caller():
    thread = ComputeThread("test")
    with pytest.raises(ValueError, match="broken"):
        thread.run(lambda: int("broken"))
    assert thread.run(lambda: 1) == 1


def test_asking_whether_anybody_reads_hands_nothing_over():
    def work(emit):
        assert not emit(None)
        emit("item")

    assert list(iterate(work)) == ["item"]
