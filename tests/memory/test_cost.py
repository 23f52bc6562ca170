"""The predicted time: a roofline of known numbers, and the published order of Flux's offloads."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.memory.facts_of import ALL, H100, facts, flux, llama_8b, minilm, part, qwen_7b
from workbench.memory.cost import NEW_TOKENS, active_weights, predicted_time
from workbench.memory.machine import Machine
from workbench.memory.request import LoadOptions, RequestSize

#: Bandwidth so small, or compute so small, that the other one is nothing.
SLOW_MEMORY = Machine(bytes_per_second={"cpu": 1e6}, flops={"cpu/float32": 1e20})
SLOW_COMPUTE = Machine(bytes_per_second={"cpu": 1e20}, flops={"cpu/float32": 1e9})
CUDA = LoadOptions(device="cuda", compute_type="bfloat16")


def test_a_token_reads_every_weight_once():
    found = predicted_time(qwen_7b(), LoadOptions(), RequestSize(prompt_tokens=1), SLOW_MEMORY)
    # all but the table, which is looked up
    assert found.phases["decode"] == pytest.approx(NEW_TOKENS * 4_423_000_000 / 1e6)


def test_a_prompt_multiplies_every_weight():
    model = llama_8b()
    options = LoadOptions(compute_type="float32")
    found = predicted_time(model, options, RequestSize(prompt_tokens=100), SLOW_COMPUTE)
    assert found.phases["prefill"] == pytest.approx(2 * 8.03e9 * 100 / 1e9)


def test_a_batch_shares_one_reading_of_the_weights():
    model, options = qwen_7b(), LoadOptions()
    one, four = (
        predicted_time(model, options, RequestSize(prompt_tokens=8, batch=n), SLOW_MEMORY)
        for n in (1, 4)
    )
    assert four.phases["decode"] == pytest.approx(one.phases["decode"])


def test_only_the_chosen_experts_are_met():
    model = part("model", "qwen3moe", 1000, "F16", num_experts=8, num_experts_per_tok=2)
    kinds = {"expert": {"F16": 800}, "linear": {"F16": 100}, "embedding": {"F16": 100}}
    weights = model.weights.model_copy(update={"bytes_by_kind": kinds})
    assert active_weights(model.model_copy(update={"weights": weights})) == 500 - 400 * 0.75


def test_a_table_beside_a_head_is_looked_up_and_not_multiplied():
    model = part("model", "llama", 1000, "F16")
    for kinds, met in (
        ({"embedding": {"F16": 400}, "linear": {"F16": 600}}, 500),  # tied: it is the head too
        ({"embedding": {"F16": 400}, "head": {"F16": 400}, "linear": {"F16": 200}}, 300),
    ):
        weights = model.weights.model_copy(update={"bytes_by_kind": kinds})
        assert active_weights(model.model_copy(update={"weights": weights})) == met


def test_whisper_goes_window_by_window():
    model = facts("speech", "ctranslate2", part("model", "whisper", 10**8, "F16"))
    half, full, two = (
        predicted_time(model, LoadOptions(), RequestSize(audio_seconds=s), H100).seconds
        for s in (15, 30, 60)
    )
    assert half == full
    assert two == pytest.approx(2 * full)


def test_words_and_beams_cost_something():
    model = facts("speech", "ctranslate2", part("model", "whisper", 10**8, "F16"))
    plain = predicted_time(model, LoadOptions(), RequestSize(beams=1), SLOW_COMPUTE).seconds
    for size in (RequestSize(beams=5), RequestSize(beams=1, words=True)):
        assert predicted_time(model, LoadOptions(), size, SLOW_COMPUTE).seconds > plain


def test_the_published_order_of_flux():
    size = RequestSize(width=1024, height=1024)
    seconds = [
        predicted_time(flux(), replace(CUDA, offload=offload), size, H100).seconds
        for offload in ("none", "model", "group", "sequential", "disk")
    ]
    assert seconds == sorted(seconds)
    # resident has nothing to carry, so it is the one that can be compared: 28 steps in 6.6 s
    assert seconds[0] == pytest.approx(6.6 * 20 / 28, rel=0.4)
    # each step down is worth something: twice the time or more from resident to groups
    assert seconds[2] > 2 * seconds[0]


def test_a_stream_hides_copies_behind_the_arithmetic():
    size = RequestSize(width=1024, height=1024)
    times = {
        offload: predicted_time(flux(), replace(CUDA, offload=offload), size, H100).seconds
        for offload in ("none", "group_stream", "group")
    }
    assert times["none"] < times["group_stream"] < times["group"]


def test_layers_on_the_device_make_it_faster():
    seconds = [
        predicted_time(
            qwen_7b(), LoadOptions(device="cuda", gpu_layers=n), RequestSize(), H100
        ).seconds
        for n in (0, 7, 14, 28)
    ]
    assert seconds == sorted(seconds, reverse=True)
    everything = predicted_time(qwen_7b(), LoadOptions(device="cuda"), RequestSize(), H100).seconds
    assert seconds[-1] == pytest.approx(everything)


def test_tiles_overlap():
    size = RequestSize(width=1024, height=1024)
    plain, tiled = (
        predicted_time(flux(), replace(CUDA, vae_tiling=on), size, H100).phases["decode_image"]
        for on in (False, True)
    )
    assert tiled > plain


@pytest.mark.parametrize("model", ALL, ids=lambda model: model.__name__)
@given(tokens=st.integers(1, 8192), batch=st.integers(1, 64))
def test_more_is_never_faster(model, tokens: int, batch: int):
    options = LoadOptions()
    small = predicted_time(model(), options, RequestSize(prompt_tokens=tokens), H100)
    larger = RequestSize(prompt_tokens=tokens + 1, batch=batch)
    large = predicted_time(model(), options, larger, H100)
    assert 0 < small.seconds <= large.seconds
    assert small.seconds == pytest.approx(sum(small.phases.values()))


@pytest.mark.parametrize(
    ("machine", "said"), [(H100, "measured speeds of H100"), (Machine(), "reference speeds")]
)
def test_it_says_how_coarse_it_is(machine: Machine, said: str):
    found = predicted_time(minilm(), LoadOptions(), RequestSize(), machine)
    assert "coarse" in found.provenance
    assert said in found.provenance
