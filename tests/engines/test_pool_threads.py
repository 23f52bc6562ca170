"""Requests of several threads: fair, without deadlocks, without swapping back and forth."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.engines.pool_bench import Bench
from workbench.errors import DoesNotFit
from workbench.settings import get_settings

_DEADLOCK_SECONDS = 30.0


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(tmp_path, monkeypatch, clock=time.monotonic)


def run(*clients: Callable[[], None]) -> None:
    """Run them at once; a client that does not end is a deadlock, its error is raised."""
    errors: list[BaseException] = []

    def guarded(client: Callable[[], None]) -> None:
        try:
            client()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(c,), daemon=True) for c in clients]
    for thread in threads:
        thread.start()
    ends = time.monotonic() + _DEADLOCK_SECONDS
    for thread in threads:
        thread.join(max(0.0, ends - time.monotonic()))
    assert not any(thread.is_alive() for thread in threads), "deadlock"
    if errors:
        raise errors[0]


@pytest.mark.parametrize("seed", range(5))
def test_eight_clients_of_four_models_where_two_fit(bench: Bench, seed: int):
    """Each client keeps to its model: every model is loaded once or, on a busy machine where a
    client pauses longer than it would, a few times; without turns it would be dozens."""
    draw = random.Random(seed)
    specs = [bench.spec(name, 45) for name in "abcd"]
    served: Counter[str] = Counter()

    def client(number: int) -> Callable[[], None]:
        def work() -> None:
            for _ in range(25):
                with bench.pool.acquire(specs[number % 4]) as model:
                    with bench.lock:
                        served[model.spec.id] += 1
                        assert model.spec.id in bench.held, "freed while it was in use"
                        assert len(bench.held) <= 2

        return work

    clients = [client(number) for number in range(8)]
    draw.shuffle(clients)
    run(*clients)
    assert served == dict.fromkeys("abcd", 50)
    assert max(Counter(bench.loads).values()) <= 6
    assert all(row.users == 0 for row in bench.pool.loaded())


@pytest.mark.parametrize("seed", range(2))
def test_clients_that_change_their_model_swap_for_many_requests_at_once(bench: Bench, seed: int):
    """Each request names any of the four: a swap is unavoidable when nobody can go on, so it
    serves several requests."""
    specs = [bench.spec(name, 45) for name in "abcd"]

    def client(number: int) -> Callable[[], None]:
        draw = random.Random(8 * seed + number)

        def work() -> None:
            for _ in range(10):
                with bench.pool.acquire(draw.choice(specs)) as model:
                    assert model.spec.id in bench.held

        return work

    run(*[client(number) for number in range(8)])
    assert len(bench.loads) <= 0.75 * 80
    assert all(row.users == 0 for row in bench.pool.loaded())


def test_the_first_that_waits_is_served_first(bench: Bench):
    order: list[str] = []
    inside, done = threading.Event(), threading.Event()

    def hold() -> None:
        with bench.pool.acquire(bench.spec("a", 60)):
            inside.set()
            done.wait(10)

    def use(name: str) -> Callable[[], None]:
        def work() -> None:
            with bench.pool.acquire(bench.spec(name, 60)):
                order.append(name)

        return work

    holder = threading.Thread(target=hold)
    holder.start()
    inside.wait(10)
    waiting = []
    for name in ("c", "b", "d"):
        waiting.append(threading.Thread(target=use(name)))
        waiting[-1].start()
        while len(bench.pool._turns._queue) < len(waiting):
            time.sleep(0.001)
    done.set()
    for thread in (holder, *waiting):
        thread.join(10)
    assert order == ["c", "b", "d"]
    assert "until a is free" in bench.reasons("wait")


def test_a_model_in_endless_use_lets_the_others_in(bench: Bench, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("WORKBENCH_MEMORY__TURN_SECONDS", "0.05")
    get_settings.cache_clear()
    a, b = bench.spec("a", 60), bench.spec("b", 60)
    served = threading.Event()

    def busy() -> None:  # two of them overlap, so the model is never idle by itself
        while not served.is_set():
            with bench.pool.acquire(a):
                served.wait(0.005)

    def other() -> None:
        bench.use(b)
        served.set()

    run(busy, busy, other)
    assert served.is_set()


def test_two_that_hold_what_the_other_wants_do_not_wait_for_ever(bench: Bench):
    a, b = bench.spec("a", 45), bench.spec("b", 45)
    both = threading.Barrier(2)
    refused: list[str] = []

    def client(first: str, own: object, other: object) -> Callable[[], None]:
        def work() -> None:
            with bench.pool.acquire(own):  # type: ignore[arg-type]
                both.wait(10)
                try:
                    bench.use(other)
                except DoesNotFit:
                    refused.append(first)

        return work

    # each wants a third of 45, for which one of the two must go
    c, d = bench.spec("c", 45), bench.spec("d", 45)
    run(client("a", a, c), client("b", b, d))
    assert len(refused) == 1  # the other one was served when that one had gone


def test_who_holds_a_model_goes_before_those_who_hold_none(bench: Bench):
    a, b, small = bench.spec("a", 60), bench.spec("b", 60), bench.spec("small", 20)
    inside, queued = threading.Event(), threading.Event()

    def holder() -> None:
        with bench.pool.acquire(a):
            inside.set()
            queued.wait(10)
            bench.use(small)  # `b` is first in the queue and waits for `a`

    def waiter() -> None:
        inside.wait(10)
        bench.use(b)

    def watch() -> None:
        while not bench.reasons("wait"):
            time.sleep(0.001)
        queued.set()

    run(holder, waiter, watch)
    assert bench.loads[:2] == ["a", "small"]


def test_waiting_ends_after_its_time(bench: Bench):
    inside, done = threading.Event(), threading.Event()

    def hold() -> None:
        with bench.pool.acquire(bench.spec("a", 60)):
            inside.set()
            done.wait(10)

    def wait() -> None:
        inside.wait(10)
        with pytest.raises(DoesNotFit, match="b waited 0 s for memory that other requests use"):
            bench.use(bench.spec("b", 60), wait_seconds=0.02)
        done.set()

    run(hold, wait)
    assert bench.pool._turns._queue == []
