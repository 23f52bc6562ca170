"""The cells of the matrix that need real models, run: cache types of llama.cpp and compute types
of CTranslate2, each with the answer and with the memory that it is chosen for.

The torch engines' cells are in test_offload.py. Each memory figure is of a fresh process.
"""

from __future__ import annotations

from functools import cache

import pytest

import workbench
from tests.contract.models import load_audio
from workbench.engines import registry
from workbench.engines.base import ChatOptions, Message, SpeechOptions
from workbench.engines.measure import MeasuredMemory, measure_memory
from workbench.memory.matrix import SUPPORT, candidates
from workbench.memory.request import LoadOptions, RequestSize

pytestmark = pytest.mark.models

CACHES = SUPPORT["llama_cpp", "cpu"].cache_types
COMPUTE_TYPES = SUPPORT["ctranslate2", "cpu"].compute_types
MIB = 2**20
CONTEXT_TOKENS = 8192
#: SmolLM2 135M has 30 layers with 3 key-value heads of 64: keys and values of one token.
CACHE_VALUES = 2 * 30 * 3 * 64
#: Blocks of 32 values: a scale of 2 bytes, and 8 or 4 bits a value. Source: ggml-common.h.
BYTES_PER_VALUE = {"f32": 4, "f16": 2, "bf16": 2, "q8_0": 34 / 32, "q4_0": 18 / 32}


def _open(name: str, options: LoadOptions):
    spec, path = workbench.models.get(name), workbench.models.locate(name)
    assert path is not None, "pull the starters first"
    return registry.load(spec, path, options)


@cache
def _measured(name: str, options: LoadOptions) -> MeasuredMemory:
    spec, path = workbench.models.get(name), workbench.models.locate(name)
    assert path is not None, "pull the starters first"
    return measure_memory(spec, path, options, RequestSize(prompt_tokens=32, audio_seconds=5.0))


@pytest.mark.parametrize("cache_type", CACHES)
def test_llama_cpp_answers_with_each_cache_type(cache_type: str) -> None:
    options = LoadOptions(cache_type=cache_type, context_tokens=512)  # type: ignore[arg-type]
    model = _open("smollm2-135m", options)
    try:
        ask = [Message("user", "What is the capital of France? Answer in one word.")]
        text = "".join(delta.text for delta in model.stream(ask, ChatOptions(max_tokens=16)))
    finally:
        model.close()
    assert "Paris" in text


@pytest.mark.parametrize("cache_type", [each for each in CACHES if each != "f16"])
def test_the_cache_of_llama_cpp_takes_what_its_type_says(cache_type: str) -> None:
    def loaded_bytes(wanted: str) -> int:
        options = LoadOptions(cache_type=wanted, context_tokens=CONTEXT_TOKENS)  # type: ignore[arg-type]
        return _measured("smollm2-135m", options).loaded_bytes

    per_token = CACHE_VALUES * (BYTES_PER_VALUE[cache_type] - BYTES_PER_VALUE["f16"])
    change = loaded_bytes(cache_type) - loaded_bytes("f16")
    assert change == pytest.approx(CONTEXT_TOKENS * per_token, abs=4 * MIB)


def test_candidates_are_all_run_here() -> None:
    chat = candidates("llama_cpp", "chat", "cpu")
    speech = candidates("ctranslate2", "speech", "cpu")
    assert set(chat) <= {LoadOptions(cache_type=each) for each in CACHES}
    assert set(speech) == {LoadOptions(compute_type=each) for each in COMPUTE_TYPES}


@pytest.mark.parametrize("compute_type", COMPUTE_TYPES)
def test_whisper_hears_the_same_in_each_compute_type(compute_type: str) -> None:
    heard = []
    for each in ("float32", compute_type):
        model = _open("whisper-tiny.en", LoadOptions(compute_type=each))
        try:
            _, segments = model.transcribe(load_audio(), SpeechOptions(language="en"))
            heard.append(" ".join(segment.text for segment in segments).split())
        finally:
            model.close()
    assert heard[0] == heard[1] != []


def test_whisper_in_8_bit_takes_less() -> None:
    loaded = {
        each: _measured("whisper-tiny.en", LoadOptions(compute_type=each)).loaded_bytes
        for each in COMPUTE_TYPES
    }
    # 37.8 million weights, nearly all in linear layers: 3 bytes less for each
    for each in ("int8_float32", "int8"):
        assert loaded["float32"] - loaded[each] == pytest.approx(3 * 38e6, rel=0.25)
