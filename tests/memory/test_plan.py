"""The plan: terms add up, the verdict follows the budget, and each fix was planned and fits."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save

import workbench
from tests.memory.facts_of import ALL, GIB, H100, MIB, facts, flux, llama_8b, part, qwen_7b
from tests.memory.test_headers import gguf_bytes
from tests.servers.model_hub import model_hub
from workbench.engines.measure import MeasuredMemory
from workbench.errors import ModelMissing, SourceUnreachable, UnknownOption, UserInputError
from workbench.memory.devices import Budget, Device, budget, cpu_device
from workbench.memory.facts import ModelFacts
from workbench.memory.history import History
from workbench.memory.plan import MemoryPlan, plan_model, rank_plans
from workbench.memory.request import LoadOptions, RequestSize

HOST = Budget("cpu", 200 * GIB, "host")
GGUF: dict[str, int | str] = {
    "general.architecture": "llama",
    "llama.block_count": 4,
    "llama.embedding_length": 64,
    "llama.feed_forward_length": 128,
    "llama.attention.head_count": 4,
    "llama.attention.head_count_kv": 2,
}
KEYS = {"fits", "upper_bytes", "peak_bytes", "phases", "terms", "choices", "cheapest_fixes"}


def on(device: str, size_bytes: int) -> Budget:
    return Budget(device, size_bytes, "test")


def planned(found: ModelFacts, size_bytes: int, device: str = "cpu", **values: Any) -> MemoryPlan:
    options = LoadOptions(device=device, **values.pop("options", {}))
    return plan_model(found, on(device, size_bytes), options, machine=H100, host=HOST, **values)


@pytest.fixture
def local_gguf(write_model: Callable[..., str], home: Path) -> str:
    """A small GGUF as a model of the catalogue."""
    (home / "m.gguf").write_bytes(gguf_bytes(GGUF, b"w" * 10**6))
    return write_model(
        "m", engine="llama_cpp", files=[{"name": "m.gguf"}], main_file="m.gguf",
        context_tokens=65536,
    )  # fmt: skip


# -- the plan itself -------------------------------------------------------------------------


@pytest.mark.parametrize("model", ALL, ids=lambda model: model.__name__)
@given(available=st.integers(0, 64 * GIB), device=st.sampled_from(["cpu", "cuda"]))
@settings(max_examples=20)
def test_the_verdict_follows_the_upper_bound(
    model: Callable[[], ModelFacts], available: int, device: str
):
    plan = planned(model(), available, device)
    assert plan.fits == (plan.upper_bytes <= available)
    assert plan.peak_bytes == sum(term.size_bytes for term in plan.terms) <= plan.upper_bytes
    assert plan.peak_bytes == plan.phases[plan.binding_phase] == max(plan.phases.values())
    assert bool(plan.cheapest_fixes) != plan.fits
    assert len(plan.cheapest_fixes) <= 3
    lines = plan.table().splitlines()
    assert len(lines) <= 25
    assert all(len(line) <= 100 for line in lines)


def test_it_has_the_keys_of_the_interface_and_is_json():
    found = planned(llama_8b(), 64 * GIB).to_dict()
    assert set(found) >= KEYS | {"device", "binding_phase", "time", "is_known", "notes", "options"}
    assert json.loads(json.dumps(found)) == found


def test_an_engine_that_is_imported_costs_its_context_no_second_time():
    first, second = (
        planned(llama_8b(), 64 * GIB, held_engines=held) for held in ((), {"transformers"})
    )
    assert first.peak_bytes - second.peak_bytes == H100.context_bytes["transformers"]
    # the history learns from the whole process all the same
    assert first.estimate == second.estimate


def test_host_memory_is_a_budget_too():
    options = LoadOptions(device="cuda", gpu_layers=10)

    def on_host(size_bytes: int) -> MemoryPlan:
        host = Budget("cpu", size_bytes, "host")
        return plan_model(qwen_7b(), on("cuda", 80 * GIB), options, None, H100, host=host)

    needed = on_host(10**15).host_upper_bytes
    assert needed > 2 * GIB
    assert on_host(needed).fits
    refused = on_host(needed - 1)
    assert not refused.fits
    assert "host memory" in refused.refusal()
    assert refused.cheapest_fixes


def test_an_unknown_architecture_is_said():
    model = facts("chat", "transformers", part("model", "zebra", GIB, model_type="zebra"))
    plan = planned(model, 64 * GIB)
    known = planned(llama_8b(), 64 * GIB)
    assert known.is_known
    assert not plan.is_known
    assert any("'zebra'" in note and "wide" in note for note in plan.notes)
    assert "zebra" in plan.table()
    assert plan.upper_bytes / plan.peak_bytes > known.upper_bytes / known.peak_bytes


def test_a_combination_that_the_matrix_refuses_is_an_error():
    with pytest.raises(UnknownOption, match="cannot be loaded so: .*CPU"):
        planned(llama_8b(), GIB, options={"offload": "model"})


def test_the_html_is_escaped():
    plan = planned(llama_8b(), GIB).model_copy(update={"model": "<script>"})
    assert "<script>" not in plan._repr_html_()
    assert "&lt;script&gt;" in plan._repr_html_()


# -- fixes -----------------------------------------------------------------------------------

REQUESTS = {
    "llama_8b": RequestSize(),
    "qwen_7b": RequestSize(),
    "flux": RequestSize(width=1024, height=1024, batch=4),
    "minilm": RequestSize(batch=64),
}


@pytest.mark.parametrize("model", ALL, ids=lambda model: model.__name__)
@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("share", [0.25, 0.5, 0.8, 0.95])
def test_what_a_fix_says_is_true(model: Callable[[], ModelFacts], device: str, share: float):
    size = REQUESTS[model.__name__]
    whole = planned(model(), 10**15, device, size=size)
    available = round(share * whole.upper_bytes)
    plan = planned(model(), available, device, size=size)
    assert not plan.fits
    assert plan.cheapest_fixes
    for fix in plan.cheapest_fixes:
        options, changed, memory = changes(plan, fix)
        again = plan_model(
            model(), on(device, memory or available), options, changed, H100, host=HOST
        )
        assert again.fits, fix


def test_the_largest_context_that_fits():
    whole = planned(qwen_7b(32768), 10**15).upper_bytes
    plan = planned(qwen_7b(32768), whole - 300 * MIB)
    (fix,) = [fix for fix in plan.cheapest_fixes if fix.startswith("--context")]
    context = int(fix.split()[1])
    for tokens, fits in ((context, True), (context + 256, False)):
        again = planned(qwen_7b(), whole - 300 * MIB, options={"context_tokens": tokens})
        assert again.fits == fits


def test_a_context_is_never_cut_below_the_prompt():
    size = RequestSize(prompt_tokens=30000)
    whole = planned(qwen_7b(), 10**15, size=size).upper_bytes
    plan = planned(qwen_7b(), whole // 2, size=size)
    contexts = [int(f.split()[1]) for f in plan.cheapest_fixes if f.startswith("--context")]
    assert all(context > 30000 for context in contexts)


def test_lossless_fixes_come_before_lossy_ones_that_are_as_fast():
    size = RequestSize(width=1024, height=1024, batch=4)
    whole = planned(flux(), 10**15, "cuda", size=size).upper_bytes
    plan = planned(flux(), whole - MIB, "cuda", size=size)
    assert "--quantization nf4" not in plan.cheapest_fixes[0]


def test_what_no_way_fits_says_how_much_the_smallest_needs():
    plan = rank_plans(flux(), on("cuda", MIB), LoadOptions(device="cuda"), None, H100, host=HOST)[0]
    assert not plan.fits
    assert any("the smallest needs" in note for note in plan.notes)
    assert any(fix.startswith("--memory") for fix in plan.cheapest_fixes)


def changes(plan: MemoryPlan, fix: str) -> tuple[LoadOptions, RequestSize, int | None]:
    """The options, size and memory that the flags of a fix stand for."""
    from dataclasses import replace

    from workbench.units import parse_bytes, parse_size

    words = fix.split(" (", maxsplit=1)[0].split()
    options, size, memory = plan.options, plan.size, None
    while words:
        name = words.pop(0).removeprefix("--")
        if name in ("vae-tiling", "vae-slicing", "no-vae-tiling", "no-vae-slicing"):
            field = name.removeprefix("no-").replace("-", "_")
            options = replace(options, **{field: not name.startswith("no-")})
            continue
        value = words.pop(0)
        if name == "memory":
            memory = parse_bytes(value)
        elif name == "size":
            size = replace(size, **dict(zip(("width", "height"), parse_size(value), strict=True)))
        elif name in ("batch", "beam"):
            size = replace(size, **{{"beam": "beams"}.get(name, name): int(value)})
        elif name in ("context", "gpu-layers"):
            field = {"context": "context_tokens"}.get(name, "gpu_layers")
            options = replace(options, **{field: int(value)})
        else:
            value_or_none = None if value == "none" and name == "quantization" else value
            options = replace(options, **{name.replace("-", "_"): value_or_none})
    return options, size, memory


# -- budgets ---------------------------------------------------------------------------------


def test_the_limit_counts_what_is_held(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("WORKBENCH_MEMORY__LIMIT", "2GiB")
    found = budget(Device("cpu", 64 * GIB, 32 * GIB), planned_bytes=GIB)
    assert found.available_bytes == GIB
    assert "WORKBENCH_MEMORY__LIMIT" in found.reason


def test_the_headroom_is_left(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("WORKBENCH_MEMORY__HEADROOM", "1GiB")
    assert budget(Device("cpu", 4 * GIB, 3 * GIB), 0).available_bytes == 2 * GIB
    assert budget(Device("cpu", 4 * GIB, GIB // 2), 0).available_bytes == 0


def test_this_machine_has_memory():
    device = cpu_device()
    assert 0 < device.free_bytes <= device.total_bytes


# -- the public function ---------------------------------------------------------------------


def test_nothing_fixed_is_what_the_workbench_would_do(local_gguf: str, own_pool):
    plan = workbench.plan(local_gguf)
    assert plan.options == LoadOptions()
    assert plan.upper_bytes == own_pool.plan(workbench.models.get(local_gguf)).upper_bytes
    assert plan.fits


def test_best_keeps_what_is_fixed(local_gguf: str):
    plan = workbench.plan(local_gguf, "8GiB", best=True, cache_type="q4_0")
    assert plan.options.cache_type == "q4_0"
    assert workbench.plan(local_gguf, "8GiB", best=True).options.cache_type == "f16"


def test_a_card_that_is_not_here_is_planned_with_a_budget(local_gguf: str):
    plan = workbench.plan(local_gguf, "8GiB", device="cuda")
    assert (plan.device, plan.options.device) == ("cuda", "cuda")
    assert plan.available_bytes == 8 * GIB
    assert plan.host_available_bytes is not None


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"context_tokens": 0}, "at least 1 token"),
        ({"context_tokens": -5}, "at least 1 token"),
        ({"prompt_tokens": 0}, "at least 1 token"),
        ({"batch": 0}, "at least 1"),
        ({"gpu_layers": -1}, "at least 0"),
        ({"memory": "12"}, "not a memory size"),
        ({"memory": "-1GiB"}, "not a memory size"),
        ({"quantization": "int3"}, "no quantization 'int3'"),
        ({"offload": "far"}, "no offload 'far'"),
        ({"cache_type": "q1"}, "no cache type 'q1'"),
        ({"device": "tpu", "memory": "8GiB"}, "no device 'tpu'"),
        ({"device": "cuda:9"}, "no device 'cuda:9'.*--memory 8GiB"),
        ({"compute_type": "int8"}, "cannot be loaded so"),
        ({"audio_seconds": 60.0}, "audio_seconds says nothing about that"),
        ({"size": "512x512"}, "size says nothing about that"),
        ({"context_tokens": 100, "prompt_tokens": 200}, "longer than the context"),
    ],
)
def test_nonsense_is_refused(local_gguf: str, own_pool, given: dict[str, Any], message: str):
    with pytest.raises(UserInputError, match=message):
        workbench.plan(local_gguf, **given)


def test_a_model_that_is_nowhere(write_model, home: Path):
    name = write_model("m", files=[{"name": "x.bin"}], engine="llama_cpp")
    with pytest.raises(ModelMissing):
        workbench.plan(name)


def test_a_file_is_read_again_only_when_it_changed(
    local_gguf: str, home: Path, monkeypatch: pytest.MonkeyPatch
):
    from workbench.engines import facts as engine_facts

    read = []
    original = engine_facts.read_facts
    monkeypatch.setattr(
        engine_facts, "read_facts", lambda *given: (read.append(given), original(*given))[1]
    )
    before = workbench.plan(local_gguf, "8GiB")
    assert workbench.plan(local_gguf, "8GiB") == before
    assert len(read) == 1
    (home / "m.gguf").write_bytes(gguf_bytes(GGUF, b"w" * 10**7))
    assert workbench.plan(local_gguf, "8GiB").peak_bytes > before.peak_bytes + 8 * 10**6
    assert len(read) == 2


@contextmanager
def hub_of(files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with model_hub("org/tiny", files) as (endpoint, _):
        monkeypatch.setenv("HF_ENDPOINT", endpoint)
        monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
        yield


@pytest.mark.usefixtures("home")
def test_a_hub_model_that_is_not_here_is_planned_from_its_headers(
    monkeypatch: pytest.MonkeyPatch,
):
    config = {"model_type": "llama", "hidden_size": 64, "num_hidden_layers": 1}
    files = {
        "config.json": json.dumps(config).encode(),
        "model.safetensors": save({"layer.weight": np.zeros((4096, 64), np.float16)}),
    }
    with hub_of(files, monkeypatch):
        plan = workbench.plan("org/tiny", "8GiB")
    assert plan.fits
    assert any("on the hub" in note for note in plan.notes)


@pytest.mark.usefixtures("home")
def test_a_hub_file_with_a_header_that_lies(monkeypatch: pytest.MonkeyPatch):
    files = {"config.json": b"{}", "model.safetensors": (10**9).to_bytes(8, "little") + b"{}"}
    with hub_of(files, monkeypatch), pytest.raises(UserInputError):
        workbench.plan("org/tiny", "8GiB")


@pytest.mark.usefixtures("home")
def test_a_hub_that_cannot_be_reached(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises((SourceUnreachable, ModelMissing)):
        workbench.plan("org/tiny", "8GiB")


def test_measuring_keeps_predicted_and_measured(
    local_gguf: str, own_pool, monkeypatch: pytest.MonkeyPatch
):
    from workbench import planning

    taken = MeasuredMemory(
        context_bytes=50 * MIB,
        load_peak_bytes=60 * MIB,
        loaded_bytes=60 * MIB,
        peak_bytes=70 * MIB,
        method="VmHWM",
        size=RequestSize(prompt_tokens=40),
    )
    monkeypatch.setattr(planning, "measure_memory", lambda *args: taken)
    plan = workbench.plan(local_gguf, "8GiB", prompt_tokens=32)
    ran, measured = planning.measure(plan)
    (kept,) = History().observations()
    assert ran.size.prompt_tokens == 40
    assert measured.peak_bytes == kept.measured_bytes == 70 * MIB
    assert kept.predicted_bytes == ran.peak_bytes
    assert kept.terms["context"] == 50 * MIB
    after = workbench.plan(local_gguf, "8GiB", prompt_tokens=32)
    assert any("learned from" in note for note in after.notes)
    assert after.peak_bytes != plan.peak_bytes


def test_another_device_is_not_measured_as_if_it_were_the_cpu(local_gguf: str):
    from workbench.planning import measure

    with pytest.raises(UserInputError, match="Only the CPU"):
        measure(workbench.plan(local_gguf, "8GiB", device="cuda"))


@pytest.mark.models
def test_public_plan_of_a_starter():
    assert workbench.plan("qwen2.5-coder-0.5b", "8GiB").fits
    assert not workbench.plan("qwen2.5-coder-0.5b", "100MiB").fits
