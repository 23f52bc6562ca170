"""A conversation that remembers what was said."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any, Literal, overload

from workbench.engines.base import Message, StopCheck
from workbench.tasks.chat.request import make_request
from workbench.tasks.chat.run import ChatEvents, ChatStream, answer
from workbench.tasks.chat.types import Reply
from workbench.tasks.record import Recorder
from workbench.tasks.stream import Stream


@dataclass
class Conversation:
    """Messages so far, and how to answer; the options are those of `workbench.chat`.

    ``messages`` is a tuple that `say` replaces when an answer is there, so a copy of it is a
    point to go back to. A stopped answer is kept as far as it came; one that failed, or of which
    nothing came, leaves the conversation as it was.
    """

    messages: tuple[Message, ...] = ()
    model: str | None = None
    system: str | None = None
    max_tokens: int = 512
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    stop: tuple[str, ...] = field(default=())

    @overload
    def say(self, prompt: str, *, stream: Literal[False] = ...) -> Reply: ...

    @overload
    def say(self, prompt: str, *, stream: Literal[True]) -> ChatStream: ...

    def say(self, prompt: str, *, stream: bool = False) -> Reply | ChatStream:
        """Ask, and remember question and answer. Raises what `workbench.chat` raises."""
        asked = (*self.messages, Message("user", prompt))
        options: dict[str, Any] = {
            option.name: getattr(self, option.name)
            for option in fields(self)
            if option.name != "messages"
        }
        request = make_request(asked, reference=None, **options)
        recorder = Recorder("chat", request.spec, request.to_dict())

        def remember(should_stop: StopCheck) -> ChatEvents:
            reply = yield from answer(request, recorder, should_stop)
            if reply.text:
                self.messages = (*asked, Message("assistant", reply.text))
            return reply

        running: ChatStream = Stream(remember)
        return running if stream else running.result
