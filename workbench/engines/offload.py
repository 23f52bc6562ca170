"""Checkpoints of transformers whose layers stay in their files until they compute."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def open_checkpoint(cls: Any, path: Path, dtype: str | None, device: str, **settings: Any) -> Any:
    """A transformers model whose layers read their weights from its files; ``dtype=None``: as
    they are stored."""
    model = cls.from_pretrained(
        path,
        dtype=dtype or "auto",
        device_map={"": "disk"},
        use_safetensors=True,
        local_files_only=True,
        **settings,
    )
    if device != "cpu":
        _compute_on(model, device)
    return model


def _compute_on(model: Any, device: str) -> None:
    """Make the layers of a model that reads from files compute on ``device``: transformers has
    no setting for it and takes the CPU."""
    for module in model.modules():
        hook = getattr(module, "_hf_hook", None)
        for each in getattr(hook, "hooks", (hook,) if hook else ()):
            each.execution_device = device
        for name, buffer in module.named_buffers(recurse=False):
            module._buffers[name] = buffer.to(device)
