"""Language models: caches to the byte, and every measured peak predicted from its facts."""

from __future__ import annotations

import json
import statistics
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.errors import UnknownOption
from workbench.memory.estimate import estimate
from workbench.memory.estimate.kv_cache import CacheLayer, config_layers, gguf_layers
from workbench.memory.estimate.llama_cpp import graph_bytes, kv_cache_bytes
from workbench.memory.estimate.transformers import cache_bytes
from workbench.memory.facts import ModelFacts
from workbench.memory.machine import Machine
from workbench.memory.request import LoadOptions, RequestSize
from workbench.memory.terms import Estimate
from workbench.project import project_root

MIB = 2**20
FOLDER = project_root() / "benchmarks" / "memory"


class Row(NamedTuple):
    """One measured case."""

    facts: ModelFacts
    options: LoadOptions
    size: RequestSize
    measured: dict[str, Any]

    def estimate(self, **changes: Any) -> Estimate:
        """The prediction for it, or for a request or a context that differs from it."""
        context = {"context_tokens"} & changes.keys()
        options = replace(self.options, **{key: changes.pop(key) for key in context})
        machine = Machine(context_bytes={self.facts.engine: self.measured["context_bytes"]})
        return estimate(self.facts, options, replace(self.size, **changes), machine)

    @property
    def error(self) -> float:
        return self.estimate().peak_bytes / self.measured["peak_bytes"] - 1


@cache
def rows() -> dict[str, Row]:
    found = {}
    files = [FOLDER / "golden" / f"{name}.json" for name in ("language", "starters")]
    for file in filter(Path.is_file, files):
        for case, row in json.loads(file.read_text(encoding="utf-8")).items():
            facts = ModelFacts.model_validate(row["facts"])
            if facts.task in ("chat", "embedding"):
                options, size = LoadOptions(**row["options"]), RequestSize(**row["size"])
                found[case] = Row(facts, options, size, row["measured"])
    return found


def held_out() -> set[str]:
    cases = yaml.safe_load((FOLDER / "cases" / "language.yaml").read_text(encoding="utf-8"))
    return {case["id"] for case in cases if case.get("held_out")} & rows().keys()


#: Cases whose bound holds and whose median is known to be off, and why.
OFF = {"hf-llama-int8": "torchao does not touch all of the mapped file while it loads"}


@pytest.mark.parametrize("case", rows())
def test_the_measured_peak_is_below_the_bound_and_near_the_median(case: str):
    row = rows()[case]
    found = row.estimate()
    measured = row.measured["peak_bytes"]
    assert found.upper_bytes >= measured
    assert found.upper_bytes <= 1.3 * measured
    if found.is_known and case not in OFF:
        assert -0.03 <= row.error <= 0.12
    assert all(term.size_bytes <= term.upper_bytes for term in found.resident)


@pytest.mark.parametrize("part", ["fitted", "held out"])
def test_the_typical_error_is_small(part: str):
    chosen = held_out() if part == "held out" else rows().keys() - held_out()
    known = [case for case in chosen if rows()[case].estimate().is_known]
    errors = sorted(abs(rows()[case].error) for case in known)
    assert len(errors) >= 5
    assert statistics.median(errors) <= 0.05
    assert errors[int(0.95 * len(errors))] <= 0.12


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_a_larger_request_never_takes_less(data: st.DataObject):
    row = rows()[data.draw(st.sampled_from(sorted(rows())))]
    key = data.draw(st.sampled_from(["prompt_tokens", "batch", "context_tokens"]))
    sizes = st.integers(256, 65536) if key != "batch" else st.integers(1, 32)
    less, more = sorted((data.draw(sizes), data.draw(sizes)))
    small, large = row.estimate(**{key: less}), row.estimate(**{key: more})
    assert small.peak_bytes <= large.peak_bytes
    assert small.upper_bytes <= large.upper_bytes


def gguf(architecture: str, **numbers: Any) -> dict[str, Any]:
    """Metadata of a GGUF file; ``__`` stands for a dot."""
    return {"general.architecture": architecture} | {
        f"{architecture}.{key.replace('__', '.')}": value for key, value in numbers.items()
    }


MISTRAL_SMALL = gguf(
    "llama", block_count=56, embedding_length=6144, attention__head_count=48,
    attention__head_count_kv=8, attention__key_length=128, attention__value_length=128,
)  # fmt: skip
QWEN_7B = gguf(
    "qwen2", block_count=32, embedding_length=4096, attention__head_count=32,
    attention__head_count_kv=32,
)  # fmt: skip
GEMMA_2 = gguf(
    "gemma2", block_count=4, embedding_length=2304, attention__head_count=8,
    attention__head_count_kv=4, attention__key_length=256, attention__value_length=256,
    attention__sliding_window=4096,
)  # fmt: skip
GEMMA_3 = GEMMA_2 | gguf(
    "gemma3", block_count=7, embedding_length=2560, attention__head_count=8,
    attention__head_count_kv=4, attention__key_length=256, attention__value_length=256,
    attention__sliding_window=1024,
)  # fmt: skip
DEEPSEEK_2 = gguf(
    "deepseek2", block_count=2, embedding_length=5120, attention__head_count=128,
    attention__head_count_kv=1, attention__kv_lora_rank=512, attention__key_length=576,
    attention__value_length=512, attention__key_length_mla=192, rope__dimension_count=64,
)  # fmt: skip
MAMBA = gguf(
    "mamba", block_count=4, embedding_length=2048, attention__head_count=0,
    ssm__conv_kernel=4, ssm__inner_size=4096, ssm__state_size=16,
)  # fmt: skip
LFM_2 = gguf(
    "lfm2", block_count=4, embedding_length=2048, attention__head_count=32,
    attention__head_count_kv=[0, 0, 8, 0], shortconv__l_cache=3,
)  # fmt: skip
GPT_OSS = gguf(
    "gpt-oss", block_count=2, embedding_length=2880, attention__head_count=64,
    attention__head_count_kv=8, attention__key_length=64, attention__sliding_window=128,
)  # fmt: skip


@pytest.mark.parametrize(
    ("facts", "context", "cache_type", "expected"),
    [
        # published figures
        (MISTRAL_SMALL, 49152, "q8_0", 5712 * MIB),
        (QWEN_7B, 16384, "f16", 8192 * MIB),
        # llama.cpp's own log for files with these headers: "llama_kv_cache: size = ..."
        (GEMMA_2, 8192, "f16", (2 * 32 + 2 * 18) * MIB),
        (GEMMA_3, 8192, "f16", (32 + 6 * 6) * MIB),
        (DEEPSEEK_2, 4096, "f16", 9 * MIB),
        (MAMBA, 4096, "f16", round(1.1875 * MIB)),
        (LFM_2, 4096, "f16", 8 * MIB + 3 * 2048 * 2 * 4),
        # a context is rounded up to 256, a window holds a batch of 512 too
        (QWEN_7B, 1000, "q4_0", 32 * 2 * 4096 * 1024 * 18 // 32),
        (GPT_OSS, 4096, "f16", 2 * 8 * 64 * 2 * (4096 + 768)),
    ],
)
def test_the_cache_of_a_gguf_model_is_exact(
    facts: dict[str, Any], context: int, cache_type: str, expected: int
):
    assert kv_cache_bytes(facts, context, cache_type) == expected


def test_an_array_says_which_blocks_slide():
    pattern = [True, True, False, True]
    facts = GEMMA_2 | {"gemma2.attention.sliding_window_pattern": pattern}
    assert [layer.window for layer in gguf_layers(facts)] == [4096, 4096, None, 4096]
    # Llama files may name a window, which llama.cpp does not use
    mistral = MISTRAL_SMALL | {"llama.attention.sliding_window": 4096}
    assert {layer.window for layer in gguf_layers(mistral)} == {None}


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (
            {"num_hidden_layers": 2, "hidden_size": 64, "num_attention_heads": 4},
            [CacheLayer(128)] * 2,
        ),
        (
            {
                "num_hidden_layers": 2,
                "hidden_size": 64,
                "num_attention_heads": 4,
                "num_key_value_heads": 2,
                "head_dim": 32,
                "sliding_window": 9,
                "layer_types": ["sliding_attention", "full_attention"],
            },
            [CacheLayer(128, 9), CacheLayer(128)],
        ),
        (
            {
                "num_hidden_layers": 1,
                "hidden_size": 2048,
                "num_attention_heads": 16,
                "kv_lora_rank": 512,
                "qk_rope_head_dim": 64,
            },
            [CacheLayer(576)],
        ),
        (
            {"num_hidden_layers": 1, "hidden_size": 64, "state_size": 16, "conv_kernel": 4},
            [CacheLayer(state_values=128 * 20)],
        ),
        (
            {
                "num_hidden_layers": 1,
                "hidden_size": 64,
                "num_attention_heads": 4,
                "sliding_window": 9,
                "use_sliding_window": False,
            },
            [CacheLayer(128)],
        ),
    ],
)
def test_the_cache_of_a_checkpoint(config: dict[str, Any], expected: list[CacheLayer]):
    assert config_layers(config) == expected


def test_qwen_7b_in_transformers_has_the_published_cache():
    config = {"num_hidden_layers": 32, "hidden_size": 4096, "num_attention_heads": 32}
    assert cache_bytes(config_layers(config), 16384, 1, 2) == 8192 * MIB


@pytest.mark.parametrize(
    ("config", "context", "logged_mib"),
    [
        # "CPU compute buffer size" in llama.cpp's log, at a full context
        (
            gguf(
                "llama", block_count=2, embedding_length=2048, feed_forward_length=8192,
                attention__head_count=32, attention__key_length=64, attention__head_count_kv=8,
            ),
            4096,
            72.02,
        ),
        (GEMMA_3 | {"gemma3.feed_forward_length": 10240}, 8192, 94.53),
        (DEEPSEEK_2 | {"deepseek2.feed_forward_length": 12288}, 4096, 390.01),
        (MAMBA, 4096, 60.30),
    ],
)  # fmt: skip
def test_the_graph_is_as_large_as_llama_cpp_logs(
    config: dict[str, Any], context: int, logged_mib: float
):
    assert graph_bytes(config, context, context) / MIB == pytest.approx(logged_mib, rel=0.01)


def split(layers: int | None) -> Estimate:
    row = rows()["gguf-qwen2-q8_0"]
    options = LoadOptions(device="cuda", gpu_layers=layers)
    machine = Machine(context_bytes={"llama_cpp": 50 * MIB, "llama_cpp@cuda": 300 * MIB})
    return estimate(row.facts, options, row.size, machine)


def test_layers_are_split_between_the_device_and_the_host():
    weights = rows()["gguf-qwen2-q8_0"].facts.weights_bytes
    for layers in (0, 1, 2, 3, None):
        found = split(layers)
        host = {term.name: term.size_bytes for term in found.host}
        assert found.term("weights") + host["weights"] == weights
        assert found.term("kv_cache") + host["kv_cache"] == 16 * MIB
    assert split(0).term("weights") == 0
    assert split(3) == split(None)
    assert split(2).term("kv_cache") == 8 * MIB


def test_an_unknown_architecture_has_a_wide_bound():
    row = rows()["hf-llama-bf16"]
    component = row.facts.components[0].model_copy(update={"config": {"model_type": "new"}})
    facts = row.facts.model_copy(update={"components": (component,)})
    found = estimate(facts, row.options, row.size, Machine())
    assert not found.is_known
    assert row.estimate().is_known


def test_layers_on_a_cpu_are_refused():
    from workbench.memory.matrix import check

    with pytest.raises(UnknownOption, match="the device is the CPU"):
        check("m", "llama_cpp", "chat", LoadOptions(gpu_layers=4))
