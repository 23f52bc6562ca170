"""The correction learns what runs show, and not more."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.memory.correction import (
    Parts,
    Sample,
    apply,
    fit,
    learned_runs,
    parts_of,
    spread_of,
)
from workbench.memory.terms import Estimate, Phase, Term, about, exact

MIB = 2**20


def parts(weights: int = 800, dynamic: int = 200, context: int = 100) -> Parts:
    return Parts(context * MIB, weights * MIB, dynamic * MIB)


def off_by(ratio: float, given_parts: Parts | None = None) -> Sample:
    """A run whose peak is so many times what was predicted."""
    own = given_parts or parts()
    return Sample(own, round(ratio * own.total_bytes))


def an_estimate(dynamic: int = 200) -> Estimate:
    return Estimate(
        family="test",
        resident=(
            about("context", 100 * MIB, 0.1, "measured"),
            exact("weights", 800 * MIB, "headers"),
            exact("kv_cache", dynamic // 2 * MIB, "formula"),
        ),
        phases=(
            Phase(name="prefill", terms=(about("activations", dynamic // 2 * MIB, 0.5, "?"),)),
            Phase(name="decode", terms=(about("activations", dynamic // 4 * MIB, 0.5, "?"),)),
        ),
    )


def test_one_run_takes_away_most_of_its_own_error_and_five_nearly_all_of_it():
    for runs, left in ((1, 0.015), (5, 0.006)):
        found = fit([off_by(1.10)] * runs)
        ratio = found.median_bytes(parts()) / off_by(1.10).measured_bytes
        assert ratio == pytest.approx(1, abs=left)


@pytest.mark.parametrize("ratio", [0.8, 1.25])
def test_one_run_hardly_moves_requests_unlike_it(ratio: float):
    """Another phase may make their peak: what it was off by may be its own."""
    found = fit([off_by(ratio)])
    for unlike in (parts(dynamic=800), parts(dynamic=50), parts(weights=200), parts(weights=4000)):
        assert found.median_bytes(unlike) == pytest.approx(unlike.total_bytes, rel=0.04)


def test_runs_as_predicted_change_nothing():
    found = fit([off_by(1.0)] * 5)
    assert found.median_bytes(parts()) == parts().total_bytes
    assert found.factors == pytest.approx((1, 1, 0))


def test_many_runs_find_the_factor_of_the_dynamic_part():
    samples = [
        Sample(
            own := parts(dynamic=dynamic, weights=weights),
            own.context_bytes + own.weights_bytes + round(1.3 * own.dynamic_bytes),
        )
        for dynamic in (50, 100, 200, 400, 800, 1600)
        for weights in (100, 200, 400, 800, 1600)
    ]
    found = fit(samples)
    assert found.factors[1] == pytest.approx(1.3, abs=0.06)
    unseen = parts(dynamic=3200, weights=300)
    assert found.median_bytes(unseen) == pytest.approx((400 + 1.3 * 3200) * MIB, rel=0.05)


def test_one_wild_run_among_ten_hardly_counts():
    good = [off_by(1.05)] * 10
    wild = off_by(2.0)
    found = fit([*good, wild])
    assert found.median_bytes(parts()) == pytest.approx(1.05 * parts().total_bytes, rel=0.02)
    # but the bound has seen it
    assert found.upper_bytes(parts()) >= wild.measured_bytes


def test_the_bound_narrows_with_runs_that_agree():
    draw = random.Random(1)
    bounds = []
    for n in (1, 5, 50):
        found = fit([off_by(1.05 + draw.gauss(0, 0.003)) for _ in range(n)])
        bounds.append(found.upper_bytes(parts()) / found.median_bytes(parts()))
    assert bounds[0] > bounds[1] > bounds[2] > 1


def test_a_good_run_does_not_widen_the_bound_of_the_others():
    estimate = an_estimate()
    learned = apply(fit([off_by(1.0)]), estimate)
    unlike = apply(fit([off_by(1.0, parts(weights=80, dynamic=20))]), estimate)
    for found in (learned, unlike):
        assert found.upper_bytes / estimate.upper_bytes == pytest.approx(1, abs=0.05)


def test_a_request_unlike_those_seen_has_a_wider_bound():
    found = fit([off_by(1.02)] * 5)
    near, far = parts(), parts(dynamic=4000)
    widths = [found.upper_bytes(p) / found.median_bytes(p) for p in (near, far)]
    assert widths[1] > widths[0]


@given(st.lists(st.floats(0.6, 1.8), min_size=1, max_size=20))
def test_the_bound_is_never_below_a_run_that_was_seen(ratios: list[float]):
    samples = [off_by(ratio) for ratio in ratios]
    found = fit(samples)
    assert all(found.upper_bytes(s.parts) >= s.measured_bytes for s in samples)


@given(
    st.lists(st.floats(0.6, 1.8), min_size=1, max_size=8),
    st.integers(0, 4000),
)
def test_a_corrected_estimate_adds_up(ratios: list[float], dynamic: int):
    found = fit([off_by(ratio) for ratio in ratios])
    estimate = an_estimate(dynamic)
    corrected = apply(found, estimate)
    assert corrected.peak_bytes == pytest.approx(found.median_bytes(parts_of(estimate)), abs=16)
    upper = found.upper_bytes(parts_of(estimate), spread_of(estimate))
    assert corrected.upper_bytes >= upper - 16
    assert corrected.upper_bytes >= corrected.peak_bytes
    assert corrected.resident[-1].name == "learned"
    assert learned_runs(corrected.resident) == len(ratios)
    assert learned_runs(estimate.resident) == 0
    assert f"learned from n = {len(ratios)} runs" in corrected.resident[-1].provenance


def test_usual_runs_take_nothing_from_the_bound_of_a_rare_phase():
    usual = an_estimate()
    rare = Phase(
        name="fallback",
        terms=(Term(name="copies", size_bytes=0, upper_bytes=900 * MIB, provenance="?"),),
        is_rare=True,
    )
    estimate = usual.model_copy(update={"phases": (*usual.phases, rare)})
    found = apply(fit([off_by(1.0)] * 50), estimate)
    assert found.peak_bytes == usual.peak_bytes
    assert found.upper_bytes >= (100 + 800 + 100 + 900) * MIB
    assert apply(fit([off_by(1.0)] * 50), usual).upper_bytes < 1.2 * usual.peak_bytes


def test_the_parts_of_an_estimate():
    assert parts_of(an_estimate()) == parts()
