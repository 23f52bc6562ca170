"""Text from tokens as they come: whole characters only, and nothing from a stop string on."""

from __future__ import annotations

from collections.abc import Callable, Sequence


class Detokenizer:
    """Turns one token after another into text that can be shown.

    A character whose bytes are spread over several tokens comes out when it is complete. Each
    step decodes only the tokens since the last break, with those before it as context, because
    what a token looks like (a leading space, say) depends on its neighbours. Source: the
    incremental detokenization of text-generation-inference.
    """

    def __init__(self, decode: Callable[[list[int]], str]) -> None:
        self._decode = decode
        self._tokens: list[int] = []
        self._context_start = 0
        self._shown_end = 0

    def push(self, token: int) -> str:
        """The text that ``token`` completes; empty while a character is incomplete."""
        self._tokens.append(token)
        context = self._decode(self._tokens[self._context_start : self._shown_end])
        text = self._decode(self._tokens[self._context_start :])
        if len(text) <= len(context) or text.endswith("\N{REPLACEMENT CHARACTER}"):
            return ""
        self._context_start, self._shown_end = self._shown_end, len(self._tokens)
        return text[len(context) :]


class StopStrings:
    """Cuts a stream of text before the first stop string, which is never shown, nor any part."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._held = ""
        self.found = False

    def push(self, text: str) -> str:
        """The text that is safe to show now. After a stop string: what stood before it."""
        self._held += text
        ends = [end for stop in self._stops if (end := self._held.find(stop)) >= 0]
        if ends:
            self.found = True
            shown, self._held = self._held[: min(ends)], ""
            return shown
        keep = max((_overlap(self._held, stop) for stop in self._stops), default=0)
        shown, self._held = (
            self._held[: len(self._held) - keep],
            self._held[len(self._held) - keep :],
        )
        return shown

    def flush(self) -> str:
        """What was held back, at the end of the answer."""
        shown, self._held = self._held, ""
        return shown


def _overlap(text: str, stop: str) -> int:
    """How many characters at the end of ``text`` could begin ``stop``."""
    longest = min(len(text), len(stop) - 1)
    return next((n for n in range(longest, 0, -1) if text.endswith(stop[:n])), 0)
