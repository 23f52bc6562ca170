"""The page as a whole: memory and switches on top, a tab for every task below."""

from __future__ import annotations

from typing import Any

import gradio as gr

from apps import render
from apps.chat_tab import ChatTab
from apps.experiments_tab import ExperimentsTab
from apps.images_tab import ImagesTab
from apps.jobs import Jobs
from apps.models_tab import ModelsTab
from apps.page import QUIET, Page, Words, page_of
from apps.speech_tab import SpeechTab
from apps.sql_tab import SqlTab
from apps.texts import LANGUAGES, text

_SWITCH_THEME = "() => { document.body.classList.toggle('dark'); }"
# ?language=vi makes a page that can be bookmarked, and survives a reload
_REMEMBER_LANGUAGE = """(language) => {
    const url = new URL(window.location);
    url.searchParams.set("language", language);
    window.history.replaceState(null, "", url);
    return [language];
}"""


def lay_out(language: str, local: bool, jobs: Jobs | None = None) -> gr.Blocks:
    """Every component and event of the page, in one language to begin with."""
    words = Words(language)
    page = Page(words, local, jobs=jobs or Jobs())
    with gr.Blocks(
        title=text("page.title", language),
        analytics_enabled=False,
        fill_width=True,
    ) as blocks:
        _lay_out_header(page, language)
        with gr.Tabs(elem_id="tabs", overflow_behavior="wrap"):
            with words.make(gr.Tab, {"label": "page.chat"}, id="chat"):
                ChatTab(page)
            with words.make(gr.Tab, {"label": "page.sql"}, id="sql") as tab:
                SqlTab(page, tab)
            with words.make(gr.Tab, {"label": "page.speech"}, id="speech"):
                SpeechTab(page)
            with words.make(gr.Tab, {"label": "page.images"}, id="images"):
                ImagesTab(page)
            with words.make(gr.Tab, {"label": "page.models"}, id="models") as tab:
                ModelsTab(page, tab)
            with words.make(gr.Tab, {"label": "page.experiments"}, id="experiments") as tab:
                ExperimentsTab(page, tab)
        _wire(page, blocks)
    return blocks


def _lay_out_header(page: Page, language: str) -> None:
    make = page.words.make
    with gr.Row(elem_id="header"):
        page.memory = gr.HTML(elem_id="memory", min_width=300)
        page.record = make(
            gr.Checkbox, {"label": "page.record"}, container=False, min_width=100, elem_id="record"
        )
        page.language = make(
            gr.Radio,
            {"label": "page.language"},
            choices=[("English", "en"), ("Tiếng Việt", "vi")],
            value=language,
            show_label=False,
            container=False,
            min_width=100,
            elem_id="language",
        )
        theme = make(gr.Button, {"value": "page.theme"}, size="sm", min_width=90, elem_id="theme")
    theme.click(None, js=_SWITCH_THEME)


def _wire(page: Page, blocks: gr.Blocks) -> None:
    def translate(language: str) -> dict[Any, Any]:
        changed = page.words.translated(language)
        for component, choices in page.fresh_choices(language):
            changed[component]["choices"] = choices
        updates = {component: gr.update(**values) for component, values in changed.items()}
        return {**updates, page.memory: render.memory_bar(language)}

    def open_page(language: str, request: gr.Request) -> dict[Any, Any]:
        asked = str(request.query_params.get("language"))
        if asked in LANGUAGES and asked != language:
            label = text("page.language", asked)
            return {**translate(asked), page.language: gr.update(value=asked, label=label)}
        return translate(language)

    def close_page(request: gr.Request) -> None:
        page.jobs.close_page(page_of(request))

    shown = [*page.words.translated(page.words.language), page.memory]
    page.language.input(translate, page.language, shown, js=_REMEMBER_LANGUAGE, **QUIET)
    blocks.load(open_page, page.language, shown, **QUIET)
    blocks.unload(close_page)
