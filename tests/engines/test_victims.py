"""Which idle models are freed."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from workbench.engines.victims import Victim, choose_victims

victims = st.lists(
    st.tuples(st.integers(1, 50), st.floats(0, 60), st.floats(0, 1000)), max_size=7
).map(lambda rows: [Victim(number, *row) for number, row in enumerate(rows)])


@given(victims, st.integers(0, 200))
def test_enough_is_freed_at_the_least_cost(idle: list[Victim], missing: int):
    chosen = choose_victims(idle, missing)
    sets = [s for n in range(len(idle) + 1) for s in itertools.combinations(idle, n)]
    enough = [s for s in sets if sum(v.freed_bytes for v in s) >= missing]
    if chosen is None:
        assert not enough
        return
    assert sum(v.freed_bytes for v in chosen) >= missing
    best = min(sum(v.cost_seconds for v in s) for s in enough)
    assert sum(v.cost_seconds for v in chosen) <= best + 1e-9


@given(st.integers(0, 1000))
def test_many_models_are_chosen_among_quickly_and_none_in_vain(missing: int):
    idle = [Victim(n, 1 + n * 7 % 50, n % 9, n * 13 % 200) for n in range(40)]
    chosen = choose_victims(idle, missing)
    if chosen is None:
        assert sum(v.freed_bytes for v in idle) < missing
        return
    freed = sum(v.freed_bytes for v in chosen)
    assert freed >= missing
    assert all(freed - v.freed_bytes < missing for v in chosen)


def test_a_slow_load_is_kept_and_a_long_idleness_is_not():
    slow = Victim("slow", 10, load_seconds=20, idle_seconds=5)
    quick = Victim("quick", 10, load_seconds=1, idle_seconds=0)
    assert choose_victims([slow, quick], 10) == (quick,)
    forgotten = Victim("forgotten", 10, load_seconds=20, idle_seconds=3600)
    assert choose_victims([forgotten, quick], 10) == (forgotten,)
