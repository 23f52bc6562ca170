"""A model's facts, complete and at once: headers are read again only when a file has changed."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from workbench.engines.registry import ENGINES
from workbench.engines.trace import with_profiles
from workbench.memory.facts import ModelFacts, read_facts
from workbench.models.spec import ModelSpec

#: File, bytes and time of change, for every file of a model.
_Stamp = tuple[tuple[str, int, int], ...]


def known_facts(spec: ModelSpec, path: Path) -> ModelFacts:
    """`read_facts`, with activation profiles where torch computes; kept until a file changes.

    Raises UserInputError for a truncated file, a header that lies or a broken configuration.
    """
    return _known(spec.model_dump_json(), path, _stamp(path))


def with_activations(facts: ModelFacts) -> ModelFacts:
    """The facts with the activation profiles of their torch components."""
    engine = ENGINES.get(facts.engine)
    is_torch = engine is not None and "torch" in engine.packages
    return with_profiles(facts) if is_torch else facts


@lru_cache(maxsize=64)
def _known(spec: str, path: Path, stamp: _Stamp) -> ModelFacts:
    return with_activations(read_facts(ModelSpec.model_validate_json(spec), path))


def _stamp(path: Path) -> _Stamp:
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    stats = ((str(file), file.stat()) for file in files)
    return tuple((name, found.st_size, found.st_mtime_ns) for name, found in stats)
