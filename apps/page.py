"""What every tab shares: texts that change language, and the one way to run something heavy."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import gradio as gr

import workbench
from apps import render
from apps.jobs import Job, Jobs, StreamLike, Update
from apps.messages import reported, shown_errors
from apps.texts import text
from workbench.errors import ChecksumMismatch
from workbench.models.spec import Task

#: All events that use the device share this, so that no two tabs load two models at once.
DEVICE = "device"
#: For events that only change the page: no place in the queue, no name in the API, no spinner.
QUIET: dict[str, Any] = {"queue": False, "api_visibility": "private", "show_progress": "hidden"}


class Words:
    """Makes components in one language and remembers which text is where, to change it later."""

    def __init__(self, language: str) -> None:
        self.language = language
        self._places: list[tuple[Any, dict[str, str]]] = []

    def make(self, kind: Callable[..., Any], texts: dict[str, str], **options: Any) -> Any:
        """``kind(**options)`` with ``texts``: {property: key of `apps.texts`}."""
        values = {name: text(key, self.language) for name, key in texts.items()}
        component = kind(**values, **options)
        self._places.append((component, texts))
        return component

    def translated(self, language: str) -> dict[Any, dict[str, Any]]:
        """{component: {property: text}} of every component that has a text."""
        return {
            component: {name: text(key, language) for name, key in texts.items()}
            for component, texts in self._places
        }


@dataclass
class Page:
    """The parts of the page that tabs use. ``local``: it is served to this machine alone."""

    words: Words
    local: bool
    language: Any = None
    record: Any = None
    memory: Any = None
    jobs: Jobs = field(default_factory=Jobs)
    model_lists: list[tuple[Task, Any]] = field(default_factory=list)

    def choose_model(self, task: Task, default: str, elem_id: str | None = None) -> Any:
        """A list of the models of one task, marked where a model is not on this machine."""
        chosen = self.words.make(
            gr.Dropdown,
            {"label": "common.model"},
            choices=choices_of(task, self.words.language),
            value=workbench.models.get(default).id,
            min_width=200,
            elem_id=elem_id or f"{task}-model",
        )
        self.model_lists.append((task, chosen))
        return chosen

    def run_button(self, key: str, elem_id: str) -> Any:
        """The one primary button of a tab."""
        return self.words.make(
            gr.Button, {"value": key}, variant="primary", size="md", min_width=100, elem_id=elem_id
        )

    def stop_button(self, elem_id: str, key: str = "common.stop") -> Any:
        """A Stop button; it can be pressed only while something runs."""
        return self.words.make(
            gr.Button,
            {"value": key},
            variant="stop",
            size="md",
            interactive=False,
            min_width=100,
            elem_id=elem_id,
        )

    def examples(self, samples: Sequence[str], elem_id: str) -> Any:
        """Examples to click; the event gives the index of the one that was clicked."""
        return self.words.make(
            gr.Dataset,
            {"label": "common.examples"},
            components=[gr.Textbox(visible=False)],
            samples=[[sample] for sample in samples],
            type="index",
            elem_id=elem_id,
        )

    def fresh_choices(self, language: str) -> list[tuple[Any, list[tuple[str, str]]]]:
        """(model list, its choices as they are now), after a model came or went."""
        return [(component, choices_of(task, language)) for task, component in self.model_lists]

    def on_run(
        self,
        tab: str,
        starts: Sequence[Callable[..., Any]],
        run: Callable[..., Iterator[Any]],
        inputs: Sequence[Any],
        outputs: Sequence[Any],
        *,
        buttons: Sequence[Any],
        stop: Any,
        status: Any,
        api_name: str,
        concurrency_id: str = DEVICE,
    ) -> list[Any]:
        """Wire a heavy handler: Run is disabled and Stop enabled while it works.

        ``starts`` are event listeners (``button.click``). ``run`` is a generator that takes the
        values of ``inputs``, the language, and the `gr.Request`, and yields {component: value}.
        Returns the event that ends a run, one for each start.
        """
        run = reported(run, status)

        def begin(language: str, request: gr.Request) -> list[Any]:
            with shown_errors(language):
                self.jobs.begin(page_of(request), tab)
            return [*(gr.update(interactive=False) for _ in buttons), gr.update(interactive=True)]

        def end(language: str, request: gr.Request) -> list[Any]:
            self.jobs.end_unstarted(page_of(request), tab)
            free = [gr.update(interactive=True) for _ in buttons]
            return [*free, gr.update(interactive=False), render.memory_bar(language)]

        ends: list[Any] = []
        for start in starts:
            begun = start(begin, self.language, [*buttons, stop], **QUIET)
            ran = begun.success(
                run,
                [*inputs, self.language],
                list(outputs),
                concurrency_id=concurrency_id,
                concurrency_limit=1,
                show_progress="hidden",
                **({"api_name": api_name} if not ends else {"api_visibility": "private"}),
            )
            ended = [*buttons, stop, self.memory]
            ends.append(ran.then(end, self.language, ended, **QUIET))
            # Gradio 6.31's pages follow `then` after success alone
            ran.failure(end, self.language, ended, **QUIET)
        return ends

    def on_stop(self, tab: str, stop: Any, status: Any) -> None:
        """Wire the Stop button of a tab: it stops this page's job of this tab and no other."""

        def ask_to_stop(language: str, request: gr.Request) -> Any:
            if not self.jobs.stop(page_of(request), tab):
                return gr.skip()
            return render.status(text("common.stopping", language))

        stop.click(ask_to_stop, self.language, status, **QUIET)

    def follow(
        self,
        tab: str,
        request: gr.Request | None,
        work: Callable[[Job], Any],
        *,
        uses_device: bool = True,
    ) -> Iterator[Update]:
        """Run ``work`` as the tab's job and yield its updates. Raises what ``work`` raises."""
        page = page_of(request)
        job = self.jobs.current(page, tab)
        try:
            yield from job.follow(work, self.jobs.device if uses_device else None)
        finally:
            self.jobs.end(page, tab, job)


def choices_of(task: Task, language: str) -> list[tuple[str, str]]:
    """(what is shown, id) of every model of ``task``."""
    mark = text("common.not_here", language)
    return [
        (spec.id if is_here(spec.id) else f"{spec.id} ({mark})", spec.id)
        for spec in workbench.models.list(task)
    ]


def is_here(model_id: str) -> bool:
    """Whether a model can be used without pulling it (a damaged one cannot)."""
    if workbench.models.get(model_id).is_remote:
        return True
    try:
        return workbench.models.locate(model_id) is not None
    except ChecksumMismatch:
        return False


def play(make: Callable[[], StreamLike], record: bool) -> Callable[[Job], Any]:
    """Work that plays a stream of a task, recorded in MLflow when ``record`` is on."""

    def work(job: Job) -> Any:
        with workbench.track("app") if record else contextlib.nullcontext():
            return job.play(make())

    return work


def page_of(request: gr.Request | None) -> str:
    """Which browser page (or API client) a call comes from."""
    return str(request.session_hash) if request is not None and request.session_hash else "direct"
