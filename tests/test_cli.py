"""The command line: keys, exit codes, one line for a mistake, nothing half-written."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.memory.test_headers import gguf_bytes
from workbench import cli
from workbench.project import project_root
from workbench.terminal import complete_model

DATA = project_root() / "data"
GGUF: dict[str, int | str] = {
    "general.architecture": "llama",
    "llama.block_count": 4,
    "llama.embedding_length": 64,
    "llama.feed_forward_length": 128,
    "llama.attention.head_count": 4,
    "llama.attention.head_count_kv": 2,
}
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command in this process: (exit code, standard output, standard error)."""

    def call(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["workbench", *map(str, words)])
        code = 0
        try:
            cli.main()
        except SystemExit as end:
            code = int(end.code or 0)
        out = capsys.readouterr()
        return code, out.out, out.err

    return call


@pytest.fixture
def tone(tmp_path: Path) -> Path:
    """Two seconds of a 440 Hz tone as a WAV file."""
    import wave

    path = tmp_path / "tone.wav"
    samples = np.sin(np.arange(32000) * 2 * np.pi * 440 / 16000) * 8000
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16000)
        file.writeframes(samples.astype("<i2").tobytes())
    return path


def keys_of(text: str) -> dict[str, Any]:
    """The one JSON object on standard output."""
    assert len(text.strip().splitlines()) == 1
    return json.loads(text)


@pytest.mark.usefixtures("stub_models", "own_pool")
class TestKeys:
    """The keys of the public interface, on stub models."""

    def test_chat(self, run: Run):
        code, out, err = run("chat", "abc", "--json")
        found = keys_of(out)
        assert (code, err) == (0, "")
        assert found["text"] == "cba"
        assert set(found) >= {"text", "model", "usage", "timings"}
        assert set(found["usage"]) >= {"prompt_tokens", "completion_tokens"}
        assert set(found["timings"]) >= {
            "first_token_seconds",
            "total_seconds",
            "tokens_per_second",
        }

    def test_query(self, run: Run):
        code, out, _ = run("query", DATA / "shop.duckdb", "SELECT 'Đà Nẵng' AS city", "--json")
        found = keys_of(out)
        assert code == 0
        assert found["columns"] == ["city"]
        assert found["rows"] == [["Đà Nẵng"]]
        assert set(found) >= {"columns", "rows", "row_count", "truncated", "seconds"}

    def test_ask_whose_model_writes_sql(self, run: Run, write_model):
        write_model("stub-chat", options={"reply": "```sql\nSELECT count(*) AS n FROM orders\n```"})
        code, out, _ = run("ask", DATA / "shop.duckdb", "How many orders?", "--json")
        found = keys_of(out)
        assert code == 0
        assert found["row_count"] == 1
        assert set(found) >= {
            "sql",
            "columns",
            "rows",
            "row_count",
            "truncated",
            "agreement",
            "seconds",
            "error",
        }

    def test_ask_whose_model_would_write_to_the_database(self, run: Run, write_model):
        write_model("stub-chat", options={"reply": "DROP TABLE orders"})
        before = (DATA / "shop.duckdb").read_bytes()
        code, out, err = run("ask", DATA / "shop.duckdb", "Remove all orders", "--json")
        assert code != 0
        assert keys_of(out)["error"]
        assert "error:" in err
        assert (DATA / "shop.duckdb").read_bytes() == before

    def test_transcribe(self, run: Run, tone: Path):
        code, out, _ = run("transcribe", tone, "--words", "--json")
        found = keys_of(out)
        assert code == 0
        assert set(found) >= {"text", "language", "duration_seconds", "segments", "timings"}
        assert set(found["segments"][0]) >= {
            "start_seconds",
            "end_seconds",
            "text",
            "speaker",
            "words",
        }
        assert "realtime_factor" in found["timings"]

    @pytest.mark.parametrize("form", ["txt", "srt", "vtt", "tsv", "json"])
    def test_transcribe_to_a_folder(self, run: Run, tone: Path, tmp_path: Path, form: str):
        code, out, _ = run("transcribe", tone, "-f", form, "-o", tmp_path / "out")
        path = tmp_path / "out" / f"tone.{form}"
        assert code == 0
        assert out.strip() == str(path)
        assert "second 1" in path.read_text(encoding="utf-8")

    def test_several_files_of_which_one_is_bad(self, run: Run, tone: Path, tmp_path: Path):
        code, out, err = run("transcribe", tone, tmp_path / "no.wav", "--json")
        found = keys_of(out)["transcripts"]
        assert code == 2
        assert found[0]["text"]
        assert "no.wav" in found[1]["error"]
        assert "no.wav" in err

    def test_draw(self, run: Run, tmp_path: Path):
        target = tmp_path / "x.png"
        code, out, _ = run("draw", "a red circle", "-o", target, "--seed", 3, "--json")
        found = keys_of(out)
        assert code == 0
        assert found["files"] == [str(target)]
        assert found["seeds"] == [3]
        assert set(found) >= {"files", "seeds", "seconds", "recipe"}
        assert target.read_bytes().startswith(b"\x89PNG")

    def test_plain_output_is_for_people(self, run: Run, tmp_path: Path):
        code, out, err = run("chat", "abc")
        assert (code, out) == (0, "cba\n")
        assert "tokens, first after" in err
        code, out, _ = run("draw", "x", "-o", tmp_path / "x.png", "--batch", 2, "--seed", 1)
        assert [line.split()[2] for line in out.splitlines()] == ["1", "2"]

    def test_a_conversation(self, run: Run, monkeypatch: pytest.MonkeyPatch):
        lines = iter(["first", "second", ""])
        monkeypatch.setattr("builtins.input", lambda prompt: next(lines))
        code, out, _ = run("chat")
        assert code == 0
        assert out.splitlines() == ["tsrif", "dnoces"]

    def test_recording(self, run: Run):
        code, _, _ = run("chat", "abc", "--record", "from-cli")
        from workbench.lab.store import runs

        assert code == 0
        assert list(runs("from-cli")["task"]) == ["chat"]

    def test_an_answer_that_fails_at_its_provider(self, run: Run, write_model):
        write_model("stub-chat", options={"fail": "The server is down."})
        code, out, err = run("chat", "abc", "--json")
        assert code == 5
        assert keys_of(out)["error"] == "The server is down."
        assert err == "error: The server is down. Stop failing.\n"


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["chat", "hi", "--model", "nosuch"], 2, "no model 'nosuch'"),
        (["chat", "--json"], 2, "needs a prompt"),
        (["chat", " "], 2, "prompt"),
        (["transcribe", "no.wav"], 2, "no.wav"),
        (["transcribe", "{empty}"], 2, "empty"),
        (["transcribe", "{noise}"], 2, "noise"),
        (["transcribe", "no.wav", "--format", "doc"], 2, "format 'doc'"),
        (["transcribe", "{noise}", "--model", "qwen2.5-coder-0.5b"], 2, "does chat, not speech"),
        (["draw", "x", "-o", "{tmp}/no/x.png"], 2, "no"),
        (["draw", "x", "-o", "{tmp}/x.tiff"], 2, "tiff"),
        (["draw", "x", "-o", "{tmp}/x.png", "--size", "big"], 2, "not a picture size"),
        (["ask", "no.duckdb", "how many?"], 2, "no.duckdb"),
        (["ask", "{noise}", "how many?"], 2, "noise"),
        (["query", "{shop}", "DELETE FROM orders"], 2, "DELETE is not allowed"),
        (["query", "{shop}", "SELECT * FROM read_csv('/etc/passwd')"], 2, "read_csv"),
        (["query", "{shop}", "SELECT nosuch FROM orders"], 2, "nosuch"),
        (["plan", "nosuch"], 2, "no model"),
        (["plan", "qwen2.5-coder-0.5b", "--memory", "12"], 2, "not a memory size"),
        (["plan", "qwen2.5-coder-0.5b", "--memory", "-1GiB"], 2, "not a memory size"),
        (["plan", "{gguf}", "--memory", "1GiB", "--context", "-4"], 2, "at least 1 token"),
        (["plan", "{gguf}", "--memory", "1GiB", "--batch", "0"], 2, "at least 1"),
        (["plan", "{gguf}", "--device", "cuda:7"], 2, "--memory 8GiB"),
        (["plan", "{gguf}", "--memory", "1GiB", "--device", "tpu"], 2, "no device 'tpu'"),
        (["plan", "{gguf}", "--memory", "1GiB", "--cache-type", "q1"], 2, "q8_0"),
        (["plan", "{gguf}", "--memory", "1GiB", "--quantization", "int8"], 2, "cannot quantize"),
        (["plan", "{gguf}", "--memory", "1GiB", "--size", "512x512"], 2, "does chat"),
        (["plan", "{gguf}", "--memory", "1GiB", "--audio", "10"], 2, "not a length of time"),
        (["plan", "{gguf}", "--memory", "1GiB", "--task", "cook"], 2, "no task 'cook'"),
        (["plan", "{lies}", "--memory", "1GiB"], 2, "lies.gguf"),
        (["plan", "{cut}", "--memory", "1GiB"], 2, "cut.gguf"),
        (["models", "pull"], 2, "--starters"),
        (["models", "list", "--task", "cook"], 2, "no task 'cook'"),
        (["sweep", "no.yaml"], 2, "no.yaml"),
        (["app", "--auth", "me"], 2, "USER:PASSWORD"),
        (["app", "--share", "--no-browser"], 2, "--auth"),
    ],
)
@pytest.mark.usefixtures("stub_models", "own_pool")
def test_a_mistake_is_one_line_and_an_exit_code(
    run: Run, tmp_path: Path, words: list[str], code: int, message: str, write_model
):
    (tmp_path / "empty.wav").touch()
    (tmp_path / "noise.wav").write_bytes(b"no audio at all" * 50)
    whole = gguf_bytes(GGUF, b"w" * 1000)
    (tmp_path / "m.gguf").write_bytes(whole)
    (tmp_path / "cut.gguf").write_bytes(whole[:60])
    (tmp_path / "lies.gguf").write_bytes(whole[:8] + b"\xff" * 8 + whole[16:])
    names = {
        "gguf": tmp_path / "m.gguf",
        "cut": tmp_path / "cut.gguf",
        "lies": tmp_path / "lies.gguf",
        "empty": tmp_path / "empty.wav",
        "noise": tmp_path / "noise.wav",
        "tmp": tmp_path,
        "shop": DATA / "shop.duckdb",
    }
    files = set(tmp_path.iterdir())
    found, out, err = run(*[word.format(**names) if "{" in word else word for word in words])
    assert found == code
    assert message in err
    assert "Traceback" not in err
    assert len(err.strip().splitlines()) == 1
    assert out == "" or json.loads(out)["exit_code"] == code
    assert {path for path in tmp_path.iterdir() if path.name != "runs"} == files - {
        tmp_path / "runs"
    }


@pytest.mark.usefixtures("stub_models")
def test_a_taken_port(run: Run):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        for command in (["app", "--no-browser"], ["mlflow"], ["lab"]):
            code, _, err = run(*command, "--port", port)
            assert code == 2
            assert f"Port {port} is taken" in err


def test_a_model_that_is_not_here(run: Run, home: Path, own_pool):
    code, _, err = run("chat", "hi")
    assert code == 4
    assert "workbench models pull qwen2.5-coder-0.5b" in err


@pytest.mark.models
def test_a_model_that_does_not_fit(run: Run, own_pool, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("WORKBENCH_MEMORY__LIMIT", "200MiB")
    code, _, err = run("chat", "hi")
    assert code == 3
    assert "200MiB" in err
    code, out, _ = run("plan", "qwen2.5-coder-0.5b", "--json")
    found = keys_of(out)
    assert code == 3
    assert found["fits"] is False
    assert set(found) >= {
        "fits",
        "upper_bytes",
        "peak_bytes",
        "phases",
        "terms",
        "choices",
        "cheapest_fixes",
    }


class TestPlan:
    """`workbench plan` on a small file."""

    @pytest.fixture
    def gguf(self, tmp_path: Path, home: Path) -> Path:
        path = tmp_path / "m.gguf"
        path.write_bytes(gguf_bytes(GGUF, b"w" * 10**6))
        return path

    def test_one_that_fits(self, run: Run, gguf: Path):
        code, out, err = run("plan", gguf, "--memory", "1GiB", "--json")
        found = keys_of(out)
        assert (code, err) == (0, "")
        assert found["fits"] is True
        assert found["cheapest_fixes"] == []
        code, out, _ = run("plan", gguf, "--memory", "1GiB")
        assert code == 0
        assert len(out.splitlines()) <= 25
        assert "<- makes the peak" in out

    def test_a_budget_below_any_plan_says_what_the_smallest_needs(self, run: Run, gguf: Path):
        code, out, err = run("plan", gguf, "--memory", "1MiB", "--best")
        assert code == 3
        assert "the smallest needs" in out
        assert len(err.strip().splitlines()) == 1
        assert "can be used (the budget given is 1MiB)" in err

    @pytest.mark.parametrize("device", ["cpu", "cuda"])
    def test_each_fix_can_be_typed_and_fits(self, run: Run, gguf: Path, device: str):
        words = ["plan", gguf, "--device", device, "--context", "65536", "--json"]
        whole = keys_of(run(*words, "--memory", "1TiB")[1])["upper_bytes"]
        words += ["--memory", f"{whole * 9 // 10}B"]
        code, out, err = run(*words)
        refused = keys_of(out)
        assert code == 3
        assert refused["cheapest_fixes"]
        assert refused["cheapest_fixes"][0] in err
        for fix in refused["cheapest_fixes"]:
            # of an option that is given twice the last one counts
            code, out, _ = run(*words, *fix.split(" (")[0].split())
            assert code == 0, fix
            assert keys_of(out)["fits"] is True

    def test_an_unknown_architecture_is_said(self, run: Run, tmp_path: Path, home: Path):
        path = tmp_path / "zebra.gguf"
        path.write_bytes(gguf_bytes({"general.architecture": "zebra"}, b"w" * 10**6))
        code, out, _ = run("plan", path, "--memory", "1GiB", "--json")
        found = keys_of(out)
        assert code == 0
        assert found["is_known"] is False
        assert any("'zebra'" in note for note in found["notes"])

    def test_it_is_not_measured_where_it_does_not_fit(self, run: Run, gguf: Path):
        code, out, _ = run("plan", gguf, "--memory", "1MiB", "--measure", "--json")
        assert code == 3
        assert "measured" not in keys_of(out)

    @pytest.mark.models
    def test_predicted_beside_measured(
        self, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        code, out, _ = run("plan", "smollm2-135m", "--prompt-tokens", "64", "--measure", "--json")
        found = keys_of(out)
        assert code == 0
        assert found["measured"]["peak_bytes"] <= found["upper_bytes"]

    def test_options_are_completed(self):
        from workbench.cli_models import _complete

        assert _complete("int8", "int4", "nf4")("int") == ["int8", "int4"]


def test_models_list_and_doctor(run: Run):
    code, out, _ = run("models", "list", "--json")
    assert code == 0
    assert {"qwen2.5-coder-0.5b", "whisper-base"} <= {m["id"] for m in keys_of(out)["models"]}
    code, out, _ = run("doctor", "--json")
    assert code == 0
    assert set(keys_of(out)) == {"versions", "folders", "memory", "engines", "models"}


def test_verify_says_what_is_wrong(run: Run, write_model, home: Path):
    write_model("m", files=[{"name": "w.bin", "sha256": "0" * 64}])
    code, out, err = run("models", "verify", "m")
    assert code == 4
    assert "missing" in out
    assert "--force" in err


def test_help_is_quick_and_loads_nothing():
    script = "import sys; sys.argv=['workbench','--help']\nfrom workbench.cli import main\n"
    script += "try: main()\nexcept SystemExit: print(sorted(sys.modules), file=sys.stderr)"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    for heavy in ("torch", "pandas", "mlflow", "gradio", "duckdb"):
        assert f"'{heavy}'" not in done.stderr
    assert "transcribe" in done.stdout


def test_completion_knows_the_models():
    assert complete_model("whisper") == ["whisper-base", "whisper-tiny.en"]
