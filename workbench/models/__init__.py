"""The models that can run: `list`, `get`, `pull`, `verify`, `locate`."""

from __future__ import annotations

import builtins
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from workbench.models.sources import FileCheck, Progress
    from workbench.models.spec import ModelSpec, Task

__all__ = ["get", "list", "locate", "pull", "verify"]


def list(task: Task | None = None) -> builtins.list[ModelSpec]:
    """Every model of the catalogue, or those of one task, starters first."""
    from workbench.models.catalog import get_catalog

    catalog = get_catalog()
    return catalog.for_task(task) if task else [*catalog]


def get(name: str, task: Task | None = None) -> ModelSpec:
    """The model called ``name``: id, alias, path, or ``org/name``. Raises UnknownModel."""
    from workbench.models.catalog import get_catalog

    return get_catalog().resolve(name, task)


def pull(name: str, progress: Progress | None = None, force: bool = False) -> Path:
    """Fetch a model and check its sha256; returns the path that its engine opens."""
    from workbench.models import sources

    return sources.pull(get(name), progress, force)


def verify(name: str, progress: Progress | None = None) -> builtins.list[FileCheck]:
    """Hash the files of a model again and compare them with the catalogue."""
    from workbench.models import sources

    return sources.verify(get(name), progress)


def locate(name: str) -> Path | None:
    """The path of a model on this machine, or None."""
    from workbench.models import sources

    return sources.locate(get(name))
