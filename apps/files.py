"""Where the app keeps uploads and outputs: ``<runs>/app`` and nowhere else."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from pathlib import Path

from workbench.project import project_root
from workbench.settings import get_settings

#: The largest file that a page may send.
UPLOAD_LIMIT = "500mb"
KEEP_SECONDS = 86_400.0


def prepare() -> Path:
    """Point Gradio at our folder and switch its telemetry off; call it before importing it."""
    folder = files_folder()
    folder.mkdir(parents=True, exist_ok=True)
    os.environ["GRADIO_TEMP_DIR"] = str(folder)
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    return folder


def files_folder() -> Path:
    """Uploads, and the files a page offers for download; they are kept for a day."""
    return get_settings().runs / "app" / "files"


def remove_old(now_seconds: float) -> None:
    """Delete what has been there for more than a day."""
    for path in files_folder().iterdir():
        with contextlib.suppress(FileNotFoundError):  # another request removed it first
            if path.lstat().st_mtime > now_seconds - KEEP_SECONDS:
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink()


def new_folder() -> Path:
    """A fresh folder for one result, under a name that cannot be guessed; old ones go."""
    files_folder().mkdir(parents=True, exist_ok=True)
    remove_old(time.time())
    return Path(tempfile.mkdtemp(dir=files_folder()))


def sample_databases() -> list[Path]:
    """The sample databases of the project."""
    folder = project_root() / "data"
    return sorted(p for p in folder.glob("*") if p.suffix in (".duckdb", ".sqlite"))


def speech_folder() -> Path:
    """The sample clips of the project."""
    return project_root() / "data" / "speech"


def is_upload(path: Path) -> bool:
    """Whether ``path`` came through the upload of a page."""
    return path.resolve().is_relative_to(files_folder().resolve())
