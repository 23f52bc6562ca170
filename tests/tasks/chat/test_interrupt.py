"""Ctrl+C while an answer is printed."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from typing import Any

from workbench import terminal
from workbench.tasks.stream import Stream


class _Result:
    def summary(self) -> str:
        return "stopped in time"


def test_ctrl_c_stops_the_answer_and_keeps_the_text(capsys):
    def events(should_stop: Any) -> Iterator[Any]:
        yield type("Delta", (), {"text": "one"})
        # inside the stream, where an exception would lose what there is
        signal.raise_signal(signal.SIGINT)
        assert should_stop()
        return _Result()

    before = signal.getsignal(signal.SIGINT)
    terminal._say(Stream(events))
    shown = capsys.readouterr()
    assert (shown.out, shown.err) == ("one\n", "stopped in time\n")
    assert signal.getsignal(signal.SIGINT) is before
