"""What was measured is kept, shared by processes, and never stops a plan."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from tests.memory.test_correction import MIB, an_estimate
from workbench.errors import Unavailable
from workbench.memory import history as history_module
from workbench.memory.history import History, Observation, corrected


def seen(family: str = "test", measured: int = 1210, **changes: object) -> Observation:
    """A run whose estimate was 1100 MiB."""
    values: dict[str, object] = {
        "model": "a-model",
        "family": family,
        "device": "cpu",
        "options": {"compute_type": "int8"},
        "size": {"prompt_tokens": 100},
        "terms": {"context": 100 * MIB, "weights": 800 * MIB, "dynamic": 200 * MIB},
        "predicted_bytes": 1100 * MIB,
        "upper_bytes": 1300 * MIB,
        "measured_bytes": measured * MIB,
        "method": "VmHWM",
        "versions": {"engine": "1.0"},
        **changes,
    }
    return Observation(**values)  # type: ignore[arg-type]


@pytest.fixture
def history(home: Path) -> History:
    return History()


def test_what_is_added_is_found_again_newest_first(history: History):
    first, second = seen(), seen(measured=1220)
    history.add(first)
    history.add(second)
    assert history.path.name == "memory.db"
    assert history.observations() == [second, first]
    assert history.observations("other") == []
    assert history.observations(device="cuda:0") == []
    assert history.observations(limit=1) == [second]


def test_nothing_is_made_by_reading(history: History):
    assert history.observations() == []
    assert history.correction("test") is None
    assert not history.path.exists()


def test_a_plan_gets_what_was_learned(history: History):
    estimate = an_estimate()
    assert corrected(estimate) is estimate
    history.add(seen())
    once = corrected(estimate)
    assert once.peak_bytes == pytest.approx(1210 * MIB, rel=0.05)
    assert once.peak_bytes > 1.02 * estimate.peak_bytes
    assert "learned from n = 1 runs, residual" in once.resident[-1].provenance
    history.add(seen())
    assert "learned from n = 2 runs" in corrected(estimate).resident[-1].provenance
    assert corrected(estimate, "cuda:0") is estimate


def test_runs_of_other_versions_are_left_out(history: History):
    history.add(seen(measured=2000, versions={"engine": "0.9"}))
    history.add(seen())
    correction = history.correction("test")
    assert correction is not None and correction.runs == 1


def test_several_processes_write_at_once(history: History, home: Path):
    code = (
        "from tests.memory.test_history import seen\n"
        "from workbench.memory.history import History\n"
        "for _ in range(20): History().add(seen())\n"
    )
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    writers = [
        subprocess.Popen([sys.executable, "-c", code], env=environment, cwd=root) for _ in range(3)
    ]
    assert [writer.wait(timeout=120) for writer in writers] == [0, 0, 0]
    assert len(history.observations()) == 60


@pytest.mark.parametrize("broken", ["garbage", "truncated", "older"])
def test_a_file_that_cannot_be_used_is_set_aside(history: History, broken: str):
    history.add(seen())
    history_module._kept.close()  # what follows happens while no process has it open
    if broken == "garbage":
        history.path.write_bytes(b"not a database at all, but long enough to be read" * 100)
    elif broken == "truncated":
        with sqlite3.connect(history.path) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.close()
        history.path.write_bytes(history.path.read_bytes()[:1000])
    else:
        with sqlite3.connect(history.path) as connection:
            connection.execute("PRAGMA user_version = 0")
        connection.close()
    before = history.path.read_bytes()
    with pytest.warns(RuntimeWarning, match=r"kept as memory\.db\.unusable-\d+, and learning"):
        history.add(seen(measured=1300))
    (aside,) = [
        p for p in history.path.parent.glob("memory.db.unusable-*") if p.suffix[-1].isdigit()
    ]
    assert aside.read_bytes() == before
    assert [row.measured_bytes for row in history.observations()] == [1300 * MIB]


def test_a_newer_file_is_left_alone(history: History):
    history.add(seen())
    with sqlite3.connect(history.path) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(Unavailable, match="a newer workbench wrote it"):
        history.add(seen())


def test_a_history_that_cannot_be_read_never_stops_a_plan(home: Path):
    History().add(seen())
    with sqlite3.connect(home / "memory.db") as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    estimate = an_estimate()
    with pytest.warns(RuntimeWarning, match="plans go on"):
        assert corrected(estimate) is estimate
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # said once, not for every candidate
        assert corrected(estimate) is estimate
