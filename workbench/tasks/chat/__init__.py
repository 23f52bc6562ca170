"""Chat: a prompt or a conversation in, a `Reply` out."""

from workbench.tasks.chat.conversation import Conversation
from workbench.tasks.chat.run import chat
from workbench.tasks.chat.types import ChatTimings, Reply

__all__ = ["ChatTimings", "Conversation", "Reply", "chat"]
