"""Reads the parts of a pipeline one after the other, the largest first.

The file of a part is mapped while its weights are cast, so both are in memory then, and the file
goes when the part is complete. Read last, the largest part would have the others beside both.
diffusers reads the parts in the order of a set, which is another one in every process: two loads
of Stable Diffusion 3 were 270 MiB apart.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any


def read_parts(
    path: Path, index: dict[str, Any], variant: str | None, dtype: str
) -> dict[str, Any]:
    """Every part of the pipeline in ``path`` that has weights, in ``dtype``, in host memory.

    ``index`` is ``model_index.json``; ``variant`` is taken where a part has such files. Raises
    what the libraries raise for a broken folder.
    """
    import torch

    sizes = {
        name: sum(file.stat().st_size for file in (path / name).glob("*.safetensors"))
        for name, entry in index.items()
        if isinstance(entry, list) and entry[0] is not None
    }
    parts = {}
    for name in sorted((n for n, size in sizes.items() if size), key=sizes.__getitem__)[::-1]:
        library, kind = index[name]
        has_variant = variant and any((path / name).glob(f"*.{variant}*.safetensors"))
        parts[name] = getattr(importlib.import_module(library), kind).from_pretrained(
            path / name,
            local_files_only=True,
            use_safetensors=True,
            dtype=getattr(torch, dtype),
            **({"variant": variant} if has_variant else {}),
        )
    return parts
