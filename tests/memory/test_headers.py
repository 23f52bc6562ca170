"""Weights from headers: exact on real formats, and never fooled by a broken file."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import workbench
from workbench.errors import UserInputError
from workbench.memory.headers import read_gguf, read_safetensors, read_weights
from workbench.memory.plan import kv_cache_bytes


def write_safetensors(path: Path, **tensors: np.ndarray) -> Path:
    from safetensors.numpy import save_file

    save_file(tensors, path)
    return path


def gguf_bytes(facts: dict[str, int | str], weights: bytes) -> bytes:
    """A minimal GGUF v3 file: the facts as metadata, no tensor table, then the weights."""

    def text(value: str) -> bytes:
        raw = value.encode()
        return struct.pack("<Q", len(raw)) + raw

    body = b"GGUF" + struct.pack("<IQQ", 3, 0, len(facts))
    for key, value in facts.items():
        body += text(key)
        body += (
            struct.pack("<I", 8) + text(value)
            if isinstance(value, str)
            else struct.pack("<II", 4, value)
        )
    return body + weights


def test_safetensors_bytes_are_exact(tmp_path: Path):
    path = write_safetensors(
        tmp_path / "m.safetensors", a=np.zeros((3, 5), np.float32), b=np.zeros(7, np.float16)
    )
    header = read_safetensors(path)
    assert header.weights_bytes == 3 * 5 * 4 + 7 * 2
    assert header.bytes_by_dtype == {"F32": 60, "F16": 14}


def test_a_folder_counts_one_variant(tmp_path: Path):
    write_safetensors(tmp_path / "model.safetensors", a=np.zeros(8, np.float32))
    write_safetensors(tmp_path / "model.fp16.safetensors", a=np.zeros(8, np.float16))
    assert read_weights(tmp_path).weights_bytes == 16


def test_gguf_facts_and_weights(tmp_path: Path):
    path = tmp_path / "m.gguf"
    path.write_bytes(
        gguf_bytes({"general.architecture": "llama", "llama.block_count": 2}, b"w" * 99)
    )
    header = read_gguf(path)
    assert header.weights_bytes == 99
    assert header.facts["llama.block_count"] == 2


def test_kv_cache_of_published_models():
    """Qwen1.5-7B at 16k in float16 is 8192 MiB (a published figure)."""
    facts: dict[str, object] = {
        "general.architecture": "qwen2",
        "qwen2.block_count": 32,
        "qwen2.embedding_length": 4096,
        "qwen2.attention.head_count": 32,
        "qwen2.attention.head_count_kv": 32,
    }
    assert kv_cache_bytes(facts, 16384) == 8192 * 2**20


_HEADER = json.dumps({"t": {"dtype": "F32", "shape": [9], "data_offsets": [0, 36]}}).encode()
CUT_OFF_SAFETENSORS = struct.pack("<Q", len(_HEADER)) + _HEADER


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.safetensors", b"123", "shorter than its header"),
        ("a.safetensors", struct.pack("<Q", 10**12) + b"{}", "header claims"),
        ("a.safetensors", struct.pack("<Q", 2) + b"[[", "not JSON"),
        ("a.safetensors", CUT_OFF_SAFETENSORS, "its tensors end at"),
        ("a.gguf", b"nope", "does not start with GGUF"),
        ("a.gguf", b"GGUF" + struct.pack("<I", 9), "version 9"),
        ("a.gguf", b"GGUF" + struct.pack("<IQQ", 3, 0, 2**60), "claims a length"),
        ("a.gguf", gguf_bytes({"k": 1}, b"")[:-2], "ends inside"),
    ],
)
def test_broken_files_are_named(tmp_path: Path, name: str, data: bytes, message: str):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(UserInputError, match=message):
        read_weights(tmp_path / name)


def test_an_empty_folder_is_named(tmp_path: Path):
    with pytest.raises(UserInputError, match="no weights were found"):
        read_weights(tmp_path)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
@given(st.data())
def test_a_damaged_header_never_crashes(tmp_path: Path, data: st.DataObject):
    good = gguf_bytes({"general.architecture": "llama", "llama.block_count": 2}, b"w" * 10)
    suffix = ".gguf"
    if data.draw(st.booleans()):
        header = json.dumps({"t": {"dtype": "F16", "shape": [1], "data_offsets": [0, 2]}}).encode()
        good, suffix = struct.pack("<Q", len(header)) + header + b"ab", ".safetensors"
    raw = bytearray(good)
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / f"x{suffix}"
    path.write_bytes(raw[: data.draw(st.integers(0, len(raw)))])
    try:
        assert read_weights(path).weights_bytes <= path.stat().st_size
    except UserInputError as error:
        assert str(path) in str(error)


@pytest.mark.models
@pytest.mark.parametrize("name", ["qwen2.5-coder-0.5b", "smollm2-135m"])
def test_a_real_gguf_agrees_with_the_gguf_package(name: str):
    gguf = pytest.importorskip("gguf", reason="only a cross-check")
    path = workbench.models.locate(name)
    assert path is not None
    expected = sum(int(tensor.n_bytes) for tensor in gguf.GGUFReader(path).tensors)
    assert read_gguf(path).weights_bytes == pytest.approx(expected, rel=0.005)
