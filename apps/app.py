"""The app: one page with a tab for every task. ``workbench app`` calls `launch`.

Importing this module is cheap; Gradio is imported when a page is built.
"""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import TYPE_CHECKING

from apps import files
from apps.texts import LANGUAGES
from workbench.errors import UserInputError
from workbench.ports import require_free_port
from workbench.settings import get_settings

if TYPE_CHECKING:
    import gradio as gr


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
        favicon_path=Path(__file__).with_name("favicon.png"),
        theme=theme(),
        css=CSS,
        head=HEAD,
    )


def build(language: str | None = None, *, local: bool = True) -> gr.Blocks:
    """The page. ``local=False`` refuses paths of this machine: other people use the page."""
    files.prepare()
    from apps.layout import lay_out

    return lay_out(language or get_settings().language, local)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach ``host``."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
