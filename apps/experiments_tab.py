"""The Experiments tab: recorded runs as a table and a chart, and one small sweep to start with."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import gradio as gr

import workbench
from apps import render
from apps.jobs import Job
from apps.messages import shown_errors
from apps.page import Page
from apps.scatter import Point, scatter
from apps.texts import text
from workbench.errors import Cancelled
from workbench.project import project_root

if TYPE_CHECKING:
    import pandas as pd

TAB = "experiments"
SWEEP = "whisper_compute_type"
X, Y = "seconds", "wer"
#: The choice that filters nothing.
ALL = ""


class ExperimentsTab:
    """The tab's components and events, added to the open `gr.Blocks`."""

    def __init__(self, page: Page, tab: Any) -> None:
        self.page = page
        self._lay_out()
        self._lay_out_chart()
        self._wire(tab)

    def _lay_out(self) -> None:
        make = self.page.words.make
        with gr.Row(elem_classes="low"):
            self.experiment = make(
                gr.Dropdown,
                {"label": "experiments.filter"},
                choices=[(text("experiments.all", self.page.words.language), ALL)],
                value=ALL,
                min_width=200,
                elem_id="experiments-filter",
            )
            self.refresh = make(gr.Button, {"value": "common.refresh"}, size="md", min_width=120)
            self.sweep = self.page.run_button("experiments.sweep", "experiments-sweep")
            self.stop = self.page.stop_button("experiments-stop")
        self.status = gr.HTML(elem_id="experiments-status")
        self.count = gr.HTML(elem_id="experiments-count")
        self.table = make(
            gr.Dataframe,
            {"label": "experiments.runs"},
            interactive=False,
            max_height=360,
            visible=False,
            elem_id="experiments-runs",
        )

    def _lay_out_chart(self) -> None:
        make = self.page.words.make
        with gr.Row():
            self.across = make(
                gr.Dropdown, {"label": "experiments.x"}, choices=[X], value=X, min_width=140
            )
            self.up = make(
                gr.Dropdown, {"label": "experiments.y"}, choices=[Y], value=Y, min_width=140
            )
        self.chart = gr.HTML(elem_id="experiments-chart")
        make(gr.Markdown, {"value": "experiments.open"})

    def _wire(self, tab: Any) -> None:
        look = [self.experiment, self.across, self.up, self.page.language]
        shown = [self.experiment, self.count, self.table, self.across, self.up, self.chart]
        busy: dict[str, Any] = {"api_visibility": "private", "show_progress": "minimal"}
        self.page.on_stop(TAB, self.stop, self.status)
        (ended,) = self.page.on_run(
            TAB,
            [self.sweep.click],
            self.run,
            [],
            [self.status],
            buttons=[self.sweep],
            stop=self.stop,
            status=self.status,
            api_name="sweep",
        )
        ended.then(self.show, look, shown, **busy)
        tab.select(self.show, look, shown, **busy)
        self.refresh.click(self.show, look, shown, **busy)
        for choice in (self.experiment, self.across, self.up):
            choice.input(self.show, look, shown, **busy)

    def show(self, experiment: str, x: str, y: str, language: str) -> dict[Any, Any]:
        """The runs of one experiment, or of all, as a table and a chart."""
        with shown_errors(language):
            from workbench.lab import store

            names = store.experiments()
            everything = store.runs()
        chosen = experiment if experiment in names else ALL
        runs = everything if chosen == ALL else everything[everything["experiment"] == chosen]
        key = "experiments.count" if len(runs) else "experiments.none"
        # of all runs: a list that shrinks would refuse what was chosen before
        numbers = numeric_columns(everything)
        x = axis(numbers, x, X)
        y = axis([name for name in numbers if name != x] or numbers, y, Y)
        choices = [(text("experiments.all", language), ALL), *names]
        return {
            self.experiment: gr.update(choices=choices, value=chosen),
            self.count: render.status(text(key, language, count=len(runs))),
            self.table: gr.update(value=readable(runs), visible=len(runs) > 0),
            self.across: gr.update(choices=numbers, value=x),
            self.up: gr.update(choices=numbers, value=y),
            self.chart: plotted(runs, x, y) or nothing(runs, x, y, language),
        }

    def run(self, language: str, request: gr.Request) -> Iterator[dict[Any, Any]]:
        """Run the small sweep in its fast form, trial by trial."""
        folder = project_root() / "experiments" / SWEEP

        def work(job: Job) -> Any:
            def report(done: int, total: int, what: str) -> None:
                if job.stop_event.is_set():
                    raise Cancelled("The sweep was stopped; finished trials are kept.")
                job.send((done, total, what))

            return workbench.sweep(folder, fast=True, progress=report)

        for update in self.page.follow(TAB, request, work):
            if update.result is not None:
                yield {self.status: render.status(update.result.summary(), kind="done")}
            elif update.events:
                done, total, what = update.events[-1]
                line = text("experiments.sweeping", language, done=done, total=total, what=what)
                yield {self.status: render.status(line, done=done / total)}


def numeric_columns(runs: pd.DataFrame) -> list[str]:
    """The columns that a chart can show."""
    found = [name for name in runs.columns if runs[name].dtype.kind in "if"]
    return found or [X, Y]


def axis(numbers: list[str], chosen: str, usual: str) -> str:
    """The chosen column while it exists, else the usual one, else the first."""
    return next(name for name in (chosen, usual, numbers[0]) if name in numbers)


def readable(runs: pd.DataFrame) -> pd.DataFrame:
    """The table without ids and empty columns, times without microseconds."""
    table = runs.drop(columns=["run_id", "kind"]).replace("", None)
    table = table.dropna(axis="columns", how="all")
    if "start" in table:
        table["start"] = table["start"].dt.strftime("%Y-%m-%d %H:%M:%S")
    return table.round(3)


def plotted(runs: pd.DataFrame, x: str, y: str) -> str:
    """The chart of the runs that have both values, a colour for each model."""
    if x not in runs or y not in runs:
        return ""
    points = [
        Point(
            float(run[x]),
            float(run[y]),
            str(run["model"]),
            f"{run['run']} ({run['experiment']})\n{x}: {run[x]:g}\n{y}: {run[y]:g}",
        )
        for run in runs.dropna(subset=[x, y]).to_dict("records")
    ]
    return scatter(points, x, y)


def nothing(runs: pd.DataFrame, x: str, y: str, language: str) -> str:
    """Why there is no chart, once there are runs."""
    return render.status(text("experiments.no_points", language, x=x, y=y)) if len(runs) else ""
