"""A store that is ready (making MLflow's tables takes seconds) and small recordings."""

from __future__ import annotations

import shutil
import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from workbench.settings import get_settings


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow database with its tables and nothing in it."""
    from workbench.lab import store

    folder = tmp_path_factory.mktemp("mlflow")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WORKBENCH_RUNS", str(folder))
        get_settings.cache_clear()
        store.client()
        get_settings.cache_clear()
    return folder / "mlflow.db"


@pytest.fixture
def ready_store(empty_database: Path, _fresh: None) -> Path:
    """The runs folder of this test, with an empty store in it."""
    folder = get_settings().runs
    folder.mkdir(parents=True)
    shutil.copy(empty_database, folder / "mlflow.db")
    return folder


@pytest.fixture
def recordings(tmp_path: Path) -> list[str]:
    """Two recordings, of 1 and 2 seconds, that the stub hears as that many words pairs."""
    paths = []
    for seconds in (1, 2):
        path = tmp_path / f"{seconds}.wav"
        tone = np.sin(np.arange(16_000 * seconds) / 10) * 8_000
        with wave.open(str(path), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(16_000)
            file.writeframes(tone.astype("<i2").tobytes())
        paths.append(str(path))
    return paths


@pytest.fixture
def stub_sweep(
    ready_store: Path, stub_models: dict[str, str], own_pool: Any, recordings: list[str]
) -> Callable[..., dict[str, Any]]:
    """The fields of a sweep over the stub speech model, in this process unless told otherwise."""

    def make(**changes: Any) -> dict[str, Any]:
        items = [{"file": path, "text": "second 0"} for path in recordings]
        return {
            "name": "stub_beams",
            "question": "Does the beam matter to a stub?",
            "task": "transcribe",
            "items": items,
            "fixed": {"vad": False},
            "grid": {"beam_size": [1, 5]},
            "isolate": False,
            **changes,
        }

    return make
