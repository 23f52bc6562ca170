"""What files say about a model: weights by kind and dtype, and its configuration. Plain data,
so an estimate can be made, and scored, without the files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from workbench.errors import UserInputError
from workbench.memory.headers import WeightsHeader, read_weights
from workbench.models.spec import ModelSpec


class ActivationProfile(BaseModel):
    """Live elements of a component's forward pass beside its weights.

    Every moment of a pass holds ``c0 + c1 items + c2 n + c3 n²/items`` elements for ``n`` units
    (tokens, latent or output pixels) in ``items`` sequences or pictures computed together;
    guidance makes two pictures of one. ``moments`` are those that can be the largest, and the
    peak is the largest of them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    moments: tuple[tuple[float, float, float, float], ...]
    unit: str
    source: str

    def elements(self, units: float, items: float = 1.0) -> float:
        """Live elements at the peak for ``units`` units in ``items`` items."""
        return max(
            c0 + c1 * items + c2 * units + c3 * units * units / items
            for c0, c1, c2, c3 in self.moments
        )


class Component(BaseModel):
    """One set of weights with its configuration: a language model, a UNet, a VAE ..."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    architecture: str
    config: dict[str, Any]
    weights: WeightsHeader
    activations: dict[str, ActivationProfile] = {}


class ModelFacts(BaseModel):
    """A model as its files describe it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    task: str
    engine: str
    components: tuple[Component, ...]
    dtype: str | None = None
    context_tokens: int | None = None
    options: dict[str, Any] = {}

    def component(self, name: str) -> Component:
        """The component called ``name``. Raises KeyError."""
        for component in self.components:
            if component.name == name:
                return component
        raise KeyError(name)

    @property
    def weights_bytes(self) -> int:
        return sum(component.weights.weights_bytes for component in self.components)


def read_facts(spec: ModelSpec, path: Path) -> ModelFacts:
    """The facts of the model ``spec`` whose files are at ``path``.

    Raises UserInputError for a truncated file, a header that lies or a broken configuration.
    """
    if (path / "model_index.json").is_file():
        components = _pipeline_components(path)
    else:
        header = read_weights(path)
        config = _config(path) if path.is_dir() else dict(header.facts)
        components = (
            Component(
                name="model", architecture=architecture_of(config), config=config, weights=header
            ),
        )
    return facts_of(spec, components)


def facts_of(spec: ModelSpec, components: tuple[Component, ...]) -> ModelFacts:
    """The facts of ``spec``, whose parts were read from files here or on a hub."""
    return ModelFacts(
        model=spec.id,
        task=spec.task,
        engine=spec.engine,
        components=components,
        dtype=spec.dtype,
        context_tokens=spec.context_tokens,
        options=dict(spec.options),
    )


def _pipeline_components(path: Path) -> tuple[Component, ...]:
    """The parts of a diffusers folder that have weights, as ``model_index.json`` names them."""
    index = _read_json(path / "model_index.json")
    found = []
    for name, entry in index.items():
        folder = path / name
        if not isinstance(entry, list) or not any(folder.glob("*.safetensors")):
            continue
        config = _config(folder)
        found.append(
            Component(
                name=name,
                architecture=str(config.get("_class_name") or architecture_of(config)),
                config=config,
                weights=read_weights(folder),
            )
        )
    if not found:
        raise UserInputError(f"{path} has no safetensors weights.", "Fetch the model again.")
    return tuple(found)


def _config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    return _read_json(path) if path.is_file() else {}


def architecture_of(config: dict[str, Any]) -> str:
    """The architecture as a configuration or a GGUF header names it; else ``unknown``."""
    named = config.get("general.architecture") or config.get("model_type")
    return str(named or next(iter(config.get("architectures") or ()), "unknown"))


def _read_json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        found = None
    if not isinstance(found, dict):
        raise UserInputError(f"{path} is not a JSON object.", "Fetch the model again.")
    return found
