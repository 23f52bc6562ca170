"""Fixtures for every test: fresh settings, and a home whose catalogue holds stub models."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import yaml

from workbench.engines import pool as pool_module
from workbench.models import catalog
from workbench.settings import get_settings

# a busy machine is no failure
hypothesis.settings.register_profile("workbench", deadline=None)
hypothesis.settings.load_profile("workbench")


def _forget() -> None:
    get_settings.cache_clear()
    catalog.get_catalog.cache_clear()


@pytest.fixture(autouse=True)
def _fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Results of a test go to its own folder; settings are read anew before and after it."""
    monkeypatch.setenv("WORKBENCH_RUNS", str(tmp_path / "runs"))
    for name in ("WORKBENCH_MEMORY__LIMIT", "WORKBENCH_OFFLINE", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    _forget()
    yield
    _forget()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty WORKBENCH_HOME."""
    folder = tmp_path / "home"
    (folder / "catalog").mkdir(parents=True)
    monkeypatch.setenv("WORKBENCH_HOME", str(folder))
    _forget()
    return folder


@pytest.fixture
def write_model(home: Path) -> Callable[..., str]:
    """Write a catalogue entry into `home`; by default a stub chat model. Returns its id."""

    def write(model_id: str = "stub-chat", **entry: Any) -> str:
        values = {
            "id": model_id,
            "title": model_id,
            "task": "chat",
            "engine": "stub",
            "licence": "none",
            "sources": [{"kind": "local", "path": str(home)}],
            **entry,
        }
        path = home / "catalog" / f"{model_id.replace('/', '-')}.yaml"
        path.write_text(yaml.safe_dump(values), encoding="utf-8")
        catalog.get_catalog.cache_clear()
        return model_id

    return write


@pytest.fixture
def stub_models(write_model: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """One stub model a task, set as the defaults: {task: id}."""
    tasks = ("chat", "speech", "image", "embedding")
    ids = {task: write_model(f"stub-{task}", task=task) for task in tasks}
    for task, model_id in ids.items():
        monkeypatch.setenv(f"WORKBENCH_MODELS__{task.upper()}", model_id)
    monkeypatch.setenv("WORKBENCH_MODELS__SQL", ids["chat"])
    _forget()
    return ids


@pytest.fixture
def own_pool(monkeypatch: pytest.MonkeyPatch) -> pool_module.ModelPool:
    """A pool of this test alone, used by the public functions too."""
    pool = pool_module.ModelPool()
    monkeypatch.setattr(pool_module, "_default_pool", lambda: pool)
    return pool
