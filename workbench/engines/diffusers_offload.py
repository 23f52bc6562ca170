"""Where a pipeline's weights are: on the device, waiting in host memory, in fp8, or in files.

With disk offload nothing is loaded at all: every layer reads its own weights from the model's
files just before it computes, and drops them after. The files are not copied, so loading costs
neither time nor memory, and the peak is one layer.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from workbench.engines.offload import open_checkpoint
from workbench.memory.request import LoadOptions


def open_parts(
    path: Path, index: dict[str, Any], variant: str | None, dtype: str, device: str
) -> dict[str, Any]:
    """Every part of the pipeline in ``path`` that has weights, each left in its files.

    ``index`` is ``model_index.json``. Raises what the libraries raise for a broken folder.
    """
    import diffusers

    parts = {}
    for name, entry in index.items():
        if not isinstance(entry, list) or not any((path / name).glob("*.safetensors")):
            continue
        cls = getattr(importlib.import_module(entry[0]), entry[1])
        if issubclass(cls, diffusers.ModelMixin):
            parts[name] = _open_diffusers(cls, path / name, variant, dtype, device)
        else:
            parts[name] = open_checkpoint(cls, path / name, dtype, device, variant=variant)
    return parts


def place(pipe: Any, options: LoadOptions) -> Any:
    """Move ``pipe`` to the device, or let its parts wait where ``options.offload`` says.

    A pipeline that is offloaded must never have been on the device: its copy there would stay.
    """
    import torch

    device = options.device
    if options.offload == "none":
        pipe = pipe.to(device)
    elif options.offload == "model":
        pipe.enable_model_cpu_offload(device=device)
    elif options.offload == "sequential":
        pipe.enable_sequential_cpu_offload(device=device)
    elif options.offload in ("group", "group_stream"):
        with_stream = options.offload == "group_stream"
        pipe.enable_group_offload(
            onload_device=torch.device(device),
            offload_device=torch.device("cpu"),
            offload_type="block_level",
            num_blocks_per_group=1,  # the only number that works with a stream
            use_stream=with_stream,
            # all of host memory pinned at once would need a second copy of the weights
            low_cpu_mem_usage=with_stream,
        )
    return pipe


def store_in_fp8(pipe: Any, dtype: str) -> None:
    """Keep the weights of the denoiser and the text encoders in 8 bit floats (e4m3) and compute
    in ``dtype``. Norms and embeddings keep their dtype: a rounded embedding changes the prompt."""
    import torch
    from diffusers.hooks import apply_layerwise_casting

    compute = getattr(torch, dtype)
    for name, part in pipe.components.items():
        if name in ("unet", "transformer"):
            part.enable_layerwise_casting(torch.float8_e4m3fn, compute)
        elif name.startswith("text_encoder") and part is not None:
            # T5 looks at the dtype of such a layer's weights before the layer is called
            kept = getattr(part, "_keep_in_fp32_modules", None) or ()
            apply_layerwise_casting(
                part,
                torch.float8_e4m3fn,
                compute,
                skip_modules_pattern=("norm", "embed", "shared", *kept),
            )


# -- inside ----------------------------------------------------------------------------------


def _open_diffusers(cls: Any, folder: Path, variant: str | None, dtype: str, device: str) -> Any:
    """A model of diffusers whose layers read their weights from the files of ``folder``.

    ``from_pretrained`` with a device map would write a copy of every weight first.
    """
    import torch
    from accelerate import dispatch_model, init_empty_weights
    from accelerate.utils import set_module_tensor_to_device
    from safetensors import safe_open

    with _default_dtype(getattr(torch, dtype)), init_empty_weights():
        model = cls.from_config(cls.load_config(folder)).eval()
    stored: dict[str, dict[str, str]] = {}
    for file in sorted(folder.glob(f"*.{variant}*.safetensors" if variant else "*.safetensors")):
        with safe_open(file, framework="pt") as opened:
            for name in sorted(opened.keys()):
                stored[name] = {"safetensors_file": str(file), "weight_name": name}
    # the library's own table of names that old checkpoints use; it renames the keys of any dict
    model._fix_state_dict_keys_on_load(stored)
    missing = set(model.state_dict()) - set(stored)
    if missing:
        raise ValueError(f"{folder.name} lacks the weight {min(missing)}")
    in_float32 = {
        name
        for name in stored
        if not set(name.split(".")).isdisjoint(cls._keep_in_fp32_modules or ())
    }
    for name, parameter in model.named_parameters():
        if name in in_float32:
            parameter.data = parameter.data.float()
    dispatch_model(model, device_map={"": "disk"}, main_device=device, offload_index=stored)
    # tables are small and stay; those in the files are cast like weights
    for name in [name for name, _ in model.named_buffers() if name in stored]:
        with safe_open(stored[name]["safetensors_file"], framework="pt") as opened:
            value = opened.get_tensor(stored[name]["weight_name"])
        cast = torch.float32 if name in in_float32 else getattr(torch, dtype)
        set_module_tensor_to_device(model, name, device, value=value, dtype=cast)
    return model


@contextmanager
def _default_dtype(dtype: Any) -> Iterator[None]:
    """Tables that a model computes when it is made have the dtype that is default then."""
    import torch

    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
