"""The Models & memory tab: what is here, what fits, what is loaded, and why."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gradio as gr

import workbench
from apps import render
from apps.jobs import Job
from apps.messages import progress_line, shown_errors
from apps.model_tables import loaded_table, log_table, models_table, plan_table
from apps.page import QUIET, Page
from apps.texts import text
from workbench.errors import Cancelled
from workbench.settings import get_settings
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
        ids = [spec.id for spec in workbench.models.list()]
        self.table = make(
            gr.Dataframe, {"label": "models.table"}, interactive=False, elem_id="models-table"
        )
        with gr.Row():
            self.model = make(
                gr.Dropdown,
                {"label": "common.model"},
                choices=ids,
                value=get_settings().models.chat,
                min_width=220,
                elem_id="models-model",
            )
            self.budget = make(
                gr.Textbox,
                {"label": "models.budget", "info": "models.budget_info"},
                value="",
                max_lines=1,
                min_width=180,
            )
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

    def _wire(self, tab: Any) -> None:
        page = self.page
        tables = [self.table, self.loaded, self.log, page.memory]
        lists = [component for _, component in page.model_lists]
        self.plan.click(
            self.show_plan,
            [self.model, self.budget, page.language],
            [self.status, self.terms],
            api_name="plan",
            show_progress="hidden",
        )
        self.unload.click(
            self.free, page.language, self.status, api_name="unload", show_progress="hidden"
        ).then(self.show, page.language, tables, **QUIET)
        page.on_stop(TAB, self.stop, self.status)
        for button, run in ((self.pull, self.run_pull), (self.verify, self.run_verify)):
            (ended,) = page.on_run(
                TAB,
                [button.click],
                run,
                [self.model],
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
                render.memory_bar(language),
            ]

    def refresh_lists(self, language: str) -> list[Any]:
        """Show in every list of models which ones are here now."""
        return [gr.update(choices=choices) for _, choices in self.page.fresh_choices(language)]

    def show_plan(self, model: str, memory: str, language: str) -> tuple[str, Any]:
        """Whether a model fits, with every number that led to the answer."""
        with shown_errors(language):
            found = workbench.plan(model, memory.strip() or None)
            key = "models.fits" if found.fits else "models.fits_not"
            line = " · ".join([text(key, language, model=model), *found.cheapest_fixes])
            return (
                render.status(line, kind="done" if found.fits else "error"),
                gr.update(value=plan_table(found, language), visible=True),
            )

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
