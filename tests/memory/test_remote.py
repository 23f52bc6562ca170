"""Facts of a model that is not here: ranges only, and no server is believed."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from tests.servers.model_hub import Ranges, model_hub
from workbench.errors import SourceUnreachable, UserInputError
from workbench.memory.facts import read_facts
from workbench.memory.remote_facts import read_remote_facts
from workbench.models.spec import ModelSpec

REPO = "org/tiny"
MIB = 2**20


def spec_of(engine: str = "transformers", **source: object) -> ModelSpec:
    return ModelSpec.model_validate(
        {
            "id": "tiny",
            "title": "tiny",
            "task": "chat",
            "engine": engine,
            "licence": "none",
            "sources": [{"kind": "hub", "repo": REPO, **source}],
        }
    )


def gguf(facts: dict[str, str], weights: bytes) -> bytes:
    """A GGUF v3 file without a table of tensors."""
    body = b"GGUF" + struct.pack("<IQQ", 3, 0, len(facts))
    for key, value in facts.items():
        body += struct.pack("<Q", len(key)) + key.encode()
        body += struct.pack("<IQ", 8, len(value)) + value.encode()
    return body + weights


def weights(rows: int, name: str = "layer.weight") -> bytes:
    return save({name: np.zeros((rows, 64), np.float16), "bias": np.zeros(64, np.float32)})


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch):
    """Serve files as the hub of this process."""
    from contextlib import contextmanager

    @contextmanager
    def serve(files: dict[str, bytes], ranges: Ranges = "kept"):
        with model_hub(REPO, files, ranges) as (endpoint, asked):
            monkeypatch.setenv("HF_ENDPOINT", endpoint)
            monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
            yield asked

    return serve


MODEL = {
    "config.json": json.dumps({"model_type": "llama", "hidden_size": 64}).encode(),
    "model.safetensors": weights(1000),
}


def test_facts_from_afar_are_those_of_the_files(hub, tmp_path: Path):
    for name, data in MODEL.items():
        (tmp_path / name).write_bytes(data)
    with hub(MODEL) as asked:
        found = read_remote_facts(spec_of())
    here = read_facts(spec_of(), tmp_path)
    assert found.components[0].weights.bytes_by_kind == here.components[0].weights.bytes_by_kind
    assert found.components[0].config == here.components[0].config
    assert found.components[0].architecture == "llama"
    assert sum("model.safetensors" in line for line in asked) == 2


def test_shards_are_those_of_the_index(hub):
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    files = {
        "model.safetensors.index.json": json.dumps(index).encode(),
        "model-1.safetensors": weights(10),
        "model-2.safetensors": weights(20),
        "other.safetensors": weights(5000),
    }
    with hub(files):
        found = read_remote_facts(spec_of()).components[0]
    assert found.weights.bytes_by_dtype == {"F16": 30 * 64 * 2, "F32": 2 * 64 * 4}
    with hub(
        {**files, "model.safetensors.index.json": b'{"weight_map": {"a": "gone.safetensors"}}'}
    ):
        with pytest.raises(UserInputError, match=r"gone\.safetensors is listed"):
            read_remote_facts(spec_of())


def test_a_pipeline_has_its_parts_in_the_loaded_variant(hub):
    index = {"_class_name": "P", "unet": ["diffusers", "U"], "scheduler": ["diffusers", "S"]}
    files = {
        "model_index.json": json.dumps(index).encode(),
        "unet/config.json": b'{"_class_name": "UNet2DConditionModel"}',
        "unet/diffusion_pytorch_model.safetensors": weights(99),
        "unet/diffusion_pytorch_model.fp16.safetensors": weights(10),
        "scheduler/scheduler_config.json": b"{}",
    }
    with hub(files):
        found = read_remote_facts(spec_of("diffusers"))
    assert [part.name for part in found.components] == ["unet"]
    assert found.component("unet").architecture == "UNet2DConditionModel"
    assert found.component("unet").weights.bytes_by_dtype["F16"] == 10 * 64 * 2


def test_a_gguf_is_read_until_its_header_ends(hub):
    facts = {"general.architecture": "llama", "note": "x" * (2 * MIB), "general.name": "m"}
    data = gguf(facts, b"w" * (6 * MIB))
    with hub({"m.gguf": data, "other.gguf": data}) as asked:
        with pytest.raises(UserInputError, match="has 2 GGUF files"):
            read_remote_facts(spec_of("llama_cpp"))
        found = read_remote_facts(spec_of("llama_cpp", files={"m.gguf": "m.gguf"}))
    assert found.components[0].config["general.name"] == "m"
    assert sum("m.gguf" in line for line in asked) == 2


@pytest.mark.parametrize(
    ("ranges", "why"),
    [
        ("ignored", "does not answer to byte ranges"),
        ("shifted", "instead of 0-7"),
        ("wrong length", "header claims"),
        ("unreadable", "Content-Range cannot be read"),
        ("cut off", "broke off|of 8 bytes"),
        ("too long", "more than 8 bytes"),
    ],
)
def test_a_server_that_lies_is_named(hub, ranges: Ranges, why: str):
    data = {"model.safetensors": weights(1)}
    if ranges == "wrong length":  # so that the header no longer fits
        data = {"model.safetensors": struct.pack("<Q", 900) + b" " * 1000}
    with hub(data, ranges):
        with pytest.raises((SourceUnreachable, UserInputError), match=why):
            read_remote_facts(spec_of())


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"123", "shorter than its header"),
        (struct.pack("<Q", 10**15) + b"{}", "header claims"),
        (struct.pack("<Q", 2) + b"[]", "not a JSON object"),
        (weights(100)[:-50], "its tensors end"),
    ],
)
def test_broken_weights_are_named(hub, data: bytes, why: str):
    with hub({"model.safetensors": data}):
        with pytest.raises(UserInputError, match=why):
            read_remote_facts(spec_of())


def test_weights_that_cannot_be_read_from_afar(hub):
    with hub({"model.bin": b"x", "config.json": b"{}"}):
        with pytest.raises(UserInputError, match="spread over the whole file"):
            read_remote_facts(spec_of())
    with hub({"pytorch_model.pt": b"x"}):
        with pytest.raises(UserInputError, match="no safe weights"):
            read_remote_facts(spec_of())


def test_offline_and_no_hub_are_said(hub, monkeypatch: pytest.MonkeyPatch):
    with hub(MODEL) as asked:
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
        with pytest.raises(SourceUnreachable, match="offline is set"):
            read_remote_facts(spec_of())
        assert not asked
    monkeypatch.delenv("HF_HUB_OFFLINE")
    with pytest.raises(SourceUnreachable, match="cannot be reached"):
        read_remote_facts(spec_of())  # that server is gone
    local = ModelSpec.model_validate(
        {**spec_of().model_dump(), "sources": [{"kind": "local", "path": "/x"}]}
    )
    with pytest.raises(SourceUnreachable, match="no hub repository"):
        read_remote_facts(local)
