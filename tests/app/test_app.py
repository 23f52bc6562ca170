"""The app on stub models: what it refuses, what its tabs show, and how errors are said."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from apps import app, files
from apps.plan_panel import AS_USUAL
from workbench.engines.pool import ModelPool
from workbench.errors import UserInputError

PROBE = "import apps.app, sys; print([m for m in {!r} if m in sys.modules])"
HEAVY = ["gradio", "torch", "transformers", "diffusers", "mlflow", "pandas", "duckdb"]


# -- before the page ---------------------------------------------------------------------------


def test_importing_the_app_is_cheap() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROBE.format(HEAVY)], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_building_the_page_loads_no_model_library(stub_models: dict[str, str]) -> None:
    code = "import apps.app, sys; apps.app.build(); print([m for m in {!r} if m in sys.modules])"
    engines = ["torch", "transformers", "diffusers", "mlflow", "duckdb", "faster_whisper"]
    done = subprocess.run(
        [sys.executable, "-c", code.format(engines)], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
    assert done.stderr == ""


def test_a_public_link_needs_a_password() -> None:
    with pytest.raises(UserInputError, match="without a password") as refused:
        app.launch(share=True)
    assert "--auth" in refused.value.remedy


def test_a_port_that_is_taken_is_named() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UserInputError, match=str(port)) as refused:
            app.launch(port=port)
    assert "--port" in refused.value.remedy


def test_an_unknown_language_is_refused() -> None:
    with pytest.raises(UserInputError, match="'fr'"):
        app.launch(language="fr")


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("192.168.1.5", False),
        ("example.org", False),
    ],
)
def test_which_hosts_are_this_machine_alone(host: str, expected: bool) -> None:
    assert app.is_loopback(host) is expected


# -- the page ----------------------------------------------------------------------------------


class Tab:
    """One tab built alone, and what its components show after a handler ran."""

    def __init__(self, kind: Callable[..., Any], *, local: bool = True) -> None:
        files.prepare()
        import gradio as gr

        from apps.page import Page, Words

        with gr.Blocks():
            self.page = Page(Words("en"), local)
            self.page.memory = gr.HTML()
            self.page.record = gr.Checkbox()
            self.page.language = gr.Radio(["en", "vi"], value="en")
            with gr.Tab() as place:
                needs_place = kind.__name__ in ("SqlTab", "ModelsTab", "ExperimentsTab")
                self.tab = kind(self.page, place) if needs_place else kind(self.page)

    def run(self, *values: Any, on_update: Callable[[], None] = lambda: None) -> dict[str, Any]:
        """Run the tab's handler; what each component shows in the end, by attribute name.

        `shown` is filled as it goes on, so it is there after an error too.
        """
        from apps.messages import reported

        self.shown: dict[str, Any] = {}
        names = names_of(self)
        for update in reported(self.tab.run, self.tab.status)(*values, "en", None):
            self.shown.update({names[part]: value for part, value in update.items()})
            on_update()
        return self.shown


def names_of(tab: Tab) -> dict[Any, str]:
    """{component: the tab's attribute that holds it}."""
    from gradio.blocks import Block

    return {part: name for name, part in vars(tab.tab).items() if isinstance(part, Block)}


def value_of(update: Any) -> Any:
    """The value inside ``gr.update(value=...)``."""
    return update["value"] if isinstance(update, dict) and "__type__" in update else update


def plain(html: str) -> str:
    """A status line as a person reads it."""
    return re.sub("<[^>]+>", "", html)


def chat_tab() -> Tab:
    from apps.chat_tab import ChatTab

    return Tab(ChatTab)


def test_chat_answers_and_remembers(stub_models: dict[str, str], own_pool: ModelPool) -> None:
    shown = chat_tab().run("Xin chào", [], stub_models["chat"], "", 64, 0, False)
    assert shown["message"] == ""
    assert shown["history"] == [
        {"role": "user", "content": "Xin chào"},
        {"role": "assistant", "content": "oàhc niX"},
    ]
    assert [turn["content"] for turn in shown["chatbot"]] == ["Xin chào", "oàhc niX"]
    assert "tokens/s" in plain(shown["status"]) and "first token" in plain(shown["status"])


def test_chat_shows_html_as_text(write_model: Callable[..., str], own_pool: ModelPool) -> None:
    model = write_model("evil", options={"reply": "<img src=x> ![a](http://e.x/p.png)"})
    shown = chat_tab().run("<b>hi</b>", [], model, "", 64, 0, False)
    drawn = " ".join(turn["content"] for turn in shown["chatbot"])
    assert "<img" not in drawn and "<b>" not in drawn and "![" not in drawn
    # what the model reads again is what was written
    assert shown["history"][1]["content"] == "<img src=x> ![a](http://e.x/p.png)"


def test_chat_says_when_the_answer_was_cut(
    write_model: Callable[..., str], own_pool: ModelPool
) -> None:
    model = write_model("long", options={"reply": "one two three four"})
    shown = chat_tab().run("go", [], model, "", 2, 0, False)
    assert "token limit" in plain(shown["status"])


def test_a_question_that_fails_goes_back_into_its_box(
    write_model: Callable[..., str], own_pool: ModelPool
) -> None:
    import gradio as gr

    model = write_model("broken", options={"fail": "The provider is down."})
    tab = chat_tab()
    with pytest.raises(gr.Error, match=r"The provider is down\. Stop failing\."):
        tab.run("Is it?", [], model, "", 64, 0, False)
    assert tab.shown["message"] == "Is it?"
    assert "The provider is down." in plain(tab.shown["status"])
    assert 'role="alert"' in tab.shown["status"]


def test_an_unexpected_error_is_one_line_and_logged(
    stub_models: dict[str, str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import gradio as gr

    import workbench

    def broken(*args: object, **kwargs: object) -> None:
        raise ZeroDivisionError("bad\nsecond line <b>")

    monkeypatch.setattr(workbench, "chat", broken)
    with pytest.raises(gr.Error, match="ZeroDivisionError: bad") as shown:
        chat_tab().run("hi", [], stub_models["chat"], "", 64, 0, False)
    assert "second line" not in shown.value.message
    assert "Traceback" in caplog.text


def test_an_error_message_is_not_html() -> None:
    from apps.messages import shown

    assert "<script>" not in shown("no <script>alert(1)</script>", "en").message


def test_stop_ends_the_answer_and_keeps_it(
    write_model: Callable[..., str], own_pool: ModelPool
) -> None:
    from apps.chat_tab import TAB

    model = write_model("endless", options={"reply": "word " * 100_000})
    tab = chat_tab()

    def stop_once_it_writes() -> None:
        if "Writing" in tab.shown.get("status", ""):
            tab.page.jobs.stop("direct", TAB)

    shown = tab.run("go", [], model, "", 100_000, 0, False, on_update=stop_once_it_writes)
    assert "stopped" in plain(shown["status"])
    assert 0 < len(shown["history"][1]["content"].split()) < 100_000


def test_again_takes_the_last_question_back(stub_models: dict[str, str]) -> None:
    turns = [{"role": role, "content": str(i)} for i, role in enumerate(["user", "assistant"] * 2)]
    assert chat_tab().tab.again(turns) == (turns[:2], "2")


# -- sql ---------------------------------------------------------------------------------------


def sql_tab(*, local: bool = True) -> Tab:
    from apps.sql_tab import SqlTab

    return Tab(SqlTab, local=local)


@pytest.fixture
def people(tmp_path: Path) -> str:
    path = tmp_path / "people.csv"
    path.write_text("name,city\nLan,Huế\nMinh,Đà Nẵng\nHoa,Huế\n", encoding="utf-8")
    return str(path)


def test_a_question_gives_sql_rows_and_a_file(
    write_model: Callable[..., str], own_pool: ModelPool, people: str
) -> None:
    sql = "SELECT city, count(*) AS n FROM people GROUP BY city ORDER BY n DESC"
    model = write_model("sqler", options={"reply": f"```sql\n{sql}\n```"})
    shown = sql_tab().run(people, "How many a city?", model, "", 1000, False)
    assert "GROUP BY" in shown["query"]
    assert value_of(shown["result"])["data"] == [["Huế", 2], ["Đà Nẵng", 1]]
    assert "Rows: 2 ·" in plain(shown["status"])
    csv = Path(value_of(shown["csv"]))
    assert csv.read_text(encoding="utf-8-sig").splitlines() == ["city,n", "Huế,2", "Đà Nẵng,1"]
    assert files.is_upload(csv)  # under the app's own folder


def test_edited_sql_runs_and_says_that_it_was_cut(stub_models: dict[str, str], people: str) -> None:
    tab = sql_tab()
    shown = tab.tab.execute(people, "SELECT name FROM people ORDER BY name", 2, "vi")
    assert value_of(shown[tab.tab.result])["data"] == [["Hoa"], ["Lan"]]
    assert "còn nữa" in shown[tab.tab.status]


def test_edited_sql_cannot_write(stub_models: dict[str, str], people: str) -> None:
    import gradio as gr

    with pytest.raises(gr.Error):
        sql_tab().tab.execute(people, "DROP TABLE people", 10, "en")


def test_the_schema_shows_tables_and_columns(stub_models: dict[str, str], people: str) -> None:
    html = sql_tab().tab.show_schema(people, "en")
    assert "<b>people</b> <small>3 rows</small>" in html
    assert "<code>city</code> <small>VARCHAR</small>" in html


def test_names_in_a_database_are_not_html(stub_models: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "evil.csv").write_text('"<img src=x onerror=alert(1)>"\n1\n')
    html = sql_tab().tab.show_schema(str(tmp_path / "evil.csv"), "vi")
    assert "<img" not in html and "&lt;img" in html


def test_another_machine_cannot_name_paths_of_this_one(
    stub_models: dict[str, str], people: str
) -> None:
    from apps.sql_tab import allowed

    page = sql_tab(local=False).page
    with pytest.raises(UserInputError, match="Upload the file"):
        allowed(people, page, "en")
    with pytest.raises(UserInputError, match="Upload the file"):
        allowed(str(files.files_folder() / ".." / ".." / "x.db"), page, "en")
    sample = str(files.sample_databases()[0])
    assert allowed(sample, page, "en") == sample
    upload = files.new_folder() / "mine.csv"
    assert allowed(str(upload), page, "en") == str(upload)


def test_files_are_kept_for_a_day() -> None:
    files.prepare()
    folder = files.new_folder()
    (folder / "result.csv").write_text("a")
    made = folder.stat().st_mtime
    files.remove_old(made + files.KEEP_SECONDS - 1)
    assert folder.is_dir()
    files.remove_old(made + files.KEEP_SECONDS + 1)
    assert not folder.exists()


# -- speech, images ------------------------------------------------------------------------------


def test_speech_shows_segments_text_files_and_error_rate(
    stub_models: dict[str, str], own_pool: ModelPool
) -> None:
    from apps.speech_tab import SpeechTab

    tab = Tab(SpeechTab)
    clip, _, language = tab.tab.take(0)
    shown = tab.run(clip, stub_models["speech"], language, True, False, True, "second 0", False)
    assert shown["segments"]["headers"] == ["Start", "End", "Text"]
    assert shown["segments"]["data"][0] == ["0:00.00", "0:01.00", "second 0"]
    assert shown["said"].startswith("second 0")
    names = [Path(path).suffix for path in value_of(shown["downloads"])]
    assert names == [".txt", ".srt", ".vtt", ".json"]
    assert "word error rate" in plain(shown["status"])


@pytest.mark.parametrize(
    ("seconds", "expected"), [(0, "0:00.00"), (75.5, "1:15.50"), (3725.25, "1:02:05.25")]
)
def test_times_are_read_as_clocks(seconds: float, expected: str) -> None:
    from apps.speech_tab import clock

    assert clock(seconds) == expected


def test_images_are_saved_with_their_recipe(
    stub_models: dict[str, str], own_pool: ModelPool
) -> None:
    from PIL import Image

    from apps.images_tab import ImagesTab

    tab = Tab(ImagesTab)
    values = ("a star", "", stub_models["image"], "DPM++ 2M", 3, 2.0, 32, 32, 2, 7, False)
    shown = tab.run(*values)
    assert [caption for _, caption in value_of(shown["gallery"])] == ["seed 7", "seed 8"]
    assert shown["last_seed"] == 7 and shown["recipe"]["prompt"] == "a star"
    for path in value_of(shown["saved"]):
        with Image.open(path) as picture:
            assert "a star" in picture.info["parameters"]


def test_a_model_sets_its_own_sampler_steps_and_sizes(
    write_model: Callable[..., str], own_pool: ModelPool, stub_models: dict[str, str]
) -> None:
    import workbench
    from apps.images_tab import suited

    model = write_model(
        "tiny",
        task="image",
        defaults={"steps": 8, "guidance_scale": 2.0, "sampler": "Euler", "width": 32, "height": 32},
        options={"widths": [32], "heights": [32]},
    )
    found = suited(workbench.models.get(model))
    assert found["steps"] == {"value": 8} and found["guidance"] == {"value": 2.0}
    assert found["sampler"]["value"] == "Euler"
    assert found["width"] == {"choices": [32], "value": 32}


# -- models, experiments -------------------------------------------------------------------------


def test_models_say_what_is_here_and_what_is_loaded(
    stub_models: dict[str, str], own_pool: ModelPool
) -> None:
    import workbench
    from apps.model_tables import loaded_table, log_table, models_table
    from apps.models_tab import ModelsTab

    rows = {row[0]: row for row in models_table("en")["data"]}
    assert rows["stub-chat"][1:3] == ["chat", "yes"]
    assert rows["qwen2.5-coder-0.5b"][2] == "not here yet"
    assert rows["gpt-4o-mini"][2] == "at its provider"
    workbench.chat("hi")
    assert [row[0] for row in loaded_table("en")["data"]] == ["stub-chat"]
    assert log_table("vi")["headers"] == ["Lúc", "Hành động", "Mô hình", "Lý do"]
    tab = Tab(ModelsTab).tab
    assert "stub-chat" in plain(tab.free("en"))
    assert loaded_table("en")["data"] == []
    assert "No idle model" in plain(tab.free("en"))


def test_a_model_that_is_missing_says_how_to_fetch_it(
    stub_models: dict[str, str], own_pool: ModelPool
) -> None:
    from apps.models_tab import ModelsTab

    panel = Tab(ModelsTab).tab.panel
    status, *_ = panel.show_plan("qwen2.5-coder-0.5b", "", AS_USUAL, 4096, 1, 32, 1, "en")
    assert "workbench models pull qwen2.5-coder-0.5b" in plain(status)


def test_no_runs_yet_says_how_to_make_one(stub_models: dict[str, str]) -> None:
    from apps.experiments_tab import ExperimentsTab

    tab = Tab(ExperimentsTab).tab
    shown = tab.show("", "seconds", "wer", "en")
    assert "Record runs" in plain(shown[tab.count])
    assert shown[tab.table]["visible"] is False


# -- the memory bar and the whole page -------------------------------------------------------------


def test_each_device_has_its_bar(
    own_pool: ModelPool, monkeypatch: pytest.MonkeyPatch, stub_models: dict[str, str]
) -> None:
    from apps.render import memory_bar
    from workbench.memory import devices

    card = devices.Device("cuda:0", 8 * 2**30, 6 * 2**30, title="<Card>", process_bytes=2**30)
    monkeypatch.setattr(devices, "accelerators", lambda: [card])
    page = memory_bar("en")
    assert page.count('role="img"') == 2
    assert "cuda:0 &lt;Card&gt;" in page
    assert "2.00 GiB of 8.00 GiB used" in page


def test_the_memory_bar_names_every_loaded_model(
    write_model: Callable[..., str], own_pool: ModelPool, stub_models: dict[str, str]
) -> None:
    import workbench
    from apps.render import memory_bar

    assert "no model loaded" in memory_bar("en")
    workbench.chat("hi")
    assert "stub-chat" in memory_bar("vi") and "Bộ nhớ" in memory_bar("vi")


def test_status_lines_are_escaped() -> None:
    from apps.render import status

    assert "<b>" not in status("<b>", done=0.5)


@pytest.mark.parametrize(
    ("done", "total", "expected"), [(0, 10, None), (10, 10, None), (5, 10, 2.0), (1, 0, None)]
)
def test_eta(done: float, total: float, expected: float | None) -> None:
    from apps.render import eta_seconds

    assert eta_seconds(done, total, 2.0) == expected


def test_the_page_is_served_with_a_policy_that_keeps_it_here(
    stub_models: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import gradio as gr
    import httpx

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    started: list[gr.Blocks] = []

    def go_on(blocks: gr.Blocks) -> None:
        started.append(blocks)

    monkeypatch.setattr(gr.Blocks, "block_thread", go_on)
    monkeypatch.setattr(app.signal, "signal", lambda *_: None)
    app.launch(port=port, language="vi", auth=("lan", "bí mật"))
    try:
        address = f"http://127.0.0.1:{port}"
        with httpx.Client(base_url=address) as client:
            assert client.get("/config").status_code == 401  # not before the password
            wrong = client.post("/login", data={"username": "lan", "password": "x"})
            assert wrong.status_code == 400
            client.post("/login", data={"username": "lan", "password": "bí mật"})
            answer = client.get("/")
    finally:
        started[0].close()
    assert answer.status_code == 200
    assert "default-src 'self'" in answer.headers["content-security-policy"]
    assert "Trò chuyện" in answer.text or "Tr\\u00f2 chuy\\u1ec7n" in answer.text
    assert "fonts.googleapis" not in answer.text
    names = {"chat", "ask", "query", "transcribe", "draw", "plan", "pull", "sweep"}
    assert {name for name in names if f'"{name}"' in answer.text} == names


def test_gradio_is_imported_without_rewriting_its_stub_files() -> None:
    code = (
        "import inspect, builtins\n"
        "before, parsed = inspect.getfile, []\n"
        "import ast; parse = ast.parse\n"
        "ast.parse = lambda *a, **k: parsed.append(a) or parse(*a, **k)\n"
        "from apps.gradio_import import import_gradio\n"
        "import_gradio()\n"
        "import gradio\n"
        "gradio.Button('works')\n"
        "print(inspect.getfile is before, sum('class Button(' in str(a[0]) for a in parsed))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "0"]
