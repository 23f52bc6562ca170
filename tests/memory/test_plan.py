"""The plan: terms add up, the verdict follows the budget, and fixes are named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import workbench
from tests.memory.test_headers import gguf_bytes, write_safetensors
from workbench.errors import ModelMissing, UserInputError
from workbench.memory.devices import Budget, Device, budget, cpu_device
from workbench.memory.plan import plan_model
from workbench.models.spec import LocalSource, ModelSpec

GIB = 2**30
FACTS: dict[str, int | str] = {
    "general.architecture": "llama",
    "llama.block_count": 4,
    "llama.embedding_length": 64,
    "llama.attention.head_count": 4,
    "llama.attention.head_count_kv": 2,
}


def spec_of(path: Path, engine: str = "llama_cpp", **values: object) -> ModelSpec:
    return ModelSpec.model_validate(
        {
            "id": "m",
            "title": "m",
            "task": "chat" if engine == "llama_cpp" else "speech",
            "engine": engine,
            "licence": "none",
            "sources": [LocalSource(kind="local", path=str(path))],
            **values,
        }
    )


@pytest.fixture
def gguf(tmp_path: Path) -> Path:
    path = tmp_path / "m.gguf"
    path.write_bytes(gguf_bytes(FACTS, b"w" * 10**6))
    return path


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(available=st.integers(0, 2 * GIB), context=st.integers(1, 10**6))
def test_the_verdict_follows_the_upper_bound(gguf: Path, available: int, context: int):
    plan = plan_model(spec_of(gguf), gguf, Budget("cpu", available, "test"), context)
    assert plan.fits == (plan.upper_bytes <= available)
    assert plan.peak_bytes == sum(term.size_bytes for term in plan.terms) <= plan.upper_bytes
    assert bool(plan.cheapest_fixes) != plan.fits
    assert len(plan.table().splitlines()) <= 25


def test_a_longer_context_takes_more(gguf: Path):
    plans = [
        plan_model(spec_of(gguf), gguf, Budget("cpu", GIB, "test"), tokens).peak_bytes
        for tokens in (1024, 2048)
    ]
    assert plans[1] - plans[0] == 2 * 4 * 2 * 16 * 1024 * 2


def test_the_compute_type_changes_the_weights(tmp_path: Path):
    write_safetensors(tmp_path / "model.safetensors", a=np.zeros(1000, np.float16))
    spec = spec_of(tmp_path, engine="transformers")
    sizes = {
        dtype: plan_model(spec, tmp_path, Budget("cpu", GIB, "t"), compute_type=dtype)
        .terms[0]
        .size_bytes
        for dtype in ("float32", "bfloat16")
    }
    assert sizes == {"float32": 4000, "bfloat16": 2000}


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


def test_public_plan_refuses_nonsense(write_model, home: Path):
    name = write_model("m", files=[{"name": "x.bin"}], engine="llama_cpp")
    with pytest.raises(ModelMissing):
        workbench.plan(name)
    with pytest.raises(UserInputError, match="at least 1 token"):
        workbench.plan(name, context_tokens=0)
    with pytest.raises(UserInputError, match="not a memory size"):
        (home / "x.bin").write_bytes(b"1")
        workbench.plan(name, memory="12")


@pytest.mark.models
def test_public_plan_of_a_starter():
    assert workbench.plan("qwen2.5-coder-0.5b", "8GiB").fits
    assert not workbench.plan("qwen2.5-coder-0.5b", "100MiB").fits
