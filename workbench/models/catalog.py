"""Reads ``pipelines/models/*.yaml``: one model a file. A mistake is named by file and line."""

from __future__ import annotations

import difflib
import hashlib
import os
import re
import unicodedata
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from pydantic import ValidationError

from workbench.errors import SettingsError, UnknownModel
from workbench.models.spec import HubSource, LocalSource, ModelFile, ModelSpec, Task
from workbench.project import project_root
from workbench.settings import get_settings
from workbench.yaml_files import line_of_key, read_yaml


class Catalog:
    """The models known by name. Later folders override earlier ones."""

    def __init__(self, specs: dict[str, ModelSpec]) -> None:
        self._specs = specs
        self._names = {alias: spec.id for spec in specs.values() for alias in spec.aliases}

    @classmethod
    def read(cls, *folders: Path) -> Catalog:
        """Read every YAML of the folders. Raises SettingsError with file and line."""
        specs: dict[str, ModelSpec] = {}
        for folder in folders:
            for path in sorted(folder.glob("*.yaml")):
                spec = read_spec(path)
                specs[spec.id] = spec
        return cls(specs)

    def __iter__(self) -> Iterator[ModelSpec]:
        return iter(self._specs.values())

    def __len__(self) -> int:
        return len(self._specs)

    def for_task(self, task: Task) -> list[ModelSpec]:
        """The models of one task, the starters first."""
        return sorted(
            (spec for spec in self if spec.task == task), key=lambda s: (not s.starter, s.id)
        )

    def resolve(self, name: str, task: Task | None = None) -> ModelSpec:
        """The model called ``name``: an id, an alias, a local file or folder, or ``org/name``.

        Raises UnknownModel with the closest names, or if the model does another task.
        """
        spec = self._specs.get(self._names.get(name, name))
        if spec is None:
            spec = _spec_of_path(Path(name).expanduser(), task) or _spec_of_hub_name(name, task)
        if spec is None:
            known = [*self._specs, *self._names]
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
            hint = f"Did you mean {near[0]!r}? " if near else ""
            raise UnknownModel(
                f"There is no model {name!r}.", hint + "`workbench models list` shows all."
            )
        if task is not None and spec.task != task:
            fitting = ", ".join(other.id for other in self.for_task(task))
            raise UnknownModel(
                f"The model {spec.id!r} does {spec.task}, not {task}.", f"Use one of: {fitting}."
            )
        return spec


def read_spec(path: Path) -> ModelSpec:
    """One catalogue file. Raises SettingsError with file and line."""
    data, text = read_yaml(path)
    try:
        return ModelSpec.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        line = line_of_key(text, first["loc"])
        where = ".".join(str(part) for part in first["loc"])
        raise SettingsError(
            f"{path}:{line}: {where}: {first['msg']}.", "Correct the file."
        ) from None


def _spec_of_path(path: Path, task: Task | None) -> ModelSpec | None:
    """A spec for a file or folder that the user names directly, told by what is inside."""
    if not path.exists():
        return None
    main_file = path.name if path.is_file() else None
    kind: tuple[str, Task] | None = None
    if path.suffix == ".gguf":
        kind = ("llama_cpp", "chat")
    elif (path / "model_index.json").is_file():
        kind = ("diffusers", "image")
    elif (path / "model.bin").is_file() and (path / "config.json").is_file():
        kind = ("ctranslate2", "speech")
    elif (path / "config.json").is_file():
        kind = ("transformers", task if task in ("chat", "embedding") else "chat")
    if kind is None:
        raise UnknownModel(
            f"{path} is not a model that an engine here can open.",
            "Give a .gguf file, or a folder in diffusers, CTranslate2 or transformers form.",
        )
    engine, found_task = kind
    return ModelSpec(
        id=_id_of_path(path.absolute()),
        title=path.name,
        task=found_task,
        engine=engine,
        sources=(LocalSource(kind="local", path=str(path.absolute())),),
        files=(ModelFile(name=main_file),) if main_file else (),
        main_file=main_file,
        dtype=_DEFAULT_DTYPES.get(engine),
        licence="unknown",
    )


def _id_of_path(path: Path) -> str:
    """``/models/Mô hình 1.gguf`` -> ``local/mo-hinh-1-0f3a9c``: readable, valid whatever the name
    is, and another for another place, as the pool knows a model by its id."""
    name = path.name.lower().removesuffix(".gguf").replace("đ", "d")
    plain = unicodedata.normalize("NFKD", name)
    words = re.findall(r"[a-z0-9._]+", "".join(c for c in plain if not unicodedata.combining(c)))
    digest = hashlib.sha256(os.fsencode(path)).hexdigest()[:6]
    return "local/" + "-".join([*words, digest])


#: What an engine computes in when nobody says: planned and loaded alike. Others take the files'.
_DEFAULT_DTYPES = {"diffusers": "float32"}

_HUB_ENGINES: dict[Task, str] = {
    "chat": "transformers",
    "embedding": "transformers",
    "image": "diffusers",
    "speech": "ctranslate2",
}


def _spec_of_hub_name(name: str, task: Task | None) -> ModelSpec | None:
    """A spec for ``org/name`` on the hub; which engine follows from the task."""
    organisation, _, repo = name.partition("/")
    if not organisation or not repo or "/" in repo or name.startswith((".", "/", "~")):
        return None
    if any(not (c.isalnum() or c in "._-/") for c in name):
        return None
    chosen: Task = task or "chat"
    return ModelSpec(
        id=name.lower(),
        title=name,
        task=chosen,
        engine=_HUB_ENGINES[chosen],
        sources=(HubSource(kind="hub", repo=name),),
        dtype=_DEFAULT_DTYPES.get(_HUB_ENGINES[chosen]),
        licence="see the model card on the hub",
    )


@lru_cache(maxsize=1)
def get_catalog() -> Catalog:
    """The catalogue of this process: the project's models, then the user's own
    (``WORKBENCH_HOME/catalog/*.yaml``)."""
    return Catalog.read(project_root() / "pipelines" / "models", get_settings().home / "catalog")
