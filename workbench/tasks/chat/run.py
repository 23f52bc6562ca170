"""`workbench.chat`: from a prompt or a conversation to a `Reply`."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, replace
from typing import Any, Literal, overload

from workbench.engines.base import ChatDelta, ChatModel, Message, StopCheck
from workbench.engines.pool import default_pool
from workbench.tasks.chat.request import ChatRequest, make_request
from workbench.tasks.chat.score import score
from workbench.tasks.chat.types import ChatTimings, Reply
from workbench.tasks.prompt_size import largest_size
from workbench.tasks.record import Recorder
from workbench.tasks.stream import Stream

ChatStream = Stream[ChatDelta, Reply]
ChatEvents = Generator[ChatDelta, None, Reply]


@overload
def chat(
    prompt: str | Sequence[Message],
    *,
    model: str | None = ...,
    system: str | None = ...,
    stream: Literal[False] = ...,
    max_tokens: int = ...,
    temperature: float = ...,
    top_p: float = ...,
    seed: int = ...,
    stop: str | Sequence[str] = ...,
    json_schema: dict[str, Any] | None = ...,
    grammar: str | None = ...,
    reference: str | None = ...,
) -> Reply: ...


@overload
def chat(
    prompt: str | Sequence[Message],
    *,
    model: str | None = ...,
    system: str | None = ...,
    stream: Literal[True],
    max_tokens: int = ...,
    temperature: float = ...,
    top_p: float = ...,
    seed: int = ...,
    stop: str | Sequence[str] = ...,
    json_schema: dict[str, Any] | None = ...,
    grammar: str | None = ...,
    reference: str | None = ...,
) -> ChatStream: ...


def chat(
    prompt: str | Sequence[Message],
    *,
    model: str | None = None,
    system: str | None = None,
    stream: bool = False,
    max_tokens: int = 512,
    temperature: float = 0.0,
    top_p: float = 1.0,
    seed: int = 0,
    stop: str | Sequence[str] = (),
    json_schema: dict[str, Any] | None = None,
    grammar: str | None = None,
    reference: str | None = None,
) -> Reply | ChatStream:
    """Ask a language model.

    ``prompt`` is a text, or a conversation that ends with the user's message.

    * ``temperature``: 0 is greedy; ``top_p``: sample only among the likeliest tokens that
      together have this probability; ``seed`` makes sampling repeatable.
    * ``stop``: strings that end the answer and are not part of it.
    * ``json_schema`` or ``grammar`` (GBNF): the form that the answer must have.
    * ``reference``: the true answer; ``record.quality`` gets ``exact_match`` and ``contains``.

    A single prompt gives the same answer every time. A conversation (one with an answer in it)
    may reuse what the engine still holds of it, which saves time and may change the rounding.

    With ``stream`` the events are `ChatDelta`; the result is the `Reply`, of what there was when
    it was stopped.

    Raises UserInputError, UnknownModel, UnknownOption, ModelMissing, DoesNotFit, ProviderError.
    """
    request = make_request(
        prompt,
        model,
        system,
        stop,
        reference,
        max_tokens=max_tokens,
        temperature=temperature,
        top_p=top_p,
        seed=seed,
        json_schema=json_schema,
        grammar=grammar,
    )
    recorder = Recorder("chat", request.spec, request.to_dict())
    running: ChatStream = Stream(lambda should_stop: answer(request, recorder, should_stop))
    return running if stream else running.result


def answer(request: ChatRequest, recorder: Recorder, should_stop: StopCheck) -> ChatEvents:
    """Run one request: yield the pieces of the answer, return the reply."""
    text: list[str] = []
    reasoning: list[str] = []
    last = ChatDelta(finish_reason="cancelled")
    first_seconds: float | None = None
    with recorder, ExitStack() as held:
        with recorder.phase("load"):
            model: ChatModel = held.enter_context(
                default_pool().acquire(
                    request.spec,
                    size=largest_size(request.messages, request.options),
                    should_stop=should_stop,
                )
            )
            recorder.uses(model)
        recorder.mark("prefill")
        deltas = held.enter_context(
            closing(model.stream(request.messages, request.options, should_stop))
        )
        for last in deltas:
            if first_seconds is None and (last.text or last.reasoning):
                first_seconds = recorder.elapsed_seconds()
                recorder.mark("decode")
            text.append(last.text)
            reasoning.append(last.reasoning)
            yield last
        total_seconds = recorder.elapsed_seconds()
    assert last.finish_reason is not None, f"{request.spec.engine} did not finish its answer"
    reply_text = "".join(text)
    timings = _timings(recorder, last, first_seconds, total_seconds)
    if request.reference is not None and last.finish_reason != "cancelled":
        recorder.quality.update(score(request.reference, reply_text))
    return Reply(
        text=reply_text,
        reasoning="".join(reasoning),
        model=request.spec.id,
        usage=last.usage,
        timings=timings,
        finish_reason=last.finish_reason,
        record=recorder.finish(),
    )


def _timings(
    recorder: Recorder, last: ChatDelta, first_seconds: float | None, total_seconds: float
) -> ChatTimings:
    """The marks as timings, phases (load, prompt, decode) and metrics of the record."""
    prompt_end = total_seconds if first_seconds is None else first_seconds
    recorder.phase_seconds["prompt"] = prompt_end - recorder.phase_seconds["load"]
    recorder.phase_seconds["decode"] = total_seconds - prompt_end
    timings = ChatTimings(
        first_token_seconds=first_seconds,
        total_seconds=total_seconds,
        tokens_per_second=last.speed.tokens_per_second if last.speed else None,
        prompt_tokens_per_second=last.speed.prompt_tokens_per_second if last.speed else None,
    )
    if last.speed is None and last.usage and last.usage.completion_tokens > 1:
        # the first token belongs to the prompt's time
        rate = (last.usage.completion_tokens - 1) / max(1e-9, recorder.phase_seconds["decode"])
        timings = replace(timings, tokens_per_second=rate)
    measured = asdict(timings) | (asdict(last.usage) if last.usage else {})
    recorder.metrics.update({name: float(v) for name, v in measured.items() if v is not None})
    return timings
