"""GGUF language models, run by llama.cpp inside this process (through xllamacpp).

One loaded model has one slot, which has the whole context. Requests that come together wait for
their turn: with more slots each would have only a part of the context (or could run out of it
half-way), and the memory plan counts exactly one.
"""

from __future__ import annotations

import os
import secrets
import threading
from collections.abc import Generator, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from workbench.engines.base import (
    ChatDelta,
    ChatOptions,
    EngineSpeed,
    Message,
    StopCheck,
    Usage,
    never_stop,
)
from workbench.engines.worker import Emit, iterate
from workbench.errors import Unavailable, UnknownOption, UserInputError, WorkbenchError
from workbench.memory.headers import read_gguf
from workbench.memory.matrix import check
from workbench.memory.request import LoadOptions
from workbench.settings import get_settings

if TYPE_CHECKING:
    from workbench.models.spec import ModelSpec

_DEFAULT_CONTEXT_TOKENS = 4096
# A stop is seen between two batches of the prompt, so they are as small as costs no speed.
_BATCH_TOKENS = 512
_POLL_SECONDS = 0.02
_SILENT = -1
_SPINS = "100"
_ALL_LAYERS = 999
_DEFAULT_CACHE = "f16"


def load(spec: ModelSpec, path: Path, options: LoadOptions) -> LlamaCppChat:
    """Load the GGUF file ``path``. Raises UnknownOption, UserInputError, Unavailable."""
    check(spec.id, "llama_cpp", "chat", options)
    xllamacpp = _import_llama_cpp()
    _check_context(path, options.context_tokens)
    params = xllamacpp.CommonParams()
    params.model.path = str(path)
    params.n_ctx = options.context_tokens or spec.context_tokens or _DEFAULT_CONTEXT_TOKENS
    params.n_parallel = 1
    params.n_batch = params.n_ubatch = _BATCH_TOKENS
    params.n_gpu_layers = _gpu_layers(options)
    # a quantized cache of values needs flash attention, which llama.cpp turns on by itself
    cache = f"GGML_TYPE_{(options.cache_type or _DEFAULT_CACHE).upper()}"
    params.cache_type_k = params.cache_type_v = getattr(xllamacpp.ggml_type, cache)
    threads = options.threads or get_settings().threads or _cpu_cores()
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
    params.verbosity = _SILENT
    # what was planned is what is loaded: nothing is fitted behind the plan's back, and no
    # prompts are kept in up to 8 GiB of host memory
    params.fit_params = False
    params.cache_ram_mib = 0
    # the library also listens on a loopback port; nobody has the key to it
    params.api_keys = [secrets.token_urlsafe(32)]
    params.endpoint_slots = False
    params.ui = False
    params.n_threads_http = 1
    try:
        server = xllamacpp.Server(params)
        # A server that is freed before its loop has begun waits for that loop for ever: one
        # answered request shows that it runs.
        server.handle_completions({"prompt": ".", "max_tokens": 1, "cache_prompt": False})
        return LlamaCppChat(spec, server)
    except RuntimeError:
        raise Unavailable(
            f"llama.cpp cannot load {path.name}.",
            f"It may be damaged or of a kind that this version does not know: check it with "
            f"`workbench models verify {spec.id}`.",
        ) from None


class LlamaCppChat:
    """One loaded GGUF model. Safe to use from several threads; they take turns."""

    def __init__(self, spec: ModelSpec, server: Any) -> None:
        self.spec = spec
        self._server: Any = server
        self._turn = threading.Lock()

    def close(self) -> None:
        """Free the memory. Calling it twice does nothing."""
        with self._turn:
            self._server = None

    def stream(
        self,
        messages: Sequence[Message],
        options: ChatOptions,
        should_stop: StopCheck = never_stop,
    ) -> Generator[ChatDelta, None, None]:
        """Yield the answer token by token, as whole characters.

        ``should_stop`` is asked at every token, and every 512 tokens while the prompt is read.
        Raises UserInputError for a prompt longer than the context, and for a schema or grammar
        that llama.cpp cannot read.
        """
        request = _request(messages, options)
        stopped = threading.Event()

        def work(emit: Emit[dict[str, Any]]) -> None:
            def on_chunk(chunk: dict[str, Any]) -> bool:
                if emit(chunk) or should_stop():
                    stopped.set()
                return stopped.is_set()  # True cancels the request in llama.cpp

            while not self._turn.acquire(timeout=_POLL_SECONDS):
                if on_chunk({}):
                    return
            try:
                self._server.handle_chat_completions(request, on_chunk)
            except (ValueError, RuntimeError) as error:
                emit({"error": {"message": str(error)}})
            finally:
                self._turn.release()

        finish: str | None = None
        prompt_tokens = 0
        timings: dict[str, float] = {}
        with closing(iterate(work)) as chunks:
            for chunk in chunks:
                if "error" in chunk:
                    raise _refused(chunk["error"], self.spec)
                if "prompt_progress" in chunk:
                    prompt_tokens = chunk["prompt_progress"]["total"]
                timings = chunk.get("timings", timings)
                for choice in chunk.get("choices", ()):
                    finish = choice["finish_reason"] or finish
                    delta = choice["delta"]
                    text, reasoning = delta.get("content"), delta.get("reasoning_content")
                    if text or reasoning:
                        yield ChatDelta(text or "", reasoning or "")
        if finish is None and not stopped.is_set():
            raise WorkbenchError(
                f"llama.cpp broke off while {self.spec.id} answered.", "Ask again."
            )
        yield ChatDelta(
            finish_reason=_FINISH[finish],
            usage=Usage(prompt_tokens, int(timings.get("predicted_n", 0))),
            speed=_speed(timings),
        )


_FINISH: dict[str | None, Literal["stop", "length", "cancelled"]] = {
    "stop": "stop",
    "length": "length",
    None: "cancelled",
}


def _request(messages: Sequence[Message], options: ChatOptions) -> dict[str, Any]:
    """The request in the form of llama.cpp's server. Samplers that were not asked for are off."""
    request: dict[str, Any] = {
        "messages": [{"role": m.role, "content": m.content} for m in messages],
        "stream": True,
        "max_tokens": options.max_tokens,
        "temperature": options.temperature,
        "top_p": options.top_p,
        # greedy needs no probabilities, and the softmax over a large vocabulary is not free
        "top_k": 1 if options.temperature == 0 else 0,
        "min_p": 0.0,
        "seed": options.seed,
        "cache_prompt": options.reuse_prefix,
        "return_progress": True,
        "timings_per_token": True,
    }
    if options.stop:
        request["stop"] = list(options.stop)
    if options.grammar is not None:
        request["grammar"] = options.grammar
    if options.json_schema is not None:
        request["json_schema"] = options.json_schema
    return request


def _speed(timings: dict[str, float]) -> EngineSpeed | None:
    if not timings:
        return None
    return EngineSpeed(
        prompt_tokens_per_second=timings["prompt_per_second"] if timings["prompt_n"] else None,
        tokens_per_second=timings["predicted_per_second"] if timings["predicted_n"] > 1 else None,
    )


def _refused(error: dict[str, Any], spec: ModelSpec) -> WorkbenchError:
    if error.get("type") == "exceed_context_size_error":
        return UserInputError(
            f"The prompt has {error['n_prompt_tokens']} tokens and the context of {spec.id} "
            f"holds {error['n_ctx']}.",
            "Shorten the prompt, or raise context_tokens in the model's catalogue entry.",
        )
    return UserInputError(
        f"{spec.id} cannot take this request: {error['message'].rstrip('.')}.",
        "Correct the grammar, the schema or the conversation.",
    )


def _import_llama_cpp() -> Any:
    """llama.cpp, whose threads meet after every operation and by default spin until all are there.

    When another program has a core, that takes a scheduler's slice each time: the same model
    was measured to drop from 120 to 0.3 tokens/s. Spinning for microseconds and then sleeping
    keeps half the speed. libgomp reads its variable once, when it is loaded.
    """
    name = "GOMP_SPINCOUNT"
    own = {name, "OMP_WAIT_POLICY"}.isdisjoint(os.environ)
    if own:
        os.environ[name] = _SPINS
    try:
        import xllamacpp
    finally:
        if own:
            del os.environ[name]
    return xllamacpp


def _gpu_layers(options: LoadOptions) -> int:
    """How many layers go to the device: all of them unless fewer are asked for."""
    if options.device == "cpu":
        return 0
    if options.gpu_layers is None:
        return _ALL_LAYERS
    if options.gpu_layers < 0:
        raise UnknownOption(f"gpu_layers is {options.gpu_layers}.", "Give a number from 0 up.")
    return options.gpu_layers


def _check_context(path: Path, context_tokens: int | None) -> None:
    """llama.cpp would silently use less than was asked for."""
    if context_tokens is None:
        return
    facts = read_gguf(path).facts
    trained = facts.get(f"{facts.get('general.architecture')}.context_length")
    if isinstance(trained, int) and context_tokens > trained:
        raise UserInputError(
            f"{path.name} was trained for {trained} tokens of context, not {context_tokens}.",
            f"Ask for at most {trained}.",
        )


def _cpu_cores() -> int:
    """Physical cores that this process may use: threads beyond them only wait for each other."""
    import psutil

    limits = [psutil.cpu_count(logical=False) or 1]
    if hasattr(os, "sched_getaffinity"):
        limits.append(len(os.sched_getaffinity(0)))
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        limits.append(int(quota) // int(period))
    except (OSError, ValueError):  # no control group, or "max"
        pass
    return max(1, min(limits))
