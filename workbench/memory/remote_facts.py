"""Facts of a model that is not here, from its hub repository: headers and configurations only."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import PurePosixPath

from workbench.errors import SourceUnreachable, UserInputError
from workbench.memory.facts import Component, ModelFacts, architecture_of, facts_of
from workbench.memory.headers import WeightsHeader, joined
from workbench.memory.headers.remote import RemoteFiles, opened
from workbench.models.spec import HubSource, ModelSpec

_MOST_FILES = 400


def read_remote_facts(spec: ModelSpec) -> ModelFacts:
    """The facts of the hub model ``spec``, as `read_facts` would give them once it is pulled.

    Raises SourceUnreachable (no hub, offline, a server that cannot give ranges) and
    UserInputError (no weights whose header can be read, a header that lies).
    """
    source = next((source for source in spec.sources if isinstance(source, HubSource)), None)
    if source is None:
        raise SourceUnreachable(
            f"The model {spec.id} has no hub repository to ask.",
            f"Fetch it with `workbench models pull {spec.id}`.",
        )
    with opened(source) as files:
        names = _wanted(files, spec, source)
        if "model_index.json" in names:
            components = _pipeline(files, names)
        else:
            components = (_model(files, names, source),)
    return facts_of(spec, components)


def _wanted(files: RemoteFiles, spec: ModelSpec, source: HubSource) -> list[str]:
    """Names in the repository that a pull would fetch."""
    if source.files:
        return list(source.files.values())
    return [file.name for file in spec.files] or files.names()


def _model(files: RemoteFiles, names: list[str], source: HubSource) -> Component:
    ggufs = [name for name in names if name.endswith(".gguf")]
    if ggufs:
        header = files.gguf(_one_gguf(ggufs, source))
        config = dict(header.facts)
    elif weights := _in_folder(names, ""):
        header = _weights(files, weights, names, "")
        config = files.json("config.json") if "config.json" in names else {}
    else:
        spread = any(PurePosixPath(name).name == "model.bin" for name in names)
        why = "its header is spread over the whole file" if spread else "it has no safe weights"
        raise UserInputError(
            f"The size of {source.repo} cannot be read from afar: {why}.", "Pull it first."
        )
    return Component(
        name="model", architecture=architecture_of(config), config=config, weights=header
    )


def _one_gguf(names: list[str], source: HubSource) -> str:
    if len(names) > 1:
        raise UserInputError(
            f"{source.repo} has {len(names)} GGUF files.",
            f"Name one of them in the catalogue entry, such as {sorted(names)[0]}.",
        )
    return names[0]


def _pipeline(files: RemoteFiles, names: list[str]) -> tuple[Component, ...]:
    """The parts of a diffusers repository that have weights, as its index names them."""
    found = []
    for part, entry in files.json("model_index.json").items():
        weights = _in_folder(names, f"{part}/")
        if not isinstance(entry, list) or not weights:
            continue
        config = files.json(f"{part}/config.json") if f"{part}/config.json" in names else {}
        found.append(
            Component(
                name=part,
                architecture=str(config.get("_class_name") or architecture_of(config)),
                config=config,
                weights=_weights(files, weights, names, f"{part}/"),
            )
        )
    if not found:
        raise UserInputError("The pipeline has no safetensors weights.", "Pull it first.")
    return tuple(found)


def _in_folder(names: Iterable[str], folder: str) -> list[str]:
    """The ``.safetensors`` files right in ``folder``; of two variants, the one that is loaded."""
    here = [
        name
        for name in names
        if name.startswith(folder)
        and name.endswith(".safetensors")
        and "/" not in name[len(folder) :]
    ]
    chosen: dict[str, str] = {}
    for name in sorted(here):
        base = name.replace(".fp16", "")
        if base not in chosen or ".fp16" in name:
            chosen[base] = name
    return list(chosen.values())


def _weights(
    files: RemoteFiles, weights: list[str], names: list[str], folder: str
) -> WeightsHeader:
    """The header of all files together; an index says which of them are the model's."""
    indexes = [
        name
        for name in names
        if name.startswith(folder) and name.endswith(".safetensors.index.json")
    ]
    if len(weights) > 1 and indexes:
        index = min(indexes, key=len)
        listed = files.json(index).get("weight_map")
        if not isinstance(listed, dict) or not listed:
            raise UserInputError(f"{index} lists no files.", "Pull the model, or tell its author.")
        weights = sorted({folder + str(name) for name in listed.values()})
    if missing := [name for name in weights if name not in names]:
        raise UserInputError(f"{missing[0]} is listed but not there.", "Tell the model's author.")
    if len(weights) > _MOST_FILES:
        raise UserInputError(f"The model has {len(weights)} files of weights.", "Pull it first.")
    headers = [files.safetensors(name) for name in weights]
    return joined(headers)
