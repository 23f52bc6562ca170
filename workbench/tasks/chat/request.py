"""What is asked of a chat model, checked before anything is loaded."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from workbench import models
from workbench.engines.base import ChatOptions, Message
from workbench.errors import UserInputError
from workbench.models.spec import ModelSpec
from workbench.settings import get_settings

_ROLES = ("system", "user", "assistant")
_SEED_LIMIT = 2**32


@dataclass(frozen=True)
class ChatRequest:
    """One request: the model, the whole conversation, how to answer, and the true answer."""

    spec: ModelSpec
    messages: tuple[Message, ...]
    options: ChatOptions
    reference: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """The request as it stands in the record."""
        return {
            "messages": [asdict(message) for message in self.messages],
            **asdict(self.options),
            "reference": self.reference,
        }


def make_request(
    prompt: str | Sequence[Message],
    model: str | None,
    system: str | None,
    stop: str | Sequence[str],
    reference: str | None,
    **options: Any,
) -> ChatRequest:
    """Check everything and put it together. ``options`` are those of `ChatOptions`.

    Raises UserInputError, UnknownModel.
    """
    messages = _messages(prompt, system)
    stops = (stop,) if isinstance(stop, str) else tuple(stop)
    chosen = ChatOptions(
        stop=stops,
        # a conversation goes on from what the model read and wrote a moment ago
        reuse_prefix=any(message.role == "assistant" for message in messages),
        **options,
    )
    _check(chosen)
    if reference is not None and not reference.strip():
        raise UserInputError("The reference is empty.", "Give the true answer, or leave it out.")
    spec = models.get(model or get_settings().models.chat, task="chat")
    return ChatRequest(spec, messages, chosen, reference)


def _messages(prompt: str | Sequence[Message], system: str | None) -> tuple[Message, ...]:
    messages = (Message("user", prompt),) if isinstance(prompt, str) else tuple(prompt)
    if system is not None:
        if any(isinstance(m, Message) and m.role == "system" for m in messages):
            raise UserInputError(
                "The conversation has a system message and `system` gives another.",
                "Give one of them.",
            )
        messages = (Message("system", system), *messages)
    for number, message in enumerate(messages, start=1):
        if not isinstance(message, Message) or not isinstance(message.content, str):
            raise UserInputError(
                f"Message {number} of the conversation is not a Message with text.",
                "Write Message('user', 'text') from workbench.engines.base.",
            )
        if message.role not in _ROLES:
            raise UserInputError(
                f"Message {number} has the role {message.role!r}.", f"Use {', '.join(_ROLES)}."
            )
        try:
            message.content.encode()
        except UnicodeEncodeError:
            raise UserInputError(
                f"Message {number} is not valid text: it has half of a surrogate pair.",
                "Decode the text with the right encoding first.",
            ) from None
    if not messages or messages[-1].role != "user":
        raise UserInputError(
            "The conversation does not end with a message of the user.", "Add what you want to ask."
        )
    if not messages[-1].content.strip():
        raise UserInputError("The prompt is empty.", "Write what you want to ask.")
    return messages


def _check(options: ChatOptions) -> None:
    wrong = None
    if options.max_tokens < 1:
        wrong = f"max_tokens is {options.max_tokens}.", "Give at least 1."
    elif not (math.isfinite(options.temperature) and options.temperature >= 0):
        wrong = f"temperature is {options.temperature}.", "Give 0 (greedy) or more."
    elif not 0 < options.top_p <= 1:
        wrong = f"top_p is {options.top_p}.", "Give more than 0 and at most 1 (all tokens)."
    elif not 0 <= options.seed < _SEED_LIMIT:
        wrong = f"seed is {options.seed}.", f"Give a whole number from 0 to {_SEED_LIMIT - 1}."
    elif not all(isinstance(stop, str) and stop for stop in options.stop):
        wrong = "A stop string is empty.", "Leave it out."
    elif options.grammar is not None and options.json_schema is not None:
        wrong = "Both grammar and json_schema are given.", "Give one of them."
    if wrong is not None:
        raise UserInputError(*wrong)
