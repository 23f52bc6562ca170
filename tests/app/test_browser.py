"""One walk through every tab in a real browser, on the real starter models.

The steps build on each other as a visit does, so they are one test; pictures of every tab are
kept in ``artifacts/screenshots``.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import httpx
import pytest

from workbench.project import project_root

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

pytestmark = [pytest.mark.browser, pytest.mark.models, pytest.mark.timeout(900)]

_SHOTS = project_root() / "artifacts" / "screenshots"
#: The pictures that a visit leaves behind.
_PICTURES = (
    *("chat", "sql", "speech", "images", "models", "experiments"),
    *("vietnamese", "narrow", "narrow-dark"),
)
_ARGUMENTS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
# generous: a first answer loads a model, and a shared machine can be ten times slower
_ANSWER_MS = 180_000


@pytest.fixture
def chromium() -> str:
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None:
        pytest.fail(
            "Chromium is missing. Install it: `apt-get install chromium`, or `make browser`."
        )
    return found


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    """The app in a process of its own, on a free port, with its own results folder."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {**os.environ, "WORKBENCH_RUNS": str(tmp_path / "runs")}
    log = tmp_path / "app.log"
    command = [sys.executable, "-m", "workbench.cli", "app", "--port", str(port), "--no-browser"]
    with log.open("w") as out:
        process = subprocess.Popen(
            command, env=environment, stdout=out, stderr=subprocess.STDOUT, cwd=project_root()
        )
        try:
            url = f"http://127.0.0.1:{port}"
            _wait_until_served(url, process, log)
            yield url
        finally:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
    assert "Traceback" not in log.read_text()


def _wait_until_served(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + 120
    while time.monotonic() < until:
        with contextlib.suppress(httpx.HTTPError):
            if httpx.get(url, timeout=5).status_code == 200:
                return
        if process.poll() is not None:
            break
        time.sleep(0.1)  # another process has no event to wait for
    pytest.fail(f"The app did not start:\n{log.read_text()}")


@pytest.fixture
def page(chromium: str) -> Iterator[Page]:
    """A browser page that fails the test for errors in it and for requests to other machines."""
    from playwright.sync_api import sync_playwright

    problems: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=_ARGUMENTS)
        page = browser.new_page(viewport={"width": 1280, "height": 860})
        page.set_default_timeout(60_000)
        page.on(
            "console",
            lambda said: problems.append(f"console: {said.text}") if said.type == "error" else None,
        )
        page.on("pageerror", lambda error: problems.append(f"page error: {error}"))
        page.on(
            "request",
            lambda asked: None if is_local(asked.url) else problems.append(f"asked: {asked.url}"),
        )
        yield page
        browser.close()
    assert problems == []


def is_local(url: str) -> bool:
    """Whether a browser that fetches ``url`` stays on this machine."""
    parts = urlsplit(url)
    return parts.scheme in ("data", "blob") or parts.hostname == "127.0.0.1"


def finished(page: Page, tab: str) -> str:
    """Wait for the end of the tab's job; what its status line says. Fails on an error."""
    line = page.locator(f"#{tab}-status .wb-done, #{tab}-status .wb-error")
    line.wait_for(timeout=_ANSWER_MS)
    said = line.inner_text()
    assert "wb-error" not in (line.get_attribute("class") or ""), said
    return said


def cell(page: Page, table: str, text: str = "") -> Locator:
    """The first cell of a table that has ``text`` in it."""
    return page.locator(f"#{table} [data-testid^='cell-']", has_text=text).first


def open_tab(page: Page, name: str) -> None:
    page.get_by_role("tab", name=name).click()


def shoot(page: Page, name: str) -> None:
    _SHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=_SHOTS / f"{name}.png", full_page=True)


def test_a_visit(address: str, page: Page) -> None:
    shutil.rmtree(_SHOTS, ignore_errors=True)
    started = time.perf_counter()
    page.goto(address)
    page.locator("#chat-message textarea").wait_for()
    first_page_seconds = time.perf_counter() - started
    page.locator("#record input").check()

    chat(page)
    sql(page)
    speech(page)
    images(page)
    models(page)
    experiments(page)
    vietnamese(page)
    narrow(page)
    (_SHOTS / "timings.json").write_text(json.dumps({"first_page_seconds": first_page_seconds}))
    assert sorted(path.stem for path in _SHOTS.glob("*.png")) == sorted(_PICTURES)


def chat(page: Page) -> None:
    page.locator("#chat-message textarea").fill("What is the capital of France?")
    page.keyboard.press("Enter")
    assert "tokens/s" in finished(page, "chat")
    answer = page.locator("#chat-conversation .bot.message").last
    assert "Paris" in answer.inner_text()
    page.locator("#chat-send").wait_for()
    assert page.locator("#chat-stop").is_disabled()
    shoot(page, "chat")


def sql(page: Page) -> None:
    open_tab(page, "SQL")
    page.get_by_text("How many customers are there?").click()
    assert "Rows: 1 " in finished(page, "sql")
    assert "SELECT" in page.locator("#sql-code .cm-content").inner_text().upper()
    assert cell(page, "sql-result").inner_text() == "2500"
    shoot(page, "sql")


def speech(page: Page) -> None:
    open_tab(page, "Speech")
    page.get_by_text("en_go_forward").click()
    said = finished(page, "speech")
    assert "word error rate" in said
    assert "go forward" in page.locator("#speech-text textarea").input_value().lower()
    assert page.locator("#speech-downloads a").count() >= 4
    shoot(page, "speech")


def images(page: Page) -> None:
    open_tab(page, "Images")
    page.get_by_text("a large red circle in the center on a white background").click()
    assert "seed" in finished(page, "images")
    picture = page.locator("#images-gallery img").first
    picture.wait_for()
    assert picture.evaluate("image => image.naturalWidth") == 32
    shoot(page, "images")


def models(page: Page) -> None:
    open_tab(page, "Models & memory")
    for name in ("qwen2.5-coder-0.5b", "whisper-base", "shapes-32"):
        cell(page, "models-loaded", name).wait_for()
        assert name in page.locator("#memory").inner_text()
    page.locator("#models-plan").click()
    assert "fits" in finished(page, "models")
    cell(page, "models-terms", "weights").wait_for()
    shoot(page, "models")


def experiments(page: Page) -> None:
    open_tab(page, "Experiments")
    for task in ("chat", "sql", "speech", "image"):
        cell(page, "experiments-runs", task).wait_for()
    page.locator("#experiments-chart circle").first.wait_for()
    shoot(page, "experiments")


def vietnamese(page: Page) -> None:
    page.get_by_text("Tiếng Việt").click()
    page.get_by_role("tab", name="Trò chuyện").wait_for()
    page.reload()  # the choice survives it
    page.get_by_role("tab", name="Mô hình & bộ nhớ").wait_for()
    open_tab(page, "SQL")
    page.get_by_text("Có bao nhiêu khách hàng?").click()
    assert "Số dòng: 1 " in finished(page, "sql")
    shoot(page, "vietnamese")


def narrow(page: Page) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    for name in ("Trò chuyện", "SQL", "Giọng nói", "Hình ảnh", "Mô hình & bộ nhớ", "Thí nghiệm"):
        open_tab(page, name)
        overflow = page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
        assert overflow <= 0, f"{name} is {overflow} px too wide"
    open_tab(page, "Trò chuyện")
    shoot(page, "narrow")
    page.locator("#theme").click()
    shoot(page, "narrow-dark")
