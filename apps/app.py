"""The app: one page with a tab for every task. ``workbench app`` calls `launch`.

Importing this module is cheap; Gradio is imported when a page is built.
"""

from __future__ import annotations

import ipaddress
import signal
from pathlib import Path
from typing import TYPE_CHECKING

from apps import files
from apps.gradio_import import import_gradio
from apps.texts import LANGUAGES
from workbench.errors import UserInputError
from workbench.ports import require_free_port
from workbench.settings import get_settings

if TYPE_CHECKING:
    import gradio as gr

    from apps.jobs import Jobs


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
    import_gradio()
    from apps.jobs import Jobs
    from apps.security import middleware
    from apps.style import CSS, HEAD, theme

    jobs = Jobs()
    blocks = build(language, local=is_loopback(host) and not share, jobs=jobs)
    blocks.launch(
        prevent_thread_lock=True,
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
    print(f"The app is on {blocks.local_url} (Ctrl+C ends it)", flush=True)  # noqa: T201
    # a container is stopped by SIGTERM: end as for Ctrl+C
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        blocks.block_thread()
    finally:
        jobs.close()


def build(
    language: str | None = None, *, local: bool = True, jobs: Jobs | None = None
) -> gr.Blocks:
    """The page. ``local=False`` refuses paths of this machine: other people use the page."""
    files.prepare()
    import_gradio()
    from apps.layout import lay_out

    return lay_out(language or get_settings().language, local, jobs)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach ``host``."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
