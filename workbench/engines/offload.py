"""Checkpoints of transformers whose layers stay in their files until they compute."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def open_checkpoint(cls: Any, path: Path, dtype: str | None, device: str, **settings: Any) -> Any:
    """A transformers model whose layers read their weights from its files; ``dtype=None``: as
    they are stored."""
    model = cls.from_pretrained(
        path,
        dtype="auto",
        device_map={"": "disk"},
        use_safetensors=True,
        local_files_only=True,
        **settings,
    )
    if dtype is not None:
        _cast(model, dtype)
    if device != "cpu":
        _compute_on(model, device)
    return model


def _cast(model: Any, dtype: str) -> None:
    """Let each weight be cast when it is read: `from_pretrained` would read and cast all of them
    only to drop them again, and hold the whole file meanwhile."""
    import torch

    in_float32 = getattr(model, "_keep_in_fp32_modules", None) if dtype == "float16" else ()
    for name, parameter in model.named_parameters():
        if parameter.is_floating_point():
            kept = not set(name.split(".")).isdisjoint(in_float32 or ())
            parameter.data = parameter.data.to(torch.float32 if kept else getattr(torch, dtype))


def _compute_on(model: Any, device: str) -> None:
    """Make the layers of a model that reads from files compute on ``device``: transformers has
    no setting for it and takes the CPU."""
    for module in model.modules():
        hook = getattr(module, "_hf_hook", None)
        for each in getattr(hook, "hooks", (hook,) if hook else ()):
            each.execution_device = device
        for name, buffer in module.named_buffers(recurse=False):
            module._buffers[name] = buffer.to(device)
