"""What the page says: progress, and what went wrong with what to do. No traceback, no HTML."""

from __future__ import annotations

import contextlib
import functools
import logging
import time
from collections.abc import Callable, Iterator
from html import escape
from typing import Any

import gradio as gr

from apps import render
from apps.jobs import Update
from apps.texts import text
from workbench.errors import Cancelled, WorkbenchError

logger = logging.getLogger(__name__)


def reported(run: Callable[..., Iterator[Any]], status: Any) -> Callable[..., Iterator[Any]]:
    """``run``, with what goes wrong said in the tab's status line and in a message.

    The last two values of ``run`` are the language and the request.
    """

    @functools.wraps(run)
    def reporting(*values: Any) -> Iterator[Any]:
        language = str(values[-2])
        started = time.perf_counter()
        try:
            yield from run(*values)
        except Cancelled:
            seconds = time.perf_counter() - started
            line = text("common.stopped", language, seconds=seconds)
            yield {status: render.status(line)}
        except Exception as error:
            message = message_of(error, language)
            yield {status: render.status(message, kind="error")}
            raise shown(message, language) from None

    return reporting


@contextlib.contextmanager
def shown_errors(language: str) -> Iterator[None]:
    """Turn what goes wrong in a light handler into a message on the page."""
    try:
        yield
    except Exception as error:
        raise shown(message_of(error, language), language) from None


def message_of(error: Exception, language: str) -> str:
    """What is wrong and what to do. The unexpected is logged and shown in one line."""
    if isinstance(error, WorkbenchError):
        return str(error)
    logger.error("A handler of the app failed", exc_info=error)
    first = (str(error).strip().splitlines() or [""])[0]
    return text("common.internal", language, kind=type(error).__name__, message=first)


def shown(message: str, language: str) -> gr.Error:
    """An error for the page; Gradio would render its message as HTML."""
    return gr.Error(
        escape(message), title=text("common.error", language), print_exception=False, duration=15
    )


def waiting_line(update: Update, language: str) -> str:
    """The status line before a model says anything."""
    key = "common.waiting" if update.waiting else "common.loading"
    return render.status(text(key, language, seconds=update.seconds))


def progress_line(message: str, done: float, total: float, seconds: float, language: str) -> str:
    """A status line with a bar and the seconds left."""
    left = render.eta_seconds(done, total, seconds)
    eta = " · " + text("common.eta", language, seconds=left) if left is not None else ""
    return render.status(message + eta, done=done / total if total else None)
