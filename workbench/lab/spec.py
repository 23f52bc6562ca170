"""What a sweep measures: `SweepSpec`, from Python or YAML. A mistake is named by file and line."""

from __future__ import annotations

import inspect
import itertools
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

import workbench
from workbench.errors import SettingsError, UnknownOption, UserInputError
from workbench.project import project_root
from workbench.yaml_files import line_of_key, read_yaml

SweepTask = Literal["transcribe", "chat", "draw", "ask"]
Item = dict[str, Any]

#: Parameters of a task that an item gives, so that a grid may not.
_INPUTS = {
    "transcribe": ("audio",),
    "chat": ("prompt",),
    "draw": ("prompt",),
    "ask": ("database", "question"),
}
_NOT_SWEPT = ("stream", "reference")
#: What a data set calls a parameter of the task.
_ALIASES = {"transcribe": {"file": "audio", "text": "reference"}}
_PATHS = ("audio", "database")
#: ``language: none`` marks a recording without speech.
_NO_LANGUAGE = "none"

Group = TypeVar("Group", bound=BaseModel)


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class FastSettings(_Frozen):
    """What the fast mode of an experiment changes; None: nothing."""

    limit: int | None = Field(default=None, ge=1)
    repeats: int | None = Field(default=None, ge=1)
    warmup: int | None = Field(default=None, ge=0)


class SweepSpec(_Frozen):
    """A question, and the trials that answer it: every combination of ``grid`` on all items.

    ``items`` is a ``manifest.jsonl`` (relative to the YAML file, else to the project) or a list.
    An item gives the task's inputs under their own names (speech: ``file`` and ``text`` mean
    audio and reference), so a ``reference`` is scored; ``fixed`` and ``grid`` win over an item.
    """

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_.-]*$", description="Also the MLflow experiment")
    question: str = Field(min_length=1)
    task: SweepTask
    items: str | tuple[Item, ...] = Field(description="manifest.jsonl, or the items themselves")
    where: dict[str, Any] = Field(
        default_factory=dict, description="Keep only the items whose fields have these values"
    )
    limit: int | None = Field(default=None, ge=1, description="Use only the first items")
    fixed: dict[str, Any] = Field(default_factory=dict)
    grid: dict[str, tuple[Any, ...]] = Field(default_factory=dict)
    repeats: int = Field(default=1, ge=1, description="Measured calls of each item")
    warmup: int = Field(default=1, ge=0, description="Calls after the first that do not count")
    timeout_seconds: float = Field(default=1800.0, gt=0, description="Of one trial")
    isolate: bool = Field(default=True, description="A fresh process a trial; False: this one")
    fast: FastSettings = FastSettings()

    @model_validator(mode="after")
    def _is_consistent(self) -> SweepSpec:
        for name, values in self.grid.items():
            if not values:
                raise ValueError(f"grid.{name} is empty")
            if len({json.dumps(value, sort_keys=True, default=str) for value in values}) < len(
                values
            ):
                raise ValueError(f"grid.{name} has a value twice")
        if both := set(self.grid).intersection(self.fixed):
            raise ValueError(f"{min(both)} is in fixed and in grid")
        if not self.isolate and "timeout_seconds" in self.model_fields_set:
            raise ValueError("timeout_seconds needs isolate: a call in this process is not killed")
        return self

    def faster(self) -> SweepSpec:
        """The spec with its fast settings in force."""
        return self.model_copy(update=self.fast.model_dump(exclude_none=True))

    def configurations(self) -> Iterator[dict[str, Any]]:
        """Every combination of the grid, the last name varying fastest, in the order written."""
        for values in itertools.product(*self.grid.values()):
            yield dict(zip(self.grid, values, strict=True))


def parse(source: SweepSpec | Mapping[str, Any] | str | Path) -> SweepSpec:
    """A checked spec from a spec, a mapping, a YAML file or a folder with ``experiment.yaml``.

    Raises SettingsError (unreadable or malformed, with file and line), UnknownOption (a
    parameter that the task does not have).
    """
    if isinstance(source, str | Path):
        return _read(Path(source).expanduser())
    if isinstance(source, SweepSpec):
        spec = source
    else:
        try:
            spec = SweepSpec.model_validate(dict(source))
        except ValidationError as error:
            where, message = _first(error)
            raise SettingsError(
                f"The sweep is wrong: {'.'.join(map(str, where))}: {message}.", "Correct it."
            ) from None
    problem = _unknown_parameter(spec)
    if problem:
        raise problem[1]
    return spec


def load_items(spec: SweepSpec) -> tuple[Item, ...]:
    """The chosen items as arguments of the task, paths made absolute.

    Raises UserInputError naming the item (in a manifest: file and line) that lacks an input.
    """
    if isinstance(spec.items, str):
        path = _resolve(spec.items, Path.cwd())
        found = [
            (where, _anchored(item, lambda name: path.parent / Path(name).expanduser()))
            for where, item in _manifest(path)
        ]
    else:
        found = [
            (f"Item {number}", _anchored(item, lambda name: _resolve(name, Path.cwd())))
            for number, item in enumerate(spec.items, 1)
        ]
    chosen = [
        (where, item)
        for where, item in found
        if all(item.get(name) == value for name, value in spec.where.items())
    ][: spec.limit]
    if not chosen:
        raise UserInputError(
            f"The sweep {spec.name} has no items.", "Check `items`, `where` and `limit`."
        )
    # a data set may carry its own columns; an item written into the sweep may not
    is_strict = not isinstance(spec.items, str)
    return tuple(_arguments(spec, where, item, is_strict) for where, item in chosen)


def task_function(task: SweepTask) -> Callable[..., Any]:
    """The public function of the task."""
    function: Callable[..., Any] = getattr(workbench, task)
    return function


# -- inside ----------------------------------------------------------------------------------


def _read(path: Path) -> SweepSpec:
    path = path / "experiment.yaml" if path.is_dir() else path
    data, text = read_yaml(path)
    if not isinstance(data, dict):
        raise SettingsError(f"{path}:1: this is not a sweep.", "Write `name:`, `task:` and so on.")
    try:
        spec = SweepSpec.model_validate(data)
    except ValidationError as error:
        where, message = _first(error)
        named = ".".join(map(str, where))
        raise SettingsError(
            f"{path}:{line_of_key(text, where)}: {named + ': ' if named else ''}{message}.",
            "Correct the file.",
        ) from None
    problem = _unknown_parameter(spec)
    if problem:
        where, unknown = problem
        raise UnknownOption(f"{path}:{line_of_key(text, where)}: {unknown.message}", unknown.remedy)
    folder = path.parent.absolute()
    if isinstance(spec.items, str):
        return spec.model_copy(update={"items": str(_resolve(spec.items, folder))})
    items = tuple(_anchored(item, lambda name: _resolve(name, folder)) for item in spec.items)
    return spec.model_copy(update={"items": items})


def _first(error: ValidationError) -> tuple[tuple[int | str, ...], str]:
    first = error.errors()[0]
    return first["loc"], first["msg"].removeprefix("Value error, ")


def _parameters(task: SweepTask) -> dict[str, inspect.Parameter]:
    return dict(inspect.signature(task_function(task)).parameters)


def _unknown_parameter(spec: SweepSpec) -> tuple[tuple[str, str], UnknownOption] | None:
    """Where and what, for the first name in fixed or grid that the task cannot honour."""
    hidden = (*_INPUTS[spec.task], *_NOT_SWEPT)
    allowed = [name for name in _parameters(spec.task) if name not in hidden]
    for group, names in (("fixed", spec.fixed), ("grid", spec.grid)):
        for name in names:
            if name not in allowed:
                why = "comes from the items" if name in hidden else "is not a parameter"
                return (group, name), UnknownOption(
                    f"{name!r} {why} of {spec.task}.", f"Choose from: {', '.join(allowed)}."
                )
    return None


def _resolve(name: str, folder: Path) -> Path:
    """A path as written, in ``folder``, or else in the project."""
    path = Path(name).expanduser()
    if path.is_absolute() or (folder / path).exists():
        return (folder / path).absolute()
    return project_root() / path


def _anchored(item: Item, resolve: Callable[[str], Path]) -> Item:
    """The item with its paths made absolute."""
    return {
        name: str(resolve(value)) if _is_path(name, value) else value
        for name, value in item.items()
    }


def _is_path(name: str, value: Any) -> bool:
    return name in (*_PATHS, "file") and isinstance(value, str) and "://" not in value


def _manifest(path: Path) -> Iterator[tuple[str, Item]]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserInputError(f"{path} cannot be read: {error}.", "Check `items`.") from None
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            item = json.loads(line)
        except ValueError:
            item = None
        if not isinstance(item, dict):
            raise UserInputError(
                f"{path}:{number}: this is not a JSON object.", "Write one object a line."
            )
        yield f"{path}:{number}", item


def _arguments(spec: SweepSpec, where: str, item: Item, is_strict: bool) -> Item:
    aliases = _ALIASES.get(spec.task, {})
    parameters = _parameters(spec.task)
    arguments: Item = {}
    for name, value in item.items():
        parameter = aliases.get(name, name)
        if parameter == "language" and value == _NO_LANGUAGE:
            continue
        if parameter in parameters:
            arguments[parameter] = value
        elif is_strict:
            known = ", ".join([*aliases, *parameters])
            raise UnknownOption(
                f"{where}: {name!r} is not a parameter of {spec.task}.", f"Choose from: {known}."
            )
    for name in _INPUTS[spec.task]:
        if name not in arguments:
            raise UserInputError(f"{where}: the item has no {name!r}.", "Add it.")
    chosen = {**spec.fixed, **spec.grid}
    return {name: value for name, value in arguments.items() if name not in chosen}
