"""The estimates against what was really measured: golden rows, no model and no GPU needed.

The bounds are what the estimators reach now with a little room, so that a change that makes them
worse fails here. The targets of the project are in ``benchmarks/memory_accuracy.py --check``.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def accuracy():
    sys.path.insert(0, str(BENCHMARKS))
    try:
        import memory_accuracy
    finally:
        sys.path.remove(str(BENCHMARKS))
    return memory_accuracy


@pytest.fixture(scope="module")
def rows(accuracy):
    found = accuracy.read_rows()
    assert found, "the repository has golden rows"
    return found


def test_the_estimates_are_as_good_as_they_were(accuracy, rows):
    found = accuracy.summary("all", [accuracy.score(row, row.estimate) for row in rows])
    assert found.median <= 0.05
    assert found.p95 <= 0.15
    assert found.over_bound <= 0.05
    assert found.bound <= 1.30


def test_one_calibration_keeps_them_good(accuracy, rows):
    """A pair of rows may be unlike each other: then one must not harm the other."""
    shipped = {row.case: accuracy.score(row, row.estimate) for row in rows}
    scores = list(accuracy.calibrated_scores(rows))
    before = accuracy.summary("same pairs", [shipped[found.case] for found in scores])
    after = accuracy.summary("all", scores)
    assert after.median <= 0.02
    assert after.p95 <= before.p95 + 0.005
    assert after.under <= before.under + 0.03
    assert after.over_bound <= 0.05


def test_all_other_runs_of_a_family_make_none_of_its_rows_much_worse(accuracy, rows):
    shipped = {row.case: accuracy.score(row, row.estimate) for row in rows}
    scores = list(accuracy.learned_scores(rows))
    assert scores, "some families have several rows"
    before = accuracy.summary("same rows", [shipped[found.case] for found in scores])
    after = accuracy.summary("all", scores)
    assert after.p95 <= before.p95 + 0.005
    assert after.median <= before.median + 0.005
    assert after.over_bound == 0


def test_held_out_cases_are_not_worse_than_the_others(accuracy, rows):
    scores = [accuracy.score(row, row.estimate) for row in rows]
    held_out = [found for found in scores if found.held_out]
    assert held_out, "some cases had no part in the fitting"
    assert accuracy.summary("held out", held_out).median <= 0.08


def test_a_missed_target_is_said_in_words(accuracy):
    bad = accuracy.Summary("all", 1, 0.2, 0.01, 0.0, 0.0, 1.1)
    assert accuracy.misses("x", bad, accuracy.SHIPPED_TARGET) == ["x: median 20.0 % (target 5 %)"]
