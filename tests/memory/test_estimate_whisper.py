"""Whisper's memory: the variable table, weights by compute type, caches, phases, golden rows."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import workbench
from workbench.errors import UserInputError
from workbench.memory.estimate import estimate
from workbench.memory.estimate.ctranslate2 import COMPUTE_TYPES, _Whisper, weights_bytes
from workbench.memory.facts import Component, ModelFacts
from workbench.memory.headers import WeightsHeader, read_ctranslate2
from workbench.memory.headers.hash_order import unordered_map_order
from workbench.memory.machine import Machine
from workbench.memory.request import LoadOptions, RequestSize
from workbench.memory.terms import Estimate

MIB = 2**20
GOLDEN = Path("benchmarks/memory/golden/whisper.json")
TYPES = {"F32": (0, 4), "I8": (1, 1), "I16": (2, 2), "I32": (3, 4), "F16": (4, 2), "BF16": (5, 2)}
Variables = dict[str, tuple[tuple[int, ...], str]]
#: A Whisper with one layer a side, width 4, 2 heads, 3 mels, 7 words.
TINY: Variables = {
    "decoder/embeddings/weight": ((7, 4), "F16"),
    "decoder/layer_0/ffn/linear_0/weight": ((8, 4), "F16"),
    "decoder/position_encodings/encodings": ((448, 4), "F16"),
    "encoder/conv1/bias": ((4,), "F16"),
    "encoder/conv1/weight": ((4, 3, 3), "F16"),
    "encoder/layer_0/ffn/linear_0/weight": ((8, 4), "F16"),
    "encoder/num_heads": ((), "I16"),
    "encoder/position_encodings/encodings": ((1500, 4), "F16"),
}


def model_bin(
    variables: Variables, spec: str = "WhisperSpec", aliases: tuple[tuple[str, str], ...] = ()
) -> bytes:
    """A CTranslate2 file; scalars are 2, everything else zeros."""

    def text(value: str) -> bytes:
        return struct.pack("<H", len(value) + 1) + value.encode() + b"\0"

    raw = struct.pack("<I", 6) + text(spec) + struct.pack("<II", 3, len(variables))
    for name, (shape, dtype) in variables.items():
        number, item_bytes = TYPES[dtype]
        size = item_bytes
        for length in shape:
            size *= length
        raw += text(name) + struct.pack(f"<B{len(shape)}I", len(shape), *shape)
        raw += struct.pack("<BI", number, size)
        raw += bytes(size) if shape else (2).to_bytes(size, "little")
    raw += struct.pack("<I", len(aliases))
    return raw + b"".join(text(alias) + text(name) for alias, name in aliases)


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


@pytest.fixture
def header(tmp_path: Path) -> WeightsHeader:
    return read_ctranslate2(write(tmp_path / "model.bin", model_bin(TINY)))


def facts_of(header: WeightsHeader, **options: object) -> ModelFacts:
    model = Component(name="model", architecture="unknown", config={}, weights=header)
    return ModelFacts(
        model="m", task="speech", engine="ctranslate2", components=(model,), options=options
    )


def scaled(**sizes: int) -> WeightsHeader:
    """A header with the sizes of Whisper large-v3, as far as not given."""
    facts: dict[str, object] = {
        "spec": "WhisperSpec", "n_mels": 128, "n_audio_ctx": 1500, "n_state": 1280, "n_head": 20,
        "n_vocab": 51866, "n_text_ctx": 448, "n_ffn": 5120, "n_audio_layer": 32,
        "n_text_layer": 32, "linear_rows": 1000, "embedding_rows": 51866,
        "quantized_first": 0, "cast_first": 0, **sizes,
    }  # fmt: skip
    kinds = {"linear": {"F16": 2_900_000_000}, "embedding": {"F16": 2 * 51866 * 1280}}
    total = sum(sum(kind.values()) for kind in kinds.values())
    return WeightsHeader(weights_bytes=total, facts=facts, bytes_by_kind=kinds)


def predict(header: WeightsHeader, size: RequestSize | None = None, **options: str) -> Estimate:
    given_size = size or RequestSize(vad=False)
    return estimate(facts_of(header), LoadOptions(**options), given_size, Machine())


# -- the variable table ----------------------------------------------------------------------


def test_the_table_is_exact(header: WeightsHeader):
    positions = (448 + 1500) * 4 * 2
    assert header.bytes_by_kind == {
        "embedding": {"F16": 7 * 4 * 2},
        "linear": {"F16": 2 * 8 * 4 * 2},
        "conv": {"F16": 4 * 3 * 3 * 2},
        "other": {"F16": positions + 4 * 2, "I16": 2},
    }
    assert header.weights_bytes == sum(sum(kind.values()) for kind in header.bytes_by_kind.values())
    expected = {"n_mels": 3, "n_state": 4, "n_vocab": 7, "n_head": 2, "n_audio_layer": 1}
    assert expected.items() <= header.facts.items()
    assert (header.facts["linear_rows"], header.facts["embedding_rows"]) == (16, 7)


def test_aliases_are_counted_not_weighed(tmp_path: Path, header: WeightsHeader):
    alias = (("decoder/projection/weight", "decoder/embeddings/weight"),)
    found = read_ctranslate2(write(tmp_path / "a.bin", model_bin(TINY, aliases=alias)))
    assert found.weights_bytes == header.weights_bytes
    assert found.facts["aliases"] == 1


def test_another_architecture_has_no_dimensions(tmp_path: Path):
    variables: Variables = {"encoder/weight": ((3, 2), "I8"), "encoder/weight_scale": ((3,), "F32")}
    found = read_ctranslate2(write(tmp_path / "m.bin", model_bin(variables, "TransformerSpec")))
    assert found.bytes_by_kind == {"linear": {"I8": 6}, "scale": {"F32": 12}}
    assert "n_state" not in found.facts
    unknown = predict(found)
    assert not unknown.is_known
    assert unknown.upper_bytes > unknown.peak_bytes > found.weights_bytes


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "ends inside its table"),
        (struct.pack("<I", 7), "version 7 is not known"),
        (model_bin(TINY)[:-1], "ends inside its table"),
        (model_bin(TINY)[:400], "ends inside"),
        (model_bin(TINY)[:18] + struct.pack("<II", 3, 2**31), "claims 2147483648 variables"),
        (model_bin({"encoder/w": ((2,), "F16")}), "a Whisper without"),
        (model_bin(TINY | {"encoder/num_heads": ((0,), "I16")}), "n_head = 0"),
    ],
)
def test_a_broken_file_is_named(tmp_path: Path, data: bytes, message: str):
    with pytest.raises(UserInputError, match=message):
        read_ctranslate2(write(tmp_path / "m.bin", data))


def test_a_variable_that_lies_about_its_bytes(tmp_path: Path):
    data = model_bin({"w/weight": ((3, 2), "F16")}, "Other")
    at = data.index(struct.pack("<BI", 4, 12))
    with pytest.raises(UserInputError, match="claims 13 bytes"):
        lie = data[:at] + struct.pack("<BI", 4, 13) + data[at + 5 :]
        read_ctranslate2(write(tmp_path / "m.bin", lie))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300)
@given(st.data())
def test_a_damaged_file_never_crashes(tmp_path: Path, data: st.DataObject):
    raw = bytearray(model_bin(TINY, aliases=(("a", "b"),)))
    for _ in range(data.draw(st.integers(0, 4))):
        raw[data.draw(st.integers(0, 300))] = data.draw(st.integers(0, 255))
    path = write(tmp_path / "m.bin", bytes(raw[: data.draw(st.integers(0, len(raw)))]))
    try:
        assert read_ctranslate2(path).weights_bytes <= path.stat().st_size
    except UserInputError as error:
        assert str(path) in str(error)


@pytest.mark.models
@pytest.mark.parametrize("name", ["whisper-base", "whisper-tiny.en"])
def test_a_real_whisper(name: str):
    folder = workbench.models.locate(name)
    assert folder is not None
    found = read_ctranslate2(folder / "model.bin")
    file_bytes = (folder / "model.bin").stat().st_size
    assert found.weights_bytes == pytest.approx(file_bytes, rel=0.001)
    assert found.facts["n_audio_ctx"] == 1500


def test_the_order_is_that_of_libstdcpp():
    """Printed by a program that g++ 12 compiled: 20 names, so it grew once."""
    expected = [14, 15, 13, 10, 16, 3, 5, 2, 4, 19, 6, 17, 7, 8, 0, 1, 9, 18, 11, 12]
    assert unordered_map_order(str(number) for number in range(20)) == [str(n) for n in expected]


@given(st.sets(st.text(max_size=30), max_size=300))
def test_the_order_has_every_name_once(names: set[str]):
    assert sorted(unordered_map_order(sorted(names))) == sorted(names)


# -- weights ---------------------------------------------------------------------------------


@pytest.mark.parametrize("compute_type", COMPUTE_TYPES)
def test_weights_in_every_compute_type(header: WeightsHeader, compute_type: str):
    weight_bytes, float_bytes = COMPUTE_TYPES[compute_type]
    quantizable, floats = 7 * 4 + 2 * 8 * 4, 4 * 3 * 3 + 4 + (448 + 1500) * 4
    rows = 8 * (16 + 7) if weight_bytes == 1 else 0  # a scale and a compensation each
    expected = quantizable * weight_bytes + floats * float_bytes + 2 + rows
    assert weights_bytes(header, compute_type) == expected


def test_stored_int8_has_its_scales_already(tmp_path: Path):
    stored = TINY | {"decoder/embeddings/weight": ((7, 4), "I8")}
    stored["decoder/embeddings/weight_scale"] = ((7,), "F32")
    found = read_ctranslate2(write(tmp_path / "m.bin", model_bin(stored)))
    plain = read_ctranslate2(write(tmp_path / "n.bin", model_bin(TINY)))
    assert weights_bytes(found, "int8") == weights_bytes(plain, "int8")


# -- caches and phases -----------------------------------------------------------------------


def large(value_bytes: int) -> _Whisper:
    return _Whisper(
        n_mels=128, n_audio_ctx=1500, n_state=1280, n_head=20, n_vocab=51866, n_text_ctx=448,
        n_ffn=5120, n_audio_layer=32, n_text_layer=32, value_bytes=value_bytes,
    )  # fmt: skip


def test_caches_of_whisper_large():
    """2 x 32 layers x 1500 positions x 1280 x 2 bytes are 234 MiB a batch item; beams share it."""
    assert large(2).cross_kv_cache_bytes() == 245_760_000
    assert round(large(2).cross_kv_cache_bytes() / MIB) == 234
    assert large(2).cross_kv_cache_bytes(3) == 3 * large(2).cross_kv_cache_bytes()
    assert large(4).kv_cache_bytes(448, 5) == 2 * 32 * 448 * 1280 * 4 * 5


def test_beams_and_length_are_in_the_bound():
    greedy = predict(scaled(), RequestSize(beams=1, vad=False), compute_type="float32")
    beams = predict(scaled(), RequestSize(beams=5, vad=False), compute_type="float32")
    caches = [
        next(term for phase in found.phases for term in phase.terms if term.name == "kv_cache")
        for found in (greedy, beams)
    ]
    assert caches[1].size_bytes == 5 * caches[0].size_bytes
    # a text that looks wrong is sampled five times, whatever was asked for
    assert caches[0].upper_bytes == caches[1].upper_bytes == large(4).kv_cache_bytes(227, 5)


def test_sampling_copies_the_cross_attention_cache():
    """Measured: whisper-base falls back on noise and then takes 4 x 35.2 MiB more."""
    found = {phase.name: phase for phase in predict(scaled(), compute_type="float32").phases}
    more = found["fallback"].upper_bytes - found["decode"].upper_bytes
    assert more == 4 * large(4).cross_kv_cache_bytes()
    assert found["fallback"].size_bytes == found["decode"].size_bytes


def test_an_int8_model_peaks_while_it_loads():
    found = predict(scaled(), compute_type="int8")
    assert found.binding_phase.name == "load"
    assert found.peak_bytes > scaled().weights_bytes
    stored = predict(scaled(), compute_type="float32")
    assert stored.binding_phase.name == "decode"  # caches of 32 layers


def test_weights_converted_before_the_largest_are_smaller_by_then():
    late = predict(scaled(quantized_first=1_000_000_000), compute_type="int8")
    early = predict(scaled(), compute_type="int8")
    assert late.peak_bytes < early.peak_bytes
    assert late.upper_bytes == early.upper_bytes  # another library's order may be another


@pytest.mark.parametrize(
    ("more", "phase"),
    [
        (RequestSize(audio_seconds=3600, vad=False), "features"),
        (RequestSize(batch=4, vad=False), "encode"),
        (RequestSize(words=True, vad=False), "encode"),
        (RequestSize(vad=True), "find_speech"),
    ],
)
def test_more_work_never_takes_less(more: RequestSize, phase: str):
    less = {p.name: p.size_bytes for p in predict(scaled()).phases}
    found = {p.name: p.size_bytes for p in predict(scaled(), more).phases}
    assert found[phase] > less.get(phase, 0)
    assert all(found[name] >= size for name, size in less.items())


def test_on_a_gpu_the_process_is_host_memory():
    context = {**Machine().context_bytes, "ctranslate2@cuda": 300 * MIB}
    machine = Machine(context_bytes=context)
    found = estimate(
        facts_of(scaled()), LoadOptions(device="cuda:0"), RequestSize(vad=False), machine
    )
    assert found.family == "ctranslate2/whisper/float16/cuda"
    assert found.term("context") == 300 * MIB
    assert found.term("weights") == weights_bytes(scaled(), "float16")
    assert {term.name for term in found.host} == {"context", "tokenizer", "conversion"}
    assert found.upper_bytes > found.peak_bytes


def test_options_decide_in_order(header: WeightsHeader):
    facts = facts_of(header, compute_type="float32")
    asked = LoadOptions(compute_type="int16")
    size = RequestSize()
    assert estimate(facts, LoadOptions(), size, Machine()).family == "ctranslate2/whisper/float32"
    assert estimate(facts, asked, size, Machine()).family == "ctranslate2/whisper/int16"
    assert predict(header).family == "ctranslate2/whisper/int8"


# -- golden rows -----------------------------------------------------------------------------


@pytest.mark.parametrize("case", sorted(json.loads(GOLDEN.read_text(encoding="utf-8"))))
def test_golden_rows(case: str):
    row = json.loads(GOLDEN.read_text(encoding="utf-8"))[case]
    measured = row["measured"]
    contexts = {**Machine().context_bytes, "ctranslate2": measured["context_bytes"]}
    found = estimate(
        ModelFacts.model_validate(row["facts"]),
        LoadOptions(**row["options"]),
        RequestSize(**row["size"]),
        Machine(context_bytes=contexts),
    )
    assert found.peak_bytes == pytest.approx(measured["peak_bytes"], rel=0.12)
    assert measured["peak_bytes"] <= found.upper_bytes <= 1.75 * measured["peak_bytes"]
