"""Ranking: what fits first, then time, then quality; whatever the order they are found in."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.memory.facts_of import ALL, GIB, H100, facts, flux, llama_8b, part, qwen_7b
from workbench.errors import UnknownOption
from workbench.memory import search
from workbench.memory.cost import PredictedTime
from workbench.memory.devices import Budget
from workbench.memory.facts import ModelFacts
from workbench.memory.matrix import why_not
from workbench.memory.plan import plan_model, rank_plans
from workbench.memory.request import LoadOptions, RequestSize
from workbench.memory.search import TIME_BAND, Weighed, ranked
from workbench.memory.terms import Estimate, Phase, exact

HOST = Budget("cpu", 200 * GIB, "host")
PUBLISHED_GB = {"none": 33.9, "model": 22.6, "group_stream": 12.5, "group": 11.7, "sequential": 2.4}


def estimate_of(size_bytes: int) -> Estimate:
    phase = Phase(name="run", terms=(exact("weights", size_bytes, "test"),))
    return Estimate(family="test", resident=(), phases=(phase,))


def weighed(seconds: float, grade: int, size_bytes: int, number: int, available: int) -> Weighed:
    found = estimate_of(size_bytes)
    return Weighed(
        options=LoadOptions(threads=number + 1),
        size=RequestSize(),
        raw=found,
        found=found,
        time=PredictedTime(seconds=seconds, phases={}, request="", provenance=""),
        loss=(grade, 0, 0),
        missing_bytes=max(0, size_bytes - available),
        host_missing_bytes=0,
    )


def candidates_of(rows: list[tuple[float, int, int]], available: int) -> list[Weighed]:
    return [weighed(*row, number, available) for number, row in enumerate(rows)]


ROWS = st.lists(
    st.tuples(st.floats(0.01, 100), st.integers(0, 3), st.integers(0, 100)),
    min_size=1,
    max_size=30,
)


@given(rows=ROWS, available=st.integers(0, 100), data=st.data())
def test_the_order_is_total_and_does_not_depend_on_how_they_were_found(
    rows: list[tuple[float, int, int]], available: int, data: st.DataObject
):
    found = candidates_of(rows, available)
    order = ranked(found)
    assert order == ranked(data.draw(st.permutations(found)))
    assert sorted(map(repr, order)) == sorted(map(repr, found))
    fits = [c.fits for c in order]
    assert fits == sorted(fits, reverse=True)


@given(rows=ROWS, available=st.integers(0, 100))
def test_the_first_is_near_the_fastest_and_the_best_of_those(
    rows: list[tuple[float, int, int]], available: int
):
    order = ranked(candidates_of(rows, available))
    fitting = [c for c in order if c.fits]
    if not fitting:
        assert order[0].missing_bytes == min(c.missing_bytes for c in order)
        return
    fastest = min(c.time.seconds for c in fitting)
    first = order[0]
    assert first.time.seconds <= fastest * TIME_BAND
    near = [c for c in fitting if c.time.seconds <= fastest * TIME_BAND]
    assert first.loss == min(c.loss for c in near)


@given(rows=ROWS, available=st.integers(0, 100), more=st.integers(0, 100))
def test_more_memory_never_makes_the_choice_slower(
    rows: list[tuple[float, int, int]], available: int, more: int
):
    before = ranked(candidates_of(rows, available))[0]
    after = ranked(candidates_of(rows, available + more))[0]
    if not before.fits:
        return
    assert after.fits
    slower = after.time.seconds > before.time.seconds
    # only for quality, and by no more than the band
    assert not slower or (
        after.loss < before.loss and after.time.seconds <= TIME_BAND * before.time.seconds
    )


def test_a_tenth_of_time_is_worth_less_than_precision():
    near, far = (
        candidates_of([(10.0, 2, 1), (other, 0, 1)], available=100) for other in (10.9, 11.2)
    )
    assert ranked(near)[0].loss[0] == 0
    assert ranked(far)[0].loss[0] == 2


def test_memory_alone_decides_nothing():
    (large, small) = candidates_of([(1.0, 0, 90), (5.0, 0, 1)], available=100)
    assert ranked([small, large])[0] is large


# -- real models -----------------------------------------------------------------------------

FIXED: list[dict[str, Any]] = [
    {},
    {"compute_type": "bfloat16"},
    {"quantization": "int8"},
    {"offload": "sequential"},
    {"cache_type": "q8_0"},
    {"vae_tiling": True},
    {"context_tokens": 2048},
]


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("model", ALL, ids=lambda model: model.__name__)
@pytest.mark.parametrize("fixed", FIXED, ids=str)
@pytest.mark.parametrize("gib", [1, 12, 64])
def test_every_plan_is_allowed_and_keeps_what_was_fixed(
    model: Any, device: str, fixed: dict[str, Any], gib: int
):
    found = model()
    options = LoadOptions(device=device, **fixed)
    budget = Budget(device, gib * GIB, "test")
    if why_not(found.engine, found.task, options) is not None:
        with pytest.raises(UnknownOption, match="cannot be loaded so"):
            rank_plans(found, budget, options, machine=H100, host=HOST)
        return
    plans = rank_plans(found, budget, options, machine=H100, host=HOST)
    for plan in plans:
        assert why_not(found.engine, found.task, plan.options) is None
        assert all(getattr(plan.options, name) == value for name, value in fixed.items())
        assert plan.options.device == device
    fits = [plan.fits for plan in plans]
    assert fits == sorted(fits, reverse=True)
    assert len({plan.options for plan in plans}) == len(plans)
    again = rank_plans(found, budget, options, machine=H100, host=HOST)
    assert [p.options for p in again] == [p.options for p in plans]


@pytest.mark.parametrize("model", ALL, ids=lambda model: model.__name__)
def test_a_larger_card_is_never_slower(model: Any):
    found = model()
    chosen = [
        rank_plans(
            found,
            Budget("cuda", gib * GIB, "t"),
            LoadOptions(device="cuda"),
            machine=H100,
            host=HOST,
        )[0]
        for gib in (2, 4, 6, 8, 12, 16, 24, 40, 80)
    ]
    for small, large in pairwise(chosen):
        assert large.fits >= small.fits
        if small.fits:
            assert large.time.seconds <= TIME_BAND * small.time.seconds


def test_fields_at_their_default_can_be_fixed_by_name():
    plans = rank_plans(
        flux(),
        Budget("cuda", 80 * GIB, "t"),
        LoadOptions(device="cuda"),
        machine=H100,
        host=HOST,
        fixed=("offload", "quantization"),
    )
    assert {(p.options.offload, p.options.quantization) for p in plans} == {("none", None)}


@pytest.mark.parametrize(
    ("gib", "offloads"),
    [
        (40, {"none"}),
        (24, {"model"}),
        (16, {"group", "group_stream"}),
        (4, {"sequential"}),
    ],
)
def test_flux_of_published_peaks_is_offloaded_as_far_as_it_must(
    gib: int, offloads: set[str], monkeypatch: pytest.MonkeyPatch
):
    """Peaks of diffusers' documentation (33.9, 22.6, 11.7 and 2.4 GB), predicted times."""

    def published(
        facts: ModelFacts, options: LoadOptions, size: RequestSize, machine: Any
    ) -> Estimate:
        return estimate_of(round(PUBLISHED_GB.get(options.offload, 1e6) * 1e9))

    monkeypatch.setattr(search, "estimate", published)
    plans = rank_plans(
        flux(),
        Budget("cuda", gib * GIB, "t"),
        LoadOptions(device="cuda", compute_type="bfloat16"),
        RequestSize(width=1024, height=1024),
        H100,
        host=HOST,
        fixed=("quantization",),
    )
    assert plans[0].fits
    assert plans[0].options.offload in offloads


def test_a_gguf_that_is_too_large_is_split():
    plans = rank_plans(
        qwen_7b(4096), Budget("cuda", 4 * GIB, "t"), LoadOptions(device="cuda"), machine=H100
    )
    layers = plans[0].options.gpu_layers
    assert plans[0].fits
    assert layers is not None and 0 < layers < 28
    one_more = replace(plans[0].options, gpu_layers=layers + 1)
    assert not plan_model(qwen_7b(4096), Budget("cuda", 4 * GIB, "t"), one_more, machine=H100).fits


def test_nothing_is_quantized_that_fits_at_full_precision_in_the_same_time():
    plan = rank_plans(
        llama_8b(),
        Budget("cuda", 80 * GIB, "t"),
        LoadOptions(device="cuda"),
        machine=H100,
        host=HOST,
    )[0]
    assert plan.fits
    assert plan.options.offload == "none"


def test_an_engine_without_candidates_still_has_its_only_way():
    only = facts("chat", "stub", part("model", "unheard-of", 10**6))
    (plan,) = rank_plans(only, Budget("cpu", GIB, "t"))
    assert plan.options == LoadOptions()
    assert not plan.is_known
