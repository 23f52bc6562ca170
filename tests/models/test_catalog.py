"""The catalogue: every file of the project is valid, and mistakes are named by line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import workbench
from workbench.engines.registry import ENGINES
from workbench.errors import SettingsError, UnknownModel
from workbench.models.catalog import Catalog, read_spec
from workbench.models.spec import PackageSource
from workbench.project import project_root
from workbench.settings import DefaultModels

FILES = sorted((project_root() / "pipelines" / "models").glob("*.yaml"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_each_file_of_the_project(path: Path):
    spec = read_spec(path)
    assert spec.id == path.stem
    assert spec.engine in ENGINES
    assert spec.task in ENGINES[spec.engine].tasks
    for source in spec.sources:
        if isinstance(source, PackageSource):
            assert all(file.sha256 and file.size_bytes for file in spec.files)


def test_names_are_unique():
    specs = [read_spec(path) for path in FILES]
    names = [name for spec in specs for name in (spec.id, *spec.aliases)]
    assert len(names) == len(set(names))


def test_default_models_exist_and_are_starters():
    for field, model_id in DefaultModels().model_dump().items():
        spec = workbench.models.get(model_id, task="chat" if field == "sql" else field)
        assert spec.starter


def test_alias_and_suggestion():
    catalog = Catalog.read(project_root() / "pipelines" / "models")
    assert catalog.resolve("base").id == "whisper-base"
    with pytest.raises(UnknownModel, match="Did you mean 'whisper-base'"):
        catalog.resolve("whisper-bse")
    with pytest.raises(UnknownModel, match="does speech, not chat"):
        catalog.resolve("whisper-base", task="chat")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id: a\nttle: b\n", r"x\.yaml:\d+: "),
        ("id: a\ntitle: b\ntask: chat\nengine: stub\nlicence: x\nsources:\n  - kind: hub\n"
         "    repo: no-slash\n", r"x\.yaml:8: sources\.0\.hub\.repo"),
        ("id: a\ntitle: b\ntask: cook\n", r"x\.yaml:3: task"),
        ("id: [\n", r"x\.yaml:2: this is not YAML"),
        ("id: a\ntitle: b\ntask: chat\nengine: stub\nlicence: x\nsources:\n  - kind: package\n"
         "    packages: [a>=1]\n    parts: {}\n", r"x\.yaml:8: .*not pinned"),
        ("id: a\ntitle: b\ntask: chat\nengine: stub\nlicence: x\nfiles:\n  - name: ../../etc/x\n"
         "sources:\n  - {kind: local, path: x}\n", r"x\.yaml:7: .*must stay inside"),
    ],
)  # fmt: skip
def test_a_mistake_is_named_by_file_and_line(tmp_path: Path, text: str, message: str):
    path = tmp_path / "x.yaml"
    path.write_text(text)
    with pytest.raises(SettingsError, match=message):
        read_spec(path)


def test_a_users_own_model_is_found(write_model: Callable[..., str]):
    write_model("my-model", title="Mine")
    assert workbench.models.get("my-model").title == "Mine"


@pytest.mark.parametrize(
    ("make", "engine", "task"),
    [
        (["weights.gguf"], "llama_cpp", "chat"),
        (["m/model_index.json"], "diffusers", "image"),
        (["m/model.bin", "m/config.json"], "ctranslate2", "speech"),
        (["m/config.json"], "transformers", "chat"),
    ],
)
def test_a_path_is_a_model(tmp_path: Path, make: list[str], engine: str, task: str):
    for name in make:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("{}")
    target = tmp_path / (make[0] if "/" not in make[0] else "m")
    spec = workbench.models.get(str(target))
    assert (spec.engine, spec.task) == (engine, task)
    assert workbench.models.locate(str(target)) == target


@pytest.mark.parametrize(
    ("name", "begins"),
    [
        ("my model (1).gguf", "local/my-model-1-"),
        ("Mô hình đẹp.gguf", "local/mo-hinh-dep-"),
        ("Qwen2.5-0.5B/config.json", "local/qwen2.5-0.5b-"),
        ("模型/config.json", "local/"),
    ],
)
def test_every_name_of_a_path_makes_a_valid_id(tmp_path: Path, name: str, begins: str):
    file = tmp_path / name
    file.parent.mkdir(exist_ok=True)
    file.write_text("{}")
    spec = workbench.models.get(str(file if file.suffix == ".gguf" else file.parent))
    assert spec.id.startswith(begins)
    assert spec.title in (file.name, file.parent.name)


def test_folders_of_one_name_are_two_models(tmp_path: Path):
    ids = []
    for place in ("a", "b"):
        folder = tmp_path / place / "model"
        folder.mkdir(parents=True)
        (folder / "config.json").write_text("{}")
        ids.append(workbench.models.get(str(folder)).id)
    # the pool knows a loaded model by its id
    assert ids[0] != ids[1]
    assert workbench.models.get(str(folder)).id == ids[1]


def test_a_path_that_is_no_model(tmp_path: Path):
    with pytest.raises(UnknownModel, match="not a model that an engine here can open"):
        workbench.models.get(str(tmp_path))


def test_a_hub_name_needs_no_entry():
    spec = workbench.models.get("Org/Name-1B", task="chat")
    assert (spec.id, spec.engine) == ("org/name-1b", "transformers")
