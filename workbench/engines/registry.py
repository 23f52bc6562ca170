"""The table of engines. Adding a runtime is one engine file and one row here."""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from workbench.engines.base import Model
from workbench.engines.worker import torch_thread
from workbench.errors import EngineMissing, SettingsError
from workbench.memory.request import LoadOptions

if TYPE_CHECKING:
    from workbench.models.spec import ModelSpec, Task


@dataclass(frozen=True)
class Engine:
    """One runtime: the module that loads with it, and the packages that it needs.

    ``imports`` are the modules that a first request loads; their memory is the engine's own.
    """

    name: str
    module: str
    packages: tuple[str, ...]
    tasks: tuple[Task, ...]
    imports: tuple[str, ...] = ()

    @property
    def is_installed(self) -> bool:
        """Whether its packages can be found (nothing is imported)."""
        return all(importlib.util.find_spec(package) for package in self.packages)


_TORCH_IMPORTS = (
    "torch",
    "accelerate",
    "transformers",
    "transformers.modeling_utils",
    "transformers.models.auto.modeling_auto",
)

ENGINES: dict[str, Engine] = {
    engine.name: engine
    for engine in (
        Engine(
            "llama_cpp",
            "workbench.engines.llama_cpp",
            ("xllamacpp",),
            ("chat",),
            ("xllamacpp",),
        ),
        Engine(
            "ctranslate2",
            "workbench.engines.ctranslate2",
            ("faster_whisper",),
            ("speech",),
            ("ctranslate2", "faster_whisper"),
        ),
        Engine(
            "diffusers",
            "workbench.engines.diffusers",
            ("diffusers", "torch"),
            ("image",),
            (
                *_TORCH_IMPORTS,
                "diffusers",
                "diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion",
                "transformers.models.clip.modeling_clip",
            ),
        ),
        Engine(
            "transformers",
            "workbench.engines.transformers",
            ("transformers", "torch", "accelerate"),
            ("chat", "embedding"),
            (*_TORCH_IMPORTS, "transformers.generation.utils"),
        ),
        Engine("providers", "workbench.engines.providers", ("langchain_openai",), ("chat",)),
        Engine("stub", "workbench.engines.stub", (), ("chat", "speech", "image", "embedding")),
    )
}


def find_engine(name: str) -> Engine:
    """The engine called ``name``. Raises SettingsError or EngineMissing."""
    engine = ENGINES.get(name)
    if engine is None:
        raise SettingsError(
            f"There is no engine {name!r}.", f"The catalogue may name: {', '.join(ENGINES)}."
        )
    if not engine.is_installed:
        missing = next(p for p in engine.packages if not importlib.util.find_spec(p))
        raise EngineMissing(
            f"The engine {name} needs the Python package {missing}, which is not installed.",
            "Install it with `pip install -e .` in the project.",
        )
    return engine


def import_libraries(name: str) -> None:
    """Import what a first request to the engine loads. Raises SettingsError or EngineMissing."""
    for module in find_engine(name).imports:
        importlib.import_module(module)


def load(spec: ModelSpec, path: Path, options: LoadOptions) -> Model:
    """Load a model with its engine. Only the pool calls this."""
    engine = find_engine(spec.engine)
    module = importlib.import_module(engine.module)

    def work() -> Model:
        model: Model = module.load(spec, path, options)
        return model

    return torch_thread.run(work) if "torch" in engine.packages else work()
