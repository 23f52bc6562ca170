"""Every ``experiments/*/experiment.yaml`` can be planned, and what was accepted is of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from workbench.lab.spec import SweepSpec, load_items, parse
from workbench.models import get

FOLDER = Path(__file__).resolve().parents[2] / "experiments"
FILES = sorted(FOLDER.glob("*/experiment.yaml"))


@pytest.fixture(params=FILES, ids=lambda path: path.parent.name)
def path(request: pytest.FixtureRequest) -> Path:
    found: Path = request.param
    return found


def _accepted(path: Path) -> dict[str, Any]:
    file = path.with_name("accepted.json")
    content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return content


def test_there_are_experiments():
    assert FILES


def test_it_can_be_planned(path: Path):
    spec = parse(path)
    assert spec.name == path.parent.name
    assert spec.isolate, "numbers that are kept come from processes of their own"
    for item in load_items(spec):
        for name in ("audio", "database"):
            assert name not in item or Path(item[name]).is_file()
    for model in _models(spec):
        assert get(model)


def test_fast_mode_is_less_work(path: Path):
    spec = parse(path)
    fast = spec.faster()
    work = [s.repeats * len(load_items(s)) for s in (fast, spec)]
    assert work[0] < work[1]


def test_a_readme_says_what_it_is(path: Path):
    text = path.with_name("README.md").read_text(encoding="utf-8")
    assert f"workbench sweep experiments/{path.parent.name}" in text


def test_the_accepted_result_is_of_this_grid(path: Path):
    spec, accepted = parse(path), _accepted(path)
    assert [row["configuration"] for row in accepted["trials"]] == list(spec.configurations())
    assert all(row["status"] == "finished" for row in accepted["trials"])
    assert accepted["items"] == len(load_items(spec))
    assert accepted["repeats"] == spec.repeats
    assert accepted["machine"]["processor"]
    assert "median_seconds" not in json.dumps(accepted), "seconds belong to one machine"


def test_int8_saves_memory_in_the_accepted_result():
    rows = _accepted(FOLDER / "whisper_compute_type" / "experiment.yaml")["trials"]
    ratio = {
        (row["configuration"]["compute_type"], row["configuration"]["beam_size"]): row[
            "peak_memory_ratio"
        ]
        for row in rows
    }
    assert all(ratio["int8", beam] < ratio["float32", beam] for beam in (1, 5))


def _models(spec: SweepSpec) -> list[str]:
    named = [*spec.grid.get("model", ())]
    return [*named, spec.fixed["model"]] if "model" in spec.fixed else named
