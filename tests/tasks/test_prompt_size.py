"""The bound on a conversation's tokens holds for real tokenizers, in any script."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.engines.base import ChatOptions, Message
from workbench.tasks.prompt_size import largest_size


@given(st.lists(st.text(max_size=50), min_size=1, max_size=4), st.integers(1, 4096))
def test_more_text_or_a_longer_answer_never_asks_for_less(texts: list[str], answer: int):
    messages = [Message("user", text) for text in texts]
    options = ChatOptions(max_tokens=answer)
    size = largest_size(messages, options).prompt_tokens
    assert size is not None
    longer = largest_size([*messages, Message("user", "")], options).prompt_tokens
    assert longer is not None and longer > size > answer


@pytest.mark.models
@pytest.mark.parametrize("text", ["Xin chào, bạn khỏe không? " * 5, "日本語" * 20, "a" * 100, "🙂"])
def test_a_prompt_never_has_more_tokens_than_the_bound(text: str):
    import workbench

    reply = workbench.chat(text, model="smollm2-135m", max_tokens=1)
    bound = largest_size([Message("user", text)], ChatOptions(max_tokens=1)).prompt_tokens
    assert reply.usage is not None and bound is not None
    assert reply.usage.prompt_tokens + 1 <= bound
