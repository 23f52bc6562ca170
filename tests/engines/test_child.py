"""Models in a process of their own: the same capabilities, errors and stops, over a pipe."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

import workbench
from workbench.engines import child
from workbench.engines.base import (
    ChatOptions,
    DrawnImages,
    ImageOptions,
    Message,
    SpeechOptions,
)
from workbench.engines.child import ChildModel
from workbench.engines.pool import ModelPool
from workbench.engines.stub import StubModel
from workbench.errors import Cancelled, DoesNotFit, ProviderError, UnknownOption, WorkbenchError
from workbench.memory.request import LoadOptions
from workbench.models.spec import ModelSpec

MIB = 2**20


def spec_of(**options: object) -> ModelSpec:
    return ModelSpec.model_validate(
        {
            "id": "stub",
            "title": "stub",
            "task": "chat",
            "engine": "stub",
            "licence": "none",
            "sources": [{"kind": "local", "path": "."}],
            "options": options,
        }
    )


@pytest.fixture(scope="module")
def model() -> Iterator[ChildModel]:
    loaded = child.load(spec_of(), Path(), LoadOptions())
    yield loaded
    loaded.close()


def test_every_capability_gives_what_it_gives_here(model: ChildModel):
    here = StubModel(spec_of())
    messages, options = [Message("user", "một hai ba")], ChatOptions()
    assert list(model.stream(messages, options)) == list(here.stream(messages, options))

    samples = np.full(40_000, 0.5, dtype=np.float32)
    info, segments = model.transcribe(samples, SpeechOptions(words=True))
    expected, others = here.transcribe(samples, SpeechOptions(words=True))
    assert (info, list(segments)) == (expected, list(others))

    *steps, drawn = model.draw(ImageOptions("a cat", steps=3, batch=2))
    assert len(steps) == 3
    assert isinstance(drawn, DrawnImages)
    same = list(here.draw(ImageOptions("a cat", steps=3, batch=2)))[-1]
    assert isinstance(same, DrawnImages)
    assert [i.tobytes() for i in drawn.images] == [i.tobytes() for i in same.images]

    np.testing.assert_array_equal(model.embed(["a", "b"]), here.embed(["a", "b"]))


def test_a_stop_reaches_the_engine(model: ChildModel):
    seen = 0

    def stop() -> bool:
        return seen > 0

    with pytest.raises(Cancelled):
        for _ in model.draw(ImageOptions("a", steps=10**7), stop):
            seen += 1


def test_leaving_early_leaves_the_model_free(model: ChildModel):
    stream = model.draw(ImageOptions("a", steps=10**7))
    next(iter(stream))
    stream.close()  # type: ignore[attr-defined]
    assert next(model.stream([Message("user", "ab")], ChatOptions())).text == "ba"
    assert model._replies == {}


def test_errors_of_the_engine_come_as_they_are(model: ChildModel):
    with pytest.raises(UnknownOption, match="no sampler 'no such'") as caught:
        list(model.draw(ImageOptions("a", sampler="no such")))
    assert caught.value.remedy == "Use DPM++ 2M."


def test_an_error_while_loading_leaves_no_process():
    before = set(psutil.Process().children())
    with pytest.raises(ProviderError, match="no luck"):
        child.load(spec_of(load_fail="no luck"), Path(), LoadOptions())
    assert set(psutil.Process().children()) <= before


@pytest.mark.parametrize(
    ("number", "error", "message"),
    [
        (signal.SIGKILL, DoesNotFit, "was killed, most likely because memory ran out"),
        (signal.SIGTERM, WorkbenchError, "ended with -15 while it worked"),
    ],
)
def test_a_crash_is_one_clear_error(number: int, error: type[Exception], message: str):
    loaded = child.load(spec_of(), Path(), LoadOptions())
    stream = loaded.draw(ImageOptions("a", steps=10**7))
    next(iter(stream))
    os.kill(loaded._process.pid, number)
    with pytest.raises(error, match=message):
        list(stream)
    assert not loaded.is_alive
    loaded.close()


def test_the_pool_frees_the_slot_of_a_crashed_model_and_loads_it_again(
    write_model: Callable[..., str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("WORKBENCH_MEMORY__ISOLATE", "stub, llama_cpp")
    workbench.settings.get_settings.cache_clear()
    pool = ModelPool()
    spec = workbench.models.get(write_model("m"))
    with pytest.raises(WorkbenchError, match="ended with"), pool.acquire(spec) as model:
        os.kill(model._process.pid, signal.SIGTERM)
        list(model.stream([Message("user", "a")], ChatOptions()))
    assert pool.loaded() == []
    with pool.acquire(spec) as model:
        assert next(model.stream([Message("user", "ab")], ChatOptions())).text == "ba"
        pid = model._process.pid
    # one that dies while nobody uses it is noticed by the next request
    os.kill(pid, signal.SIGKILL)
    psutil.wait_procs([psutil.Process(pid)] if psutil.pid_exists(pid) else [], timeout=5)
    with pool.acquire(spec) as model:
        assert model._process.pid != pid
    reasons = [entry["reason"] for entry in pool.log() if entry["action"] == "evict"]
    assert reasons == ["because its process had ended"] * 2
    pool.unload()


def test_closing_gives_all_memory_back():
    loaded = child.load(spec_of(hold_bytes=64 * MIB), Path(), LoadOptions())
    process = psutil.Process(loaded._process.pid)
    assert loaded.resident_bytes() > 0
    started = time.monotonic()
    loaded.close()
    loaded.close()
    assert not process.is_running()
    assert time.monotonic() - started < 5
