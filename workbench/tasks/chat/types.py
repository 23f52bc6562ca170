"""What a chat gives back."""

from __future__ import annotations

import html
from dataclasses import asdict, dataclass
from typing import Any, Literal

from workbench.engines.base import Usage
from workbench.tasks.record import Record


@dataclass(frozen=True)
class ChatTimings:
    """How long an answer took.

    ``first_token_seconds`` is from the request (loading included) to the first text or reasoning,
    ``total_seconds`` to the end. The speeds are the engine's own; where it gives none (providers),
    ``tokens_per_second`` is measured here from the first to the last token. None: there was too
    little to measure.
    """

    first_token_seconds: float | None
    total_seconds: float
    tokens_per_second: float | None
    prompt_tokens_per_second: float | None


@dataclass(frozen=True)
class Reply:
    """One answer. ``reasoning`` is what the model thought aloud before it, kept apart.

    ``finish_reason``: stop (the model was done), length (``max_tokens`` or the context is used
    up), cancelled (stopped on request). ``usage`` is None where a provider does not count.
    """

    text: str
    reasoning: str
    model: str
    usage: Usage | None
    timings: ChatTimings
    finish_reason: Literal["stop", "length", "cancelled"]
    record: Record

    def summary(self) -> str:
        """One line: model, tokens and speed, as far as they are known."""
        parts = []
        if self.usage is not None:
            parts.append(f"{self.usage.completion_tokens} tokens")
        if self.timings.first_token_seconds is not None:
            parts.append(f"first after {self.timings.first_token_seconds:.2f} s")
        if self.timings.tokens_per_second is not None:
            parts.append(f"{self.timings.tokens_per_second:.1f} tokens/s")
        if self.finish_reason != "stop":
            parts.append(
                {"length": "cut at its length", "cancelled": "stopped"}[self.finish_reason]
            )
        return f"{self.model}: {', '.join(parts) or 'no answer'}"

    def to_dict(self) -> dict[str, Any]:
        """The reply as JSON types."""
        unknown = {"prompt_tokens": None, "completion_tokens": None}
        return {
            "text": self.text,
            "reasoning": self.reasoning,
            "model": self.model,
            "usage": unknown if self.usage is None else asdict(self.usage),
            "timings": asdict(self.timings),
            "finish_reason": self.finish_reason,
            "quality": dict(self.record.quality),
        }

    def __str__(self) -> str:
        return self.text

    def _repr_html_(self) -> str:
        thought = f"<details><summary>Reasoning</summary>{html.escape(self.reasoning)}</details>"
        parts = [
            thought if self.reasoning else "",
            f'<div style="white-space: pre-wrap">{html.escape(self.text)}</div>',
            f"<small>{html.escape(self.summary())}</small>",
        ]
        return "".join(parts)
