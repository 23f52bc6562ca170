"""The what-if panel and the history of memory: what they show, and for which models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr
import pytest

from apps.memory_history import history_chart, history_table
from apps.page import Page, Words
from apps.plan_panel import AS_USUAL, BEST, PlanPanel, precisions
from workbench.memory.history import History, Observation

MIB = 2**20


@pytest.fixture
def panel() -> PlanPanel:
    with gr.Blocks():
        page = Page(Words("en"), local=True)
        page.language = gr.Radio(["en", "vi"], value="en")
        return PlanPanel(page)


def ask(panel: PlanPanel, memory: str, precision: str = AS_USUAL, **changes: float) -> list[Any]:
    """The panel's answer for the image starter, which is part of the project."""
    numbers = {"context": 4096, "minutes": 1, "side": 32, "batch": 1, **changes}
    status, picture, terms = panel.show_plan(
        "shapes-32", memory, precision, *numbers.values(), "en"
    )
    return [status, picture["value"], terms]


def test_a_plan_is_a_verdict_a_picture_and_terms(panel: PlanPanel) -> None:
    status, picture, terms = ask(panel, "4GiB")
    assert "shapes-32 fits" in status
    assert 'role="img"' in picture and "weights" in picture
    assert "context" in [row[0] for row in terms["value"]["data"]]


def test_what_does_not_fit_says_what_would(panel: PlanPanel) -> None:
    status, picture, _ = ask(panel, "550MiB", batch=16)
    assert "wb-error" in status and "does not fit" in status
    assert "<li>" in picture


def test_the_best_way_is_no_worse_than_the_usual_one(panel: PlanPanel) -> None:
    usual, best = ask(panel, "4GiB")[0], ask(panel, "4GiB", BEST)[0]
    assert "fits" in usual and "fits" in best


@pytest.mark.parametrize("memory", ["12", "-1GiB", "much"])
def test_nonsense_is_said_and_nothing_is_shown(panel: PlanPanel, memory: str) -> None:
    status, picture, _ = ask(panel, memory)
    assert "wb-error" in status
    assert picture == ""


@pytest.mark.parametrize(
    ("model", "shown"),
    [
        ("qwen2.5-coder-0.5b", ["context"]),
        ("whisper-base", ["minutes"]),
        ("shapes-32", ["side", "batch"]),
        ("minilm-l6", ["batch"]),
    ],
)
def test_only_sliders_that_mean_something(panel: PlanPanel, model: str, shown: list[str]) -> None:
    _, *updates = panel.suit(model, "en")
    names = ["context", "minutes", "side", "batch"]
    assert [n for n, u in zip(names, updates, strict=True) if u["visible"]] == shown


@pytest.mark.parametrize("model", ["qwen2.5-coder-0.5b", "whisper-base", "shapes-32"])
def test_ways_to_load_are_those_of_the_matrix(model: str) -> None:
    values = [value for _, value in precisions(model, "vi")]
    assert values[:2] == [AS_USUAL, BEST]
    assert len(values) > 3
    assert len(set(values)) == len(values)


def test_no_history_says_how_to_make_one(home: Path) -> None:
    assert "No run yet" in history_chart("en")
    assert history_table("en")["data"] == []


def test_the_history_shows_each_run_and_how_far_off_it_was(home: Path) -> None:
    run = Observation(
        model="<b>",
        family="f",
        device="cpu",
        options={"compute_type": "int8", "device": "cpu", "offload": "none"},
        size={},
        terms={"context": 0, "weights": 0, "dynamic": 0},
        predicted_bytes=100 * MIB,
        upper_bytes=110 * MIB,
        measured_bytes=105 * MIB,
        method="VmHWM",
    )
    History().add(run)
    chart = history_chart("en")
    assert chart.count("<circle") == 1
    assert "<b>" not in chart
    assert "1 of 1 runs" in chart
    ((_, model, how, *_, off),) = history_table("en")["data"]
    assert (model, how, off) == ("<b>", "int8", "+5.0 %")
