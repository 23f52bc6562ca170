"""Settings from the environment (``WORKBENCH_*``) or ``workbench.toml``; no work at import.

Nested values use two underscores: ``WORKBENCH_MEMORY__LIMIT=8GiB``. The environment wins over
the file. Provider keys keep their usual names (``OPENAI_API_KEY`` ...) and are read by the
provider's own library, never stored here.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from workbench.errors import SettingsError
from workbench.units import parse_bytes


class _Group(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class MemorySettings(_Group):
    """What the workbench may use of this machine's memory."""

    limit: str | None = Field(
        default=None, description="Budget such as 8GiB; default: what is free"
    )
    headroom: str = Field(default="512MiB", description="Left free for everything else")
    query: str = Field(default="2GiB", description="What one SQL query may take")
    keep_alive_seconds: float = Field(
        default=600.0,
        description="How long an unused model stays; 0: not at all, below 0: for good",
    )
    turn_seconds: float = Field(
        default=10.0,
        ge=0,
        description="After waiting so long, a request keeps newer ones off the models it displaces",
    )
    wait_seconds: float = Field(
        default=600.0, ge=0, description="How long a request waits for memory that others use"
    )
    isolate: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(), description="Engines that run in a process of their own, such as ctranslate2"
    )

    @field_validator("limit", "headroom", "query")
    @classmethod
    def _is_a_size(cls, value: str | None) -> str | None:
        if value is not None:
            parse_bytes(value)
        return value

    @field_validator("isolate", mode="before")
    @classmethod
    def _by_commas(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(name.strip() for name in value.split(",") if name.strip())
        return value


class DefaultModels(_Group):
    """The model that each task uses when the request names none."""

    chat: str = "qwen2.5-coder-0.5b"
    sql: str = "qwen2.5-coder-0.5b"
    speech: str = "whisper-base"
    image: str = "shapes-32"
    embedding: str = "minilm-l6"


class Settings(BaseSettings):
    """All settings. ``workbench doctor`` prints them with their origin."""

    model_config = SettingsConfigDict(
        env_prefix="WORKBENCH_",
        env_nested_delimiter="__",
        toml_file="workbench.toml",
        frozen=True,
        extra="forbid",
    )

    home: Path = Field(default=Path("~/.cache/workbench"), description="Models and downloads")
    runs: Path = Field(default=Path("runs"), description="Results: pictures, MLflow store, uploads")
    tracking_uri: str | None = Field(
        default=None, description="MLflow store; default: SQLite in the runs folder"
    )
    offline: bool = Field(default=False, description="Never ask a hub or a package index")
    threads: int | None = Field(default=None, ge=1, description="CPU threads an engine may use")
    language: Literal["en", "vi"] = Field(default="en", description="Language of the app's texts")
    memory: MemorySettings = MemorySettings()
    models: DefaultModels = DefaultModels()

    @field_validator("home", "runs")
    @classmethod
    def _expand(cls, value: Path) -> Path:
        return value.expanduser().absolute()

    @property
    def mlflow_uri(self) -> str:
        """The tracking URI in force: the setting, MLFLOW_TRACKING_URI, or local SQLite."""
        import os

        return (
            self.tracking_uri
            or os.environ.get("MLFLOW_TRACKING_URI")
            or f"sqlite:///{self.runs / 'mlflow.db'}"
        )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls)


@lru_cache(maxsize=1)
def get_settings() -> Settings:
    """The settings of this process. Raises SettingsError naming the wrong value."""
    try:
        return Settings()
    except ValidationError as error:
        first = error.errors()[0]
        where = "__".join(str(part) for part in first["loc"]).upper()
        raise SettingsError(
            f"The setting WORKBENCH_{where} is wrong: {first['msg']}.",
            "Correct it in the environment or in workbench.toml.",
        ) from None
    except (OSError, ValueError) as error:
        raise SettingsError(
            f"workbench.toml cannot be read: {error}.", "Correct or remove the file."
        ) from None
