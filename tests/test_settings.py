"""Settings from the environment and workbench.toml."""

from __future__ import annotations

from pathlib import Path

import pytest

from workbench.errors import SettingsError
from workbench.settings import get_settings


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("WORKBENCH_RUNS")
    return tmp_path


def test_defaults(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("WORKBENCH_HOME", raising=False)
    settings = get_settings()
    assert settings.home == Path("~/.cache/workbench").expanduser()
    assert settings.runs == folder / "runs"
    assert settings.mlflow_uri == f"sqlite:///{folder / 'runs' / 'mlflow.db'}"


def test_the_environment_wins_over_the_file(folder: Path, monkeypatch: pytest.MonkeyPatch):
    (folder / "workbench.toml").write_text('threads = 3\n[memory]\nlimit = "4GiB"\n')
    monkeypatch.setenv("WORKBENCH_MEMORY__LIMIT", "8GiB")
    assert get_settings().threads == 3
    assert get_settings().memory.limit == "8GiB"


def test_tracking_uri_of_mlflow_is_used(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000")
    assert get_settings().mlflow_uri == "http://127.0.0.1:5000"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('colour = "red"\n', "WORKBENCH_COLOUR"),
        ("[memory]\nlimit = '12'\n", "not a memory size"),
        ("threads = 0\n", "WORKBENCH_THREADS"),
        ("threads = \n", "workbench.toml cannot be read"),
    ],
)
def test_a_wrong_file_is_named(folder: Path, text: str, message: str):
    (folder / "workbench.toml").write_text(text)
    with pytest.raises(SettingsError, match=message):
        get_settings()
