"""What the commands share: printing, progress, talking, and options that many of them have.

Results go to standard output, the rest to standard error.
"""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.progress import Progress as Bar


def complete_model(incomplete: str) -> list[str]:
    import workbench

    return [spec.id for spec in workbench.models.list() if spec.id.startswith(incomplete)]


AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
ModelName = Annotated[
    str | None,
    typer.Option(
        "--model", "-m", help="A catalogue id, a path, or org/name.", autocompletion=complete_model
    ),
]


def converse(system: str | None, options: dict[str, Any]) -> None:
    """A conversation until the end of input; Ctrl+C stops the answer, not the conversation."""
    from workbench.tasks.chat import Conversation

    conversation = Conversation(system=system, **options)
    print("An empty line or Ctrl+D ends the conversation; Ctrl+C stops an answer.", file=sys.stderr)
    while True:
        try:
            prompt = input("> ").strip()
        except (EOFError, KeyboardInterrupt):
            print()
            return
        if not prompt:
            return
        _say(conversation.say(prompt, stream=True))


def _say(stream: Any) -> None:
    """Print an answer as it comes; Ctrl+C stops it and keeps the text so far."""
    # an exception would end the stream itself, and with it the text
    before = signal.signal(signal.SIGINT, lambda *_: stream.stop())
    try:
        for delta in stream:
            print(delta.text, end="", flush=True)
    finally:
        signal.signal(signal.SIGINT, before)
    print()
    print(stream.result.summary(), file=sys.stderr)


def print_json(value: dict[str, Any]) -> None:
    print(json.dumps(value, ensure_ascii=False, default=str))


def print_table(columns: Any, rows: Any, row_count: int, truncated: bool) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(*[str(column) for column in columns])
    for row in rows[:50]:
        table.add_row(*["" if value is None else str(value) for value in row])
    Console().print(table, markup=False)
    shown = min(50, len(rows))
    note = f"{shown} of {row_count} rows" if shown < row_count else f"{row_count} rows"
    print(note + (" (cut at the limit: there are more)" if truncated else ""), file=sys.stderr)


@contextmanager
def progress(what: str, *, quiet: bool, in_bytes: bool = False) -> Iterator[tuple[Bar, Any]]:
    """A bar with the time left, on standard error, only where a person watches."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns: list[Any] = [TextColumn("{task.description}"), BarColumn()]
    columns += [DownloadColumn()] if in_bytes else [TextColumn("{task.percentage:>3.0f}%")]
    columns.append(TimeRemainingColumn())
    hidden = quiet or not console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=hidden) as bar:
        yield bar, bar.add_task(what, total=None)
