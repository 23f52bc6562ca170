"""The app: one page with a tab for every task. ``workbench app`` calls `launch`.

Importing this module is cheap; Gradio is imported when a page is built.
"""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Any

from apps import files
from apps.texts import LANGUAGES, text
from workbench.errors import UserInputError
from workbench.ports import require_free_port
from workbench.project import project_root
from workbench.settings import get_settings

if TYPE_CHECKING:
    import gradio as gr

_DAY_SECONDS = 86_400


def launch(
    host: str = "127.0.0.1",
    port: int = 7860,
    share: bool = False,
    auth: tuple[str, str] | None = None,
    open_browser: bool = False,
    language: str | None = None,
) -> None:
    """Serve the app until it is interrupted.

    ``auth`` is (user, password). Raises UserInputError, before anything heavy is imported, for
    a public link without ``auth``, a port that is taken, or an unknown language.
    """
    if share and auth is None:
        raise UserInputError(
            "A public link without a password lets anybody use this machine.",
            "Add --auth user:password, or leave out --share.",
        )
    if language is not None and language not in LANGUAGES:
        raise UserInputError(
            f"There is no language {language!r}.", f"Choose one of: {', '.join(LANGUAGES)}."
        )
    require_free_port(host, port)
    files.prepare()
    from apps.security import middleware
    from apps.style import CSS, HEAD, theme

    build(language, local=is_loopback(host) and not share).launch(
        server_name=host,
        server_port=port,
        share=share,
        auth=auth,
        inbrowser=open_browser,
        quiet=True,
        show_error=True,
        footer_links=["api", "settings"],
        run_history=False,
        enable_monitoring=False,
        allowed_paths=[str(files.speech_folder())],
        max_file_size=files.UPLOAD_LIMIT,
        app_kwargs={"middleware": middleware()},
        favicon_path=project_root() / "apps" / "favicon.png",
        theme=theme(),
        css=CSS,
        head=HEAD,
    )


def build(language: str | None = None, *, local: bool = True) -> gr.Blocks:
    """The page. ``local=False`` refuses paths of this machine: other people use the page."""
    files.prepare()
    import gradio as gr

    from apps import render
    from apps.chat_tab import ChatTab
    from apps.experiments_tab import ExperimentsTab
    from apps.images_tab import ImagesTab
    from apps.models_tab import ModelsTab
    from apps.page import QUIET, Page, Words
    from apps.speech_tab import SpeechTab
    from apps.sql_tab import SqlTab

    chosen = language or get_settings().language
    words = Words(chosen)
    page = Page(words, local)
    with gr.Blocks(
        title=text("page.title", chosen),
        analytics_enabled=False,
        fill_width=True,
        delete_cache=(_DAY_SECONDS, _DAY_SECONDS),
    ) as blocks:
        with gr.Row(elem_id="header"):
            page.memory = gr.HTML(elem_id="memory", min_width=300)
            page.record = words.make(
                gr.Checkbox,
                {"label": "page.record", "info": "page.record_info"},
                elem_id="record",
                min_width=170,
                scale=0,
            )
            page.language = words.make(
                gr.Radio,
                {"label": "page.language"},
                choices=[("English", "en"), ("Tiếng Việt", "vi")],
                value=chosen,
                elem_id="language",
                min_width=190,
                scale=0,
            )
            dark = words.make(
                gr.Button, {"value": "page.theme"}, size="sm", min_width=90, scale=0, elem_id="dark"
            )
        with gr.Tabs(elem_id="tabs"):
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

        def translate(new_language: str) -> list[Any]:
            return [*words.translate(new_language), render.memory_bar(new_language)]

        def open_page(current: str, request: gr.Request) -> list[Any]:
            # ?language=vi makes a page that can be bookmarked, and survives a reload
            asked = request.query_params.get("language")
            new = asked if asked in LANGUAGES else current
            texts = words.translate(new) if new != chosen else [gr.skip()] * len(words.components)
            return [new, *texts, render.memory_bar(new), *page.fresh_choices(new)]

        def close_page(request: gr.Request) -> None:
            page.jobs.close_page(str(request.session_hash))

        shown = [*words.components, page.memory]
        page.language.input(translate, page.language, shown, js=_REMEMBER_LANGUAGE, **QUIET)
        dark.click(None, js="() => { document.body.classList.toggle('dark'); }")
        blocks.load(
            open_page,
            page.language,
            [page.language, *shown, *(component for _, component in page.model_lists)],
            **QUIET,
        )
        blocks.unload(close_page)
    return blocks


_REMEMBER_LANGUAGE = """(language) => {
    const url = new URL(window.location);
    url.searchParams.set("language", language);
    window.history.replaceState(null, "", url);
    return [language];
}"""


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach ``host``."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
