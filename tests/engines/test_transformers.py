"""Checkpoints of transformers: a chat model with random weights, and the starter embeddings."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import workbench
from tests.contract.models import tiny_llama
from workbench.engines import transformers as engine
from workbench.engines.base import ChatOptions, Message
from workbench.engines.transformers.chat import TransformersChat
from workbench.errors import SettingsError, Unavailable, UnknownOption, UserInputError
from workbench.memory.request import LoadOptions
from workbench.models.spec import ModelSpec

ASK = [Message("user", "one two three")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("tiny") / "llama")


@pytest.fixture(scope="module")
def model(folder: Path) -> Iterator[TransformersChat]:
    model = _load(folder)
    assert isinstance(model, TransformersChat)
    yield model
    model.close()


def _spec(folder: Path, **changes: object) -> ModelSpec:
    return workbench.models.get(str(folder), "chat").model_copy(update=changes)


def _load(folder: Path, options: LoadOptions | None = None):
    return engine.load(_spec(folder), folder, options or LoadOptions())


def _text(model: TransformersChat, **options) -> str:
    return "".join(d.text for d in model.stream(ASK, ChatOptions(**options)))


def test_a_seed_is_an_answer_and_leaves_torch_alone(model):
    import torch

    before = torch.random.get_rng_state()
    first, again, other = (
        _text(model, max_tokens=12, temperature=1.0, seed=seed) for seed in (3, 3, 4)
    )
    assert first == again != other
    assert torch.equal(before, torch.random.get_rng_state())


def test_top_p_leaves_out_the_unlikely(model):
    narrow = {_text(model, max_tokens=1, temperature=1.0, top_p=1e-6, seed=s) for s in range(8)}
    wide = {_text(model, max_tokens=1, temperature=1.0, seed=s) for s in range(8)}
    assert narrow == {_text(model, max_tokens=1)}
    assert len(wide) > 1


def test_the_checkpoints_own_sampling_does_not_interfere(folder: Path, tmp_path: Path, model):
    other = tiny_llama(tmp_path / "penalised")
    config = json.loads((other / "generation_config.json").read_text())
    config |= {"repetition_penalty": 50.0, "do_sample": True, "top_k": 1, "temperature": 0.1}
    (other / "generation_config.json").write_text(json.dumps(config))
    penalised = _load(other)
    assert _text(penalised, max_tokens=30) == _text(model, max_tokens=30)


def test_a_stop_string_ends_the_answer_and_is_not_shown(model):
    words = _text(model, max_tokens=12).split()
    *pieces, last = model.stream(ASK, ChatOptions(max_tokens=12, stop=(words[4],)))
    text = "".join(piece.text for piece in pieces)
    assert text.split() == words[:4]
    assert last.finish_reason == "stop"
    assert last.usage.completion_tokens == 5


def test_the_end_token_ends_the_answer(folder: Path, model):
    first = model._tokenizer.convert_tokens_to_ids(_text(model, max_tokens=1).split()[0])
    ending = _load(folder)
    ending._ends = [first]
    ending._model.generation_config.eos_token_id = [first]
    [last] = ending.stream(ASK, ChatOptions(max_tokens=9))
    assert (last.text, last.finish_reason) == ("", "stop")
    assert last.usage.completion_tokens == 1


def test_stop_is_seen_at_the_next_token(model):
    stop = threading.Event()
    deltas = []
    for delta in model.stream(ASK, ChatOptions(max_tokens=900), stop.is_set):
        deltas.append(delta)
        stop.set()
    assert deltas[-1].finish_reason == "cancelled"
    assert deltas[-1].usage.completion_tokens < 900


def test_a_waiting_request_can_be_stopped(model):
    running = model.stream(ASK, ChatOptions(max_tokens=900))
    next(running)
    [last] = model.stream(ASK, ChatOptions(max_tokens=4), lambda: True)
    assert last.finish_reason == "cancelled"
    running.close()


def test_a_prompt_that_is_too_long_is_refused_with_the_numbers(folder: Path):
    model = _load(folder, LoadOptions(context_tokens=6))
    with pytest.raises(UserInputError, match="has 7 tokens .* holds 6"):
        list(model.stream(ASK, ChatOptions()))


def test_an_answer_ends_where_the_context_does(folder: Path):
    model = _load(folder, LoadOptions(context_tokens=10))
    *_, last = model.stream(ASK, ChatOptions(max_tokens=50))
    assert last.finish_reason == "length"
    assert last.usage.prompt_tokens + last.usage.completion_tokens == 10


@pytest.mark.parametrize("form", [{"grammar": 'root ::= "x"'}, {"json_schema": {}}])
def test_a_form_that_cannot_be_kept_is_refused(model, form):
    with pytest.raises(UnknownOption, match="grammar or a schema"):
        list(model.stream(ASK, ChatOptions(**form)))


def test_a_conversation_that_the_template_refuses(folder: Path):
    model = _load(folder)
    model._tokenizer.chat_template = "{{ raise_exception('no system role') }}"
    with pytest.raises(UserInputError, match="no system role"):
        list(model.stream(ASK, ChatOptions()))


def test_pickled_weights_are_never_opened(folder: Path, tmp_path: Path):
    pickled = tmp_path / "pickled"
    pickled.mkdir()
    (pickled / "config.json").write_bytes((folder / "config.json").read_bytes())
    (pickled / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'false'\ntR.")
    with pytest.raises(UserInputError, match="no safetensors weights"):
        _load(pickled)


def test_code_of_a_checkpoint_is_not_run(tmp_path: Path):
    own_code = tiny_llama(tmp_path / "own-code")
    config = json.loads((own_code / "config.json").read_text())
    config["model_type"] = "mine"
    config["auto_map"] = {
        "AutoConfig": "mine.Config",
        "AutoModelForCausalLM": "mine.Model",
    }
    (own_code / "config.json").write_text(json.dumps(config))
    (own_code / "mine.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(Unavailable, match="cannot load"):
        _load(own_code)
    assert not (tmp_path / "ran").exists()


def test_damaged_weights_are_said_to_be_damaged(tmp_path: Path):
    damaged = tiny_llama(tmp_path / "damaged")
    weights = damaged / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(Unavailable, match="cannot load"):
        _load(damaged)


def test_a_base_model_is_not_a_chat_model(tmp_path: Path):
    base = tiny_llama(tmp_path / "base")
    (base / "chat_template.jinja").unlink()
    with pytest.raises(UserInputError, match="no chat template"):
        _load(base)


def test_options_that_cannot_be_honoured(folder: Path):
    with pytest.raises(UnknownOption, match="int3"):
        _load(folder, LoadOptions(compute_type="int3"))
    with pytest.raises(SettingsError, match="pooling"):
        engine.load(_spec(folder, options={"pooling": "mean"}), folder, LoadOptions())


def test_the_compute_type_is_that_of_the_weights(folder: Path):
    import torch

    model = _load(folder, LoadOptions(compute_type="bfloat16"))
    assert model._model.dtype == torch.bfloat16


def test_loading_prints_nothing(folder: Path, capfd):
    _load(folder)
    assert capfd.readouterr() == ("", "")


@pytest.mark.models
class TestEmbedding:
    @pytest.fixture
    def embedding(self):
        spec = workbench.models.get("minilm-l6")
        path = workbench.models.locate(spec.id)
        assert path is not None, "pull the starters first"
        return engine.load(spec, path, LoadOptions())

    def test_meaning_is_near_and_batches_do_not_matter(self, embedding):
        texts = ["A cat sits on the mat.", "A kitten is on the rug.", "Shares fell today."]
        vectors = embedding.embed(texts)
        assert vectors[0] @ vectors[1] > 0.5 > 0.3 > vectors[0] @ vectors[2]
        padded = embedding.embed([*texts, "word " * 200])
        np.testing.assert_allclose(padded[:3], vectors, atol=1e-5)

    def test_many_texts_keep_their_order(self, embedding):
        texts = [f"{'word ' * (n % 7)}{n}" for n in range(70)]
        together = embedding.embed(texts)
        assert together.shape == (70, 384)
        for number in (0, 33, 69):
            np.testing.assert_allclose(
                together[number], embedding.embed([texts[number]])[0], atol=1e-5
            )

    def test_a_text_that_is_too_long_is_refused_with_the_numbers(self, embedding):
        with pytest.raises(UserInputError, match="Text 2 has 302 tokens .* at most 256"):
            embedding.embed(["short", "word " * 300])
