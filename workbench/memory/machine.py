"""What this machine is, as far as memory and speed are planned with it: plain numbers.

They are measured by ``workbench doctor --calibrate`` and kept in ``WORKBENCH_HOME/machine.json``;
without that the reference values below hold, and plans say so.
"""

from __future__ import annotations

from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from workbench.errors import SettingsError
from workbench.settings import get_settings

MIB = 2**20
#: Libraries that decide what an engine takes before it has a model.
LIBRARIES = (
    "torch",
    "transformers",
    "diffusers",
    "accelerate",
    "ctranslate2",
    "faster-whisper",
    "xllamacpp",
    "numpy",
)


class Machine(BaseModel):
    """Bytes that an engine takes before it has a model, and speeds by device.

    Keys of ``context_bytes`` are ``engine`` (host memory of the process after the engine's
    libraries were imported) and ``engine@cuda`` (the device's own context). Keys of the speeds
    are ``cpu``, ``cuda``, ``host_to_cuda``, ``disk`` (bytes a second) and ``cpu/float32``,
    ``cuda/float16`` ... (multiply-adds count twice). ``versions`` are those it was measured with.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = "reference values (run `workbench doctor --calibrate`)"
    is_measured: bool = False
    measured_on: str | None = None
    versions: dict[str, str] = {}
    context_bytes: dict[str, int] = Field(
        default_factory=lambda: {
            "llama_cpp": 46 * MIB,
            "ctranslate2": 74 * MIB,
            "transformers": 391 * MIB,
            "diffusers": 483 * MIB,
        }
    )
    bytes_per_second: dict[str, float] = Field(
        default_factory=lambda: {"cpu": 10e9, "cuda": 1e12, "host_to_cuda": 20e9, "disk": 1e9}
    )
    flops: dict[str, float] = Field(
        default_factory=lambda: {"cpu/float32": 1e11, "cuda/float16": 1e14}
    )


def machine_file() -> Path:
    """Where the measured values of this machine are kept."""
    return get_settings().home / "machine.json"


def get_machine() -> Machine:
    """The measured values of this machine, else the reference ones.

    Where a library has changed since, the values still hold best, and ``name`` says so. Raises
    SettingsError.
    """
    path = machine_file()
    return _read(path, path.stat().st_mtime_ns) if path.is_file() else Machine()


def library_versions() -> dict[str, str]:
    """Installed versions of `LIBRARIES`; nothing is imported."""
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


@lru_cache(maxsize=4)
def _read(path: Path, changed_ns: int) -> Machine:
    try:
        machine = Machine.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, ValidationError):
        raise SettingsError(
            f"{path} cannot be used.", "Make it anew: `workbench doctor --calibrate`."
        ) from None
    now = library_versions()
    changed = sorted(
        name for name in {*now, *machine.versions} if now.get(name) != machine.versions.get(name)
    )
    if not changed:
        return machine
    stale = f"{machine.name}; {', '.join(changed)} changed since: `workbench doctor --calibrate`"
    return machine.model_copy(update={"name": stale})
