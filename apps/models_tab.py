"""The Models & memory tab: what is here, what fits, what is loaded, and why."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gradio as gr

import workbench
from apps import render
from apps.jobs import Job
from apps.memory_history import history_chart, history_table
from apps.messages import progress_line, shown_errors
from apps.model_tables import loaded_table, log_table, models_table
from apps.page import QUIET, Page
from apps.plan_panel import PlanPanel
from apps.texts import text
from workbench.errors import Cancelled
from workbench.units import format_bytes

TAB = "models"


class ModelsTab:
    """The tab's components and events, added to the open `gr.Blocks`."""

    def __init__(self, page: Page, tab: Any) -> None:
        self.page = page
        self._lay_out_catalogue()
        self._lay_out_memory()
        self._wire(tab)

    def _lay_out_catalogue(self) -> None:
        make = self.page.words.make
        self.table = make(
            gr.Dataframe, {"label": "models.table"}, interactive=False, elem_id="models-table"
        )
        self.panel = PlanPanel(self.page)
        with gr.Row():
            self.plan = make(
                gr.Button,
                {"value": "models.plan"},
                size="md",
                min_width=120,
                elem_id="models-plan",
            )
            self.pull = self.page.run_button("models.pull", "models-pull")
            self.verify = make(
                gr.Button,
                {"value": "models.verify"},
                size="md",
                min_width=120,
                elem_id="models-verify",
            )
            self.stop = self.page.stop_button("models-stop")
        self.status = gr.HTML(elem_id="models-status")
        self.picture = gr.HTML(elem_id="models-picture")
        self.terms = gr.Dataframe(
            visible=False, show_label=False, interactive=False, elem_id="models-terms"
        )

    def _lay_out_memory(self) -> None:
        make = self.page.words.make
        with gr.Row():
            with gr.Column(scale=4, min_width=310):
                self.loaded = make(
                    gr.Dataframe,
                    {"label": "models.loaded"},
                    interactive=False,
                    elem_id="models-loaded",
                )
            with gr.Column(scale=1, min_width=160):
                self.unload = make(
                    gr.Button, {"value": "models.unload"}, size="md", elem_id="models-unload"
                )
                self.refresh = make(gr.Button, {"value": "common.refresh"}, size="md")
        self.log = make(
            gr.Dataframe,
            {"label": "models.log"},
            interactive=False,
            wrap=True,
            elem_id="models-log",
        )
        with make(gr.Accordion, {"label": "history.title"}, open=True):
            self.chart = gr.HTML(elem_id="models-history-chart")
            self.history = gr.Dataframe(
                show_label=False, interactive=False, wrap=True, elem_id="models-history"
            )

    def _wire(self, tab: Any) -> None:
        page = self.page
        tables = [self.table, self.loaded, self.log, self.chart, self.history, page.memory]
        lists = [component for _, component in page.model_lists]
        self.panel.wire(self.plan, self.status, self.picture, self.terms)
        self.unload.click(
            self.free, page.language, self.status, api_name="unload", show_progress="hidden"
        ).then(self.show, page.language, tables, **QUIET)
        page.on_stop(TAB, self.stop, self.status)
        for button, run in ((self.pull, self.run_pull), (self.verify, self.run_verify)):
            (ended,) = page.on_run(
                TAB,
                [button.click],
                run,
                [self.panel.model],
                [self.status],
                buttons=[self.pull, self.verify],
                stop=self.stop,
                status=self.status,
                api_name=run.__name__.removeprefix("run_"),
                concurrency_id="files",
            )
            ended.then(self.show, page.language, tables, **QUIET)
            ended.then(self.refresh_lists, page.language, lists, **QUIET)
        self.refresh.click(self.show, page.language, tables, **QUIET)
        tab.select(self.show, page.language, tables, **QUIET)

    def show(self, language: str) -> list[Any]:
        """The tables as they are now, and the memory bar."""
        with shown_errors(language):
            return [
                models_table(language),
                loaded_table(language),
                log_table(language),
                history_chart(language),
                history_table(language),
                render.memory_bar(language),
            ]

    def refresh_lists(self, language: str) -> list[Any]:
        """Show in every list of models which ones are here now."""
        return [gr.update(choices=choices) for _, choices in self.page.fresh_choices(language)]

    def free(self, language: str) -> str:
        """Free the models that nobody uses."""
        freed = workbench.pool.unload()
        line = text("models.freed_none", language)
        if freed:
            line = text("models.freed", language, models=", ".join(freed))
        return render.status(line, kind="done")

    def run_pull(self, model: str, language: str, request: gr.Request) -> Iterator[dict[Any, Any]]:
        """Bring a model here, with progress."""

        def work(job: Job) -> Any:
            return workbench.models.pull(model, progress=reporter(job))

        for update in self.page.follow(TAB, request, work, uses_device=False):
            if update.result is not None:
                line = text("models.pulled", language, model=model, path=update.result)
                yield {self.status: render.status(line, kind="done")}
            elif update.events:
                yield {self.status: file_line(update.events[-1], update.seconds, language)}

    def run_verify(
        self, model: str, language: str, request: gr.Request
    ) -> Iterator[dict[Any, Any]]:
        """Hash a model's files again and compare, with progress."""

        def work(job: Job) -> Any:
            return workbench.models.verify(model, progress=reporter(job))

        for update in self.page.follow(TAB, request, work, uses_device=False):
            if update.result is not None:
                yield {self.status: verdict(model, update.result, language)}
            elif update.events:
                yield {self.status: file_line(update.events[-1], update.seconds, language)}


def reporter(job: Job) -> Any:
    """A progress callback that shows on the page and obeys Stop (finished parts are kept)."""

    def report(done: int, total: int | None, what: str) -> None:
        if job.stop_event.is_set():
            raise Cancelled("It was stopped; what has arrived is kept and a new pull goes on.")
        job.send((done, total, what))

    return report


def file_line(event: tuple[int, int | None, str], seconds: float, language: str) -> str:
    """How far a pull or a check is."""
    done, total, what = event
    if not total:
        return render.status(what)
    sizes = {"done": format_bytes(done), "total": format_bytes(total)}
    line = text("models.pulling", language, what=what, **sizes)
    return progress_line(line, done, total, seconds, language)


def verdict(model_id: str, checks: list[Any], language: str) -> str:
    """What a check of the files found."""
    if not checks:
        return render.status(text("models.nothing_to_verify", language, model=model_id))
    wrong = [f"{check.name}: {check.state}" for check in checks if not is_right(check)]
    if wrong:
        line = text("models.wrong", language, model=model_id, files=", ".join(wrong))
        return render.status(line, kind="error")
    line = text("models.verified", language, model=model_id, count=len(checks))
    return render.status(line, kind="done")


def is_right(check: Any) -> bool:
    """Whether one file is what the catalogue says, where it says anything."""
    return check.state in ("ok", "no checksum known")
