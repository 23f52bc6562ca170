"""One suite for all engines: what `workbench.engines.base` promises, on real models.

A new runtime adds one line to its capability's list.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import workbench
from tests.contract.models import load_audio, tiny_image_model, tiny_llama
from tests.servers.openai_server import openai_server
from workbench.engines.base import (
    ChatOptions,
    DrawnImages,
    ImageOptions,
    ImageStep,
    Message,
    Model,
    SpeechOptions,
)
from workbench.engines.pool import ModelPool
from workbench.errors import Cancelled, UnknownOption
from workbench.models.spec import ModelSpec

real = pytest.mark.models
CHAT = [
    "stub",
    "providers",
    "transformers",
    pytest.param("smollm2-135m", marks=real),
]
SPEECH = ["stub", pytest.param("whisper-tiny.en", marks=real)]
IMAGE = ["stub", "diffusers", pytest.param("shapes-32", marks=real)]
EMBEDDING = ["stub", pytest.param("minilm-l6", marks=real)]


@contextmanager
def _loaded(spec: ModelSpec) -> Iterator[Any]:
    pool = ModelPool()
    with pool.acquire(spec) as model:
        yield model
    assert pool.unload() == [spec.id]
    model.close()  # a second time: nothing happens


@pytest.fixture(scope="module")
def tiny_models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("tiny")
    return {
        "transformers": tiny_llama(folder / "llama"),
        "diffusers": tiny_image_model(folder / "pipeline"),
    }


@pytest.fixture
def model(request, write_model, tiny_models, monkeypatch, tmp_path) -> Iterator[Any]:
    """The loaded model that the test's parameter names."""
    name, task = request.param, request.node.get_closest_marker("task").args[0]
    if name == "stub":
        options = {"reply": "one two three four five six"} if task == "chat" else {}
        with _loaded(workbench.models.get(write_model("stub", task=task, options=options))) as it:
            yield it
    elif name == "providers":
        monkeypatch.setenv("OPENAI_API_KEY", "test-key")
        with openai_server() as url:
            source = {"kind": "remote", "provider": "openai", "model": "m", "base_url": url}
            spec = workbench.models.get(write_model("far", engine="providers", sources=[source]))
            with _loaded(spec) as it:
                yield it
    elif name in tiny_models:
        with _loaded(workbench.models.get(str(tiny_models[name]), task)) as it:
            yield it
    else:
        monkeypatch.delenv("WORKBENCH_HOME")
        workbench.settings.get_settings.cache_clear()
        workbench.models.catalog.get_catalog.cache_clear()
        with _loaded(workbench.models.get(name)) as it:
            yield it


ASK = [Message("system", "You are brief."), Message("user", "Count from one to twenty in words.")]


@pytest.mark.task("chat")
@pytest.mark.parametrize("model", CHAT, indirect=True)
class TestChat:
    def test_streams_and_ends_with_reason_and_usage(self, model):
        deltas = list(model.stream(ASK, ChatOptions(max_tokens=12)))
        assert isinstance(model, Model)
        assert len([delta for delta in deltas if delta.text]) > 1
        assert [delta.finish_reason for delta in deltas[:-1]] == [None] * (len(deltas) - 1)
        assert deltas[-1].finish_reason in ("stop", "length")
        assert deltas[-1].usage is not None
        assert deltas[-1].usage.prompt_tokens > 0
        assert 0 < deltas[-1].usage.completion_tokens <= 12

    def test_the_length_is_kept(self, model):
        deltas = list(model.stream(ASK, ChatOptions(max_tokens=3)))
        assert deltas[-1].finish_reason == "length"
        assert deltas[-1].usage is not None
        assert deltas[-1].usage.completion_tokens == 3

    def test_greedy_repeats_itself(self, model):
        texts = [
            "".join(d.text for d in model.stream(ASK, ChatOptions(max_tokens=8))) for _ in range(2)
        ]
        assert texts[0] == texts[1] != ""

    def test_stop_ends_it_and_keeps_the_text(self, model):
        stop = threading.Event()
        deltas = []
        for delta in model.stream(ASK, ChatOptions(max_tokens=400), stop.is_set):
            deltas.append(delta)
            stop.set()
        assert deltas[-1].finish_reason in ("cancelled", "stop")
        assert len(deltas) < 40
        # the engine is free again at once
        assert list(model.stream(ASK, ChatOptions(max_tokens=2)))

    def test_an_abandoned_stream_frees_the_engine(self, model):
        stream = model.stream(ASK, ChatOptions(max_tokens=400))
        next(stream)
        stream.close()
        assert list(model.stream(ASK, ChatOptions(max_tokens=2)))


@pytest.mark.task("speech")
@pytest.mark.parametrize("model", SPEECH, indirect=True)
class TestSpeech:
    def test_segments_are_in_order_and_inside(self, model):
        samples = load_audio()
        info, segments = model.transcribe(samples, SpeechOptions(words=True))
        found = list(segments)
        assert info.duration_seconds == pytest.approx(len(samples) / 16000, abs=0.01)
        assert found
        ends = 0.0
        for segment in found:
            assert ends - 0.01 <= segment.start_seconds < segment.end_seconds
            assert segment.end_seconds <= info.duration_seconds + 0.5
            assert segment.words
            ends = segment.end_seconds

    @pytest.mark.parametrize("seconds", [0.05, 5])
    def test_silence_gives_nothing(self, model, seconds: float):
        _, segments = model.transcribe(np.zeros(int(16000 * seconds), np.float32), SpeechOptions())
        assert list(segments) == []

    def test_stop_ends_it(self, model):
        samples = np.tile(load_audio(), 8)
        _, segments = model.transcribe(samples, SpeechOptions(), lambda: True)
        assert len(list(segments)) <= 1


@pytest.mark.task("image")
@pytest.mark.parametrize("model", IMAGE, indirect=True)
class TestImage:
    OPTIONS = ImageOptions("a red circle", steps=3, seed=7, sampler="DDIM")

    def test_steps_then_images(self, model):
        *steps, drawn = model.draw(self.OPTIONS)
        assert [(s.done, s.total) for s in steps if isinstance(s, ImageStep)] == [
            (1, 3),
            (2, 3),
            (3, 3),
        ]
        assert isinstance(drawn, DrawnImages)
        assert set(drawn.phase_seconds) == {"encode_prompt", "denoise", "decode"}

    def test_a_seed_is_a_picture(self, model):
        first, again, other = (
            list(model.draw(ImageOptions("x", steps=2, seed=seed, sampler="DDIM")))[-1].images[0]
            for seed in (1, 1, 2)
        )
        assert first.tobytes() == again.tobytes() != other.tobytes()

    def test_picture_i_of_a_batch_has_seed_plus_i(self, model):
        options = ImageOptions("x", steps=2, seed=5, batch=3, sampler="DDIM")
        batch = list(model.draw(options))[-1].images
        assert len(batch) == 3
        single = list(model.draw(ImageOptions("x", steps=2, seed=7, sampler="DDIM")))[-1].images[0]
        difference = np.abs(np.asarray(batch[2], int) - np.asarray(single, int))
        # batched convolutions may round differently in the last bit
        assert difference.max() <= 1

    def test_stop_raises_within_a_step(self, model):
        seen = []
        with pytest.raises(Cancelled):
            for step in model.draw(ImageOptions("x", steps=9, sampler="DDIM"), lambda: bool(seen)):
                seen.append(step)
        # a step takes milliseconds here, so one or two may pass before the reader has spoken
        assert len(seen) < 6

    def test_an_unknown_sampler(self, model):
        with pytest.raises(UnknownOption, match="no such sampler"):
            list(model.draw(ImageOptions("x", sampler="no such sampler")))


@pytest.mark.task("embedding")
@pytest.mark.parametrize("model", EMBEDDING, indirect=True)
def test_embeddings_are_unit_vectors(model):
    texts = ["a cat", "một con mèo", "a cat"]
    vectors = model.embed(texts)
    assert vectors.dtype == np.float32
    assert vectors.shape[0] == 3
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(vectors[0], vectors[2], atol=1e-6)
    assert not np.allclose(vectors[0], vectors[1])
    assert model.embed([]).shape[0] == 0
