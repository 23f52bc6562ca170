"""What every header reader returns and raises."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict

from workbench.errors import UserInputError


class WeightsHeader(BaseModel):
    """Bytes of all tensors as stored, by dtype and by kind, and the header's own facts.

    ``bytes_by_kind`` is kind -> dtype -> bytes, where the format names its tensors. Kinds:
    ``linear`` (two dimensions), ``embedding``, ``head`` (the output projection), ``expert``,
    ``conv`` (three dimensions and more), ``other`` (norms, biases, tables).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    weights_bytes: int
    bytes_by_dtype: dict[str, int] = {}
    facts: dict[str, object] = {}
    bytes_by_kind: dict[str, dict[str, int]] = {}


def kind_of_tensor(name: str, dimensions: int) -> str:
    """The kind of a tensor, told by its name and its number of dimensions."""
    if dimensions < 2:
        return "other"
    lower = name.lower()
    if "expert" in lower or "_exps" in lower:
        return "expert"
    if "lm_head" in lower or lower.startswith("output.") or "proj_out" in lower.split(".")[:1]:
        return "head"
    if "embed" in lower or "embd" in lower or "wte" in lower or "shared.weight" in lower:
        return "embedding"
    return "linear" if dimensions == 2 else "conv"


def broken(path: Path | str, why: str) -> UserInputError:
    """The error for a file that cannot be what it claims to be."""
    return UserInputError(
        f"{path} is not a usable model file: {why}.", "Fetch it again; it may be cut off."
    )
