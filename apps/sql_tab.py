"""The SQL tab: a question becomes SQL, the SQL can be edited, and both only ever read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr

import workbench
from apps import files, render
from apps.messages import shown_errors, waiting_line
from apps.page import QUIET, Page, play
from apps.schema_view import schema_html
from apps.texts import text
from workbench.errors import UserInputError
from workbench.settings import get_settings

TAB = "sql"
UPLOADS = [".duckdb", ".db", ".sqlite", ".csv", ".tsv", ".parquet", ".xlsx", ".json", ".jsonl"]

EXAMPLES = (
    "How many customers are there?",
    "Which five products have the highest price?",
    "Có bao nhiêu khách hàng?",
    "Liệt kê các cửa hàng và thành phố của từng cửa hàng.",
)


class SqlTab:
    """The tab's components and events, added to the open `gr.Blocks`."""

    def __init__(self, page: Page, tab: Any) -> None:
        self.page = page
        self.samples = [(path.name, str(path)) for path in files.sample_databases()]
        with gr.Row():
            with gr.Column(scale=2, min_width=300):
                self._lay_out_database()
            with gr.Column(scale=3, min_width=300):
                self._lay_out_question()
        self._lay_out_result()
        self._wire(tab)

    def _lay_out_database(self) -> None:
        make = self.page.words.make
        preferred = next((path for name, path in self.samples if name == "shop.duckdb"), None)
        # a page of another machine chooses among samples and its own uploads only
        info = {"info": "sql.database_info"} if self.page.local else {}
        self.database = make(
            gr.Dropdown,
            {"label": "sql.database", **info},
            choices=self.samples,
            value=preferred,
            allow_custom_value=self.page.local,
            elem_id="sql-database",
        )
        self.upload = make(gr.UploadButton, {"label": "sql.upload"}, file_types=UPLOADS, size="sm")
        with make(gr.Accordion, {"label": "sql.schema"}, open=False):
            self.schema = gr.HTML(max_height=340, elem_id="sql-schema")

    def _lay_out_question(self) -> None:
        make = self.page.words.make
        self.question = make(
            gr.Textbox,
            {"label": "sql.question", "placeholder": "sql.question_placeholder"},
            value="",
            lines=1,
            max_lines=4,
            elem_id="sql-question",
        )
        with gr.Row():
            self.ask = self.page.run_button("sql.ask", "sql-ask")
            self.stop = self.page.stop_button("sql-stop")
        self.examples = self.page.examples(EXAMPLES, "sql-examples")
        with make(gr.Accordion, {"label": "common.options"}, open=False), gr.Row():
            self.model = self.page.choose_model("chat", get_settings().models.sql, "sql-model")
            self.hint = make(
                gr.Textbox, {"label": "sql.hint", "info": "sql.hint_info"}, value="", min_width=220
            )
            self.limit = make(
                gr.Slider,
                {"label": "sql.limit"},
                minimum=10,
                maximum=10_000,
                step=10,
                value=1000,
                min_width=180,
            )

    def _lay_out_result(self) -> None:
        make = self.page.words.make
        self.status = gr.HTML(elem_id="sql-status")
        self.query = make(
            gr.Code,
            {"label": "sql.sql"},
            language="sql",
            interactive=True,
            lines=2,
            wrap_lines=True,
            elem_id="sql-code",
        )
        with gr.Row():
            self.rerun = make(
                gr.Button, {"value": "sql.run"}, size="md", min_width=140, elem_id="sql-run"
            )
            self.csv = make(
                gr.DownloadButton,
                {"label": "sql.csv"},
                size="md",
                interactive=False,
                elem_id="sql-csv",
            )
        self.result = make(
            gr.Dataframe,
            {"label": "sql.result"},
            interactive=False,
            max_height=420,
            show_search="filter",
            visible=False,
            elem_id="sql-result",
        )

    def _wire(self, tab: Any) -> None:
        look: dict[str, Any] = {"api_visibility": "private", "show_progress": "minimal"}
        known = [self.database, self.page.language]
        tab.select(self.show_schema, known, self.schema, **look)
        self.database.change(self.show_schema, known, self.schema, **look)
        self.upload.upload(self.uploaded, self.upload, self.database, **QUIET)
        results = [self.result, self.csv, self.status]
        self.rerun.click(
            self.execute,
            [self.database, self.query, self.limit, self.page.language],
            results,
            api_name="query",
            concurrency_limit=4,
            show_progress="minimal",
        )
        taken = self.examples.click(lambda i: EXAMPLES[i], self.examples, self.question, **QUIET)
        self.page.on_stop(TAB, self.stop, self.status)
        self.page.on_run(
            TAB,
            [self.ask.click, self.question.submit, taken.success],
            self.run,
            [
                self.database,
                self.question,
                self.model,
                self.hint,
                self.limit,
                self.page.record,
            ],
            [self.query, *results],
            buttons=[self.ask],
            stop=self.stop,
            status=self.status,
            api_name="ask",
        )

    def run(
        self,
        database: str | None,
        question: str,
        model: str,
        hint: str,
        limit: float,
        record: bool,
        language: str,
        request: gr.Request,
    ) -> Iterator[dict[Any, Any]]:
        """Answer ``question``: SQL as it is written, then the rows."""
        source = allowed(database, self.page, language)
        if not question.strip():
            raise UserInputError(text("sql.no_question", language))
        work = play(
            lambda: workbench.ask(
                source,
                question,
                model=model,
                hint=hint.strip() or None,
                stream=True,
                limit=int(limit),
            ),
            record,
        )
        yield {self.query: "", self.result: gr.update(visible=False), self.csv: no_file()}
        phase = None
        for update in self.page.follow(TAB, request, work):
            if update.result is not None:
                break
            if update.events:
                phase = update.events[-1].phase
                line = render.status(text(f"sql.phase_{phase}", language))
                yield {self.query: update.events[-1].text, self.status: line}
            elif phase is None:
                yield {self.status: waiting_line(update, language)}
        answer = update.result
        yield {self.query: answer.sql}
        if answer.error:
            raise UserInputError(answer.error)
        yield self.shown_rows(answer, int(limit), language)

    def execute(
        self, database: str | None, sql: str, limit: float, language: str
    ) -> dict[Any, Any]:
        """Run the SQL of the editor: guarded like the model's."""
        with shown_errors(language):
            source = allowed(database, self.page, language)
            if not sql.strip():
                raise UserInputError(text("sql.no_sql", language))
            rows = workbench.sql.execute(source, sql, limit=int(limit))
            return self.shown_rows(rows, int(limit), language)

    def shown_rows(self, rows: Any, limit: int, language: str) -> dict[Any, Any]:
        """The grid, the file to download, and how many rows there are."""
        line = text("sql.rows", language, count=rows.row_count, seconds=rows.seconds)
        if rows.truncated:
            line += text("sql.truncated", language, limit=limit)
        return {
            self.result: gr.update(
                value={
                    "headers": list(rows.columns),
                    "data": [[shown_cell(cell) for cell in row] for row in rows.rows],
                },
                visible=True,
            ),
            self.csv: gr.update(value=write_csv(rows), interactive=True),
            self.status: render.status(line, kind="done"),
        }

    def show_schema(self, database: str | None, language: str) -> str:
        """Tables, columns, keys and comments of the chosen database."""
        if not database:
            return ""
        with shown_errors(language):
            found = workbench.sql.schema(allowed(database, self.page, language))
            return schema_html(found, language)

    def uploaded(self, path: str) -> Any:
        """Choose the file that was uploaded."""
        return gr.update(choices=[*self.samples, (Path(path).name, path)], value=path)


def allowed(path: str | None, page: Page, language: str) -> str:
    """The database, if this page may open it. Other machines get samples and uploads only."""
    if not path:
        raise UserInputError(text("sql.no_database", language))
    if page.local or Path(path) in files.sample_databases() or files.is_upload(Path(path)):
        return path
    raise UserInputError(text("sql.path_refused", language))


def write_csv(rows: Any) -> str:
    """The rows as a CSV file that Excel reads with Vietnamese letters (UTF-8 with a mark)."""
    path = files.new_folder() / "result.csv"
    rows.frame.to_csv(path, index=False, encoding="utf-8-sig")
    return str(path)


def shown_cell(value: Any) -> Any:
    """Numbers and truth as they are; what JSON has no form for, as its text."""
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def no_file() -> Any:
    """Nothing to download."""
    return gr.update(value=None, interactive=False)
