"""How much memory a conversation can ask for, known before a model counts its tokens."""

from __future__ import annotations

from collections.abc import Sequence

from workbench.engines.base import ChatOptions, Message
from workbench.memory.request import RequestSize

#: What a chat template adds for a turn: marks, the role, line breaks.
_TURN_TOKENS = 32


def largest_size(messages: Sequence[Message], options: ChatOptions) -> RequestSize:
    """A bound on what the conversation and its answer can take, before a model counts tokens.

    No tokenizer makes more tokens than there are bytes; a template adds some for every turn.
    """
    text = sum(len(message.content.encode()) + _TURN_TOKENS for message in messages)
    return RequestSize(prompt_tokens=text + options.max_tokens)
