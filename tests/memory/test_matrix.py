"""The compatibility matrix: what it allows, in which order, and the reasons of what it refuses."""

from __future__ import annotations

from dataclasses import replace

import pytest

from workbench.engines.registry import ENGINES
from workbench.errors import UnknownOption
from workbench.memory.matrix import SUPPORT, candidates, check, is_proven, why_not
from workbench.memory.request import LoadOptions

CASES = [(engine, task, device) for engine, device in SUPPORT for task in ENGINES[engine].tasks]


@pytest.mark.parametrize(("engine", "task", "device"), CASES)
def test_candidates_are_allowed_different_and_begin_with_all_resident(engine, task, device):
    found = list(candidates(engine, task, device))
    assert found
    assert len(set(found)) == len(found)
    assert all(why_not(engine, task, options) is None for options in found)
    assert all(options.device == device for options in found)
    first = found[0]
    assert (first.offload, first.quantization) == ("none", None)
    assert not first.vae_tiling and not first.vae_slicing
    assert first.compute_type in (None, "float32")


@pytest.mark.parametrize(("engine", "task", "device"), CASES)
def test_what_costs_only_time_comes_before_what_costs_quality(engine, task, device):
    support = SUPPORT[engine, device]
    found = list(candidates(engine, task, device))
    losses = [
        (
            (None, *support.quantizations).index(options.quantization),
            (*support.compute_types, None).index(options.compute_type),
        )
        for options in found
    ]
    assert losses == sorted(losses)


@pytest.mark.parametrize("engine", ENGINES)
def test_an_engine_that_chooses_everything_itself_is_allowed(engine):
    for task in ENGINES[engine].tasks:
        assert why_not(engine, task, LoadOptions()) is None
        assert list(candidates(engine, task, "cpu"))


def test_only_what_was_run_is_proven():
    assert is_proven("diffusers", "cpu")
    assert not is_proven("diffusers", "cuda:1")
    assert not is_proven("nothing", "cpu")


def _cuda(**options) -> LoadOptions:
    return LoadOptions(device="cuda:0", **options)


@pytest.mark.parametrize(
    ("engine", "options", "reason"),
    [
        ("diffusers", LoadOptions(compute_type="float16"), "5 times as long"),
        ("diffusers", LoadOptions(compute_type="float64"), "it has float32, bfloat16"),
        ("diffusers", LoadOptions(quantization="nf4"), "on a GPU only"),
        ("diffusers", LoadOptions(quantization="int4"), "cannot quantize to int4"),
        ("diffusers", LoadOptions(offload="model"), "both are the same memory"),
        ("diffusers", LoadOptions(offload="sequential"), "both are the same memory"),
        ("diffusers", LoadOptions(offload="group"), "both are the same memory"),
        ("diffusers", LoadOptions(offload="group_stream"), "both are the same memory"),
        ("diffusers", LoadOptions(offload="disk", quantization="fp8"), "are not quantized"),
        ("diffusers", LoadOptions(context_tokens=9), "no context length"),
        ("diffusers", LoadOptions(device="tpu"), "no device 'tpu'"),
        ("diffusers", _cuda(offload="sequential", quantization="int8"), "loses what torchao"),
        ("diffusers", _cuda(offload="group", quantization="nf4"), "does not move"),
        ("transformers", LoadOptions(quantization="fp8"), "cannot quantize to fp8"),
        ("transformers", LoadOptions(vae_slicing=True), "no picture decoder"),
        ("transformers", _cuda(quantization="int4", compute_type="float16"), "bfloat16 only"),
        ("transformers", _cuda(offload="model"), "has no model offload"),
        ("llama_cpp", LoadOptions(compute_type="float16"), "file is fixed"),
        ("llama_cpp", LoadOptions(gpu_layers=9), "the device is the CPU"),
        ("llama_cpp", LoadOptions(offload="disk"), "has no disk offload"),
        ("ctranslate2", LoadOptions(cache_type="q4_0"), "no choice of cache type"),
        ("ctranslate2", LoadOptions(compute_type="int16"), "no compute type 'int16'"),
    ],
)
def test_a_refusal_says_why(engine, options, reason):
    task = ENGINES[engine].tasks[0]
    found = why_not(engine, task, options)
    assert found is not None and reason in found
    assert "\n" not in found
    with pytest.raises(UnknownOption, match="^my-model cannot be loaded so: "):
        check("my-model", engine, task, options)


@pytest.mark.parametrize(
    ("engine", "options"),
    [
        ("diffusers", _cuda(offload="model", quantization="nf4")),
        ("diffusers", _cuda(offload="group_stream", quantization="int8")),
        ("diffusers", LoadOptions(offload="disk", compute_type="bfloat16", vae_tiling=True)),
        ("transformers", LoadOptions(quantization="nf4", compute_type="bfloat16")),
        ("llama_cpp", _cuda(gpu_layers=9, cache_type="q8_0")),
        ("llama_cpp", LoadOptions(gpu_layers=0, context_tokens=512)),
    ],
)
def test_what_works_together(engine, options):
    assert why_not(engine, ENGINES[engine].tasks[0], options) is None


def test_an_embedding_model_is_no_picture_model():
    options = LoadOptions(vae_tiling=True)
    assert why_not("diffusers", "image", options) is None
    assert why_not("transformers", "embedding", options) is not None
    assert why_not("transformers", "embedding", replace(options, vae_tiling=False)) is None
