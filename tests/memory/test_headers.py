"""Weights from headers: exact on real formats, and never fooled by a broken file."""

from __future__ import annotations

import json
import struct
import tracemalloc
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import workbench
from workbench.errors import UserInputError
from workbench.memory.headers import read_gguf, read_safetensors, read_weights


def write_safetensors(path: Path, **tensors: np.ndarray) -> Path:
    from safetensors.numpy import save_file

    save_file(tensors, path)
    return path


Tensor = tuple[str, tuple[int, ...], int, int]


def gguf_header(facts: dict[str, Any], tensors: Sequence[Tensor] = ()) -> bytes:
    """A GGUF v3 header, padded to where the first tensor begins.

    A tensor is its name, its dimensions (rows first, as ggml has them), type and offset.
    """

    def text(value: str) -> bytes:
        raw = value.encode()
        return struct.pack("<Q", len(raw)) + raw

    body = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(facts))
    for key, value in facts.items():
        body += text(key)
        if isinstance(value, str):
            body += struct.pack("<I", 8) + text(value)
        elif isinstance(value, list):
            body += struct.pack(f"<IIQ{len(value)}i", 9, 5, len(value), *value)
        else:
            body += struct.pack("<II", 4, value)
    for name, shape, kind, offset in tensors:
        body += text(name)
        body += struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)
    return body + b"\0" * (-len(body) % 32)


def gguf_bytes(facts: dict[str, Any], weights: bytes) -> bytes:
    """A minimal GGUF v3 file: the facts as metadata and one tensor of bytes."""
    tensors = [("blk.0.attn_norm.weight", (len(weights),), 24, 0)] if weights else []
    return gguf_header(facts, tensors) + weights


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


def test_gguf_tensors_by_kind_and_what_is_repacked(tmp_path: Path):
    """Offsets and sizes are those of ggml: Q4_0 has 18 bytes for 32 values, Q6_K 210 for 256."""
    tensors: list[Tensor] = [
        ("token_embd.weight", (256, 64), 14, 0),  # Q6_K, looked up and not multiplied with
        ("blk.0.attn_q.weight", (64, 64), 2, 13440),
        ("blk.0.attn_norm.weight", (64,), 0, 15744),
        ("blk.1.ffn_up_exps.weight", (64, 64, 2), 2, 16000),
        ("output.weight", (64, 64), 2, 20608),
    ]
    path = tmp_path / "m.gguf"
    path.write_bytes(gguf_header({"general.architecture": "llama"}, tensors) + bytes(22912))
    header = read_gguf(path)
    assert header.bytes_by_kind == {
        "embedding": {"Q6_K": 13440},
        "linear": {"Q4_0": 2304},
        "other": {"F32": 256},
        "expert": {"Q4_0": 4608},
        "head": {"Q4_0": 2304},
    }
    assert header.weights_bytes == 22912
    assert header.facts["layer_bytes"] == [2560, 4608]
    assert header.facts["repacked_bytes"] == 2304 + 4608 + 2304
    # from the embedding to the norm, the repacked matrix between them included
    assert header.facts["mapped_bytes"] == 16000


def test_gguf_arrays_of_one_number_a_layer_are_kept(tmp_path: Path):
    path = tmp_path / "m.gguf"
    path.write_bytes(gguf_bytes({"lfm2.attention.head_count_kv": [0, 0, 8]}, b"w"))
    assert read_gguf(path).facts["lfm2.attention.head_count_kv"] == [0, 0, 8]


def test_a_changed_file_is_read_anew(tmp_path: Path):
    path = tmp_path / "m.gguf"
    for length in (10, 20):
        path.write_bytes(gguf_bytes({}, b"w" * length))
        assert read_gguf(path).weights_bytes == length


_HEADER = json.dumps({"t": {"dtype": "F32", "shape": [9], "data_offsets": [0, 36]}}).encode()
CUT_OFF_SAFETENSORS = struct.pack("<Q", len(_HEADER)) + _HEADER

_LIE = json.dumps({"t": {"dtype": "F32", "shape": [9], "data_offsets": [0, 8]}}).encode()
LYING_SAFETENSORS = struct.pack("<Q", len(_LIE)) + _LIE + bytes(8)


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
        ("a.gguf", gguf_bytes({"k": 1}, b"w")[:40], "ends inside"),
        (
            "a.gguf",
            gguf_bytes({"k": 1}, b"w" * 99)[:-2],
            "the tensor 'blk.0.attn_norm.weight' ends",
        ),
        ("a.gguf", gguf_header({}, [("t", (33,), 2, 0)]) + bytes(99), "rows of 33 values in Q4_0"),
        ("a.gguf", gguf_header({}, [("t", (1,) * 9, 0, 0)]), "9 dimensions"),
        ("a.gguf", gguf_header({}, [("t", (2**40,), 0, 0)]), "the tensor 't' ends"),
        ("a.safetensors", struct.pack("<Q", 4) + b"[[]]", "not a JSON object"),
        ("a.safetensors", LYING_SAFETENSORS, "does not describe the tensor 't'"),
    ],
)
def test_broken_files_are_named(tmp_path: Path, name: str, data: bytes, message: str):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(UserInputError, match=message):
        read_weights(tmp_path / name)


def test_an_empty_folder_is_named(tmp_path: Path):
    with pytest.raises(UserInputError, match="no weights were found"):
        read_weights(tmp_path)


GOOD = {
    ".gguf": gguf_header(
        {"general.architecture": "llama", "llama.block_count": 2, "llama.layers": [1, 2]},
        [("blk.0.attn_q.weight", (32, 8), 2, 0), ("output.weight", (32, 8), 8, 160)],
    )
    + bytes(432),
    ".safetensors": struct.pack("<Q", 61)
    + json.dumps({"t": {"dtype": "F16", "shape": [1], "data_offsets": [0, 2]}}).encode()
    + b"  ab",
}


def assert_read_or_refused(path: Path) -> None:
    """A file is read, or refused in the project's own words; its claims take no memory."""
    tracemalloc.start()
    try:
        header = read_weights(path)
        assert header.weights_bytes >= 0
        json.dumps(header.facts, allow_nan=False)
    except UserInputError as error:
        assert str(path) in str(error)
    finally:
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert most < 4 * 2**20


@pytest.mark.parametrize("suffix", GOOD)
def test_the_undamaged_file_is_read(tmp_path: Path, suffix: str):
    (tmp_path / f"x{suffix}").write_bytes(GOOD[suffix])
    assert (
        read_weights(tmp_path / f"x{suffix}").weights_bytes
        == {".gguf": 416, ".safetensors": 2}[suffix]
    )


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60
)
@given(st.data())
def test_a_damaged_header_never_crashes(tmp_path: Path, data: st.DataObject):
    suffix = data.draw(st.sampled_from(sorted(GOOD)))
    raw = bytearray(GOOD[suffix])
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / f"x{suffix}"
    path.write_bytes(raw[: data.draw(st.integers(0, len(raw)))])
    assert_read_or_refused(path)


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60
)
@given(suffix=st.sampled_from(sorted(GOOD)), body=st.binary(max_size=300))
def test_random_bytes_never_crash(tmp_path: Path, suffix: str, body: bytes):
    start = b"GGUF" + struct.pack("<I", 3) if suffix == ".gguf" else struct.pack("<Q", len(body))
    path = tmp_path / f"x{suffix}"
    for data in (body, start + body):
        path.write_bytes(data)
        assert_read_or_refused(path)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=12), inner),
    max_leaves=12,
)


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60
)
@given(tensors=st.dictionaries(st.text(max_size=8), JSON, max_size=3))
def test_any_json_is_read_or_refused(tmp_path: Path, tensors: dict[str, object]):
    header = json.dumps(tensors).encode()
    path = tmp_path / "x.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header)
    assert_read_or_refused(path)


@pytest.mark.models
@pytest.mark.parametrize("name", ["qwen2.5-coder-0.5b", "smollm2-135m"])
def test_a_real_gguf_agrees_with_the_gguf_package(name: str):
    gguf = pytest.importorskip("gguf", reason="only a cross-check")
    path = workbench.models.locate(name)
    assert path is not None
    expected = sum(int(tensor.n_bytes) for tensor in gguf.GGUFReader(path).tensors)
    assert read_gguf(path).weights_bytes == expected
