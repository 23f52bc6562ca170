"""How much a torch component has live at once, found by running it on the meta device.

A tensor on the meta device has a shape and no memory, so the real architecture runs in a second
or two whatever its size. A dispatch mode sees every operation and follows the storages that are
born in it until they die; views share a storage, weights and arguments are not counted.

Two peaks are kept. The *live* one counts tensors. The other adds what a CPU's kernels hold for
the time of one operation: oneDNN convolves in a blocked layout, so its input, its weights and its
output exist a second time. Both are traced in 32 and in 16 bits, because some models compute parts
of a 16-bit pass in 32. Attention is taken as a fused kernel, which is what torch chooses on CPU
and GPU for the calls of these models: no tensor of tokens² is made.
"""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from workbench.engines.quiet import quiet
from workbench.memory.estimate.profiles import (
    digest,
    find_profiles,
    keep_profiles,
    shortened,
)
from workbench.memory.facts import ActivationProfile, Component, ModelFacts

if TYPE_CHECKING:
    import torch

_log = logging.getLogger(__name__)
_SOURCE = "traced on the meta device"
_FLOAT32_BYTES = 4


@dataclass(frozen=True)
class Trace:
    """Bytes after every operation of a pass: tensors alone, and with the copies that a CPU's
    kernels hold while the operation runs."""

    live_bytes: tuple[int, ...]
    cpu_bytes: tuple[int, ...]

    @property
    def peak_bytes(self) -> int:
        return max(self.live_bytes)


def trace(call: Callable[[], Any]) -> Trace:
    """Follows ``call()``, which runs torch operations on any device, meta included.

    Counts storages that are made inside the call; what it returns is counted until it ends.
    """
    import torch
    from torch.overrides import TorchFunctionMode
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_iter

    sizes: dict[int, int] = {}
    live: list[int] = []
    on_cpu: list[int] = []

    def forget(key: int) -> None:
        sizes.pop(key, None)

    def storages(values: Any) -> Iterator[torch.UntypedStorage]:
        for value in tree_iter(values):
            if isinstance(value, torch.Tensor):
                yield value.untyped_storage()

    class Watch(TorchDispatchMode):  # type: ignore[misc]
        def __torch_dispatch__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            given = {storage._cdata for storage in storages((args, kwargs))}
            result = func(*args, **(kwargs or {}))
            for storage in storages(result):
                key = storage._cdata
                if key not in sizes and key not in given:
                    sizes[key] = storage.nbytes()
                    weakref.finalize(storage, forget, key)
            live.append(sum(sizes.values()))
            on_cpu.append(live[-1] + _kernel_copies(str(func), args, result))
            return result

    class FusedAttention(TorchFunctionMode):  # type: ignore[misc]
        def __torch_function__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            if func is torch.nn.functional.scaled_dot_product_attention:
                return _fused_attention(*args, **(kwargs or {}))
            return func(*args, **(kwargs or {}))

    with torch.no_grad(), FusedAttention(), Watch():
        result = call()
        del result
    return Trace(tuple(live), tuple(on_cpu))


def with_profiles(facts: ModelFacts) -> ModelFacts:
    """``facts`` with the activations of its components: shipped, then cached, then traced now.

    Tracing takes seconds, once for an architecture; everything else is one read of a small file.
    A component that cannot be traced keeps no activations, and estimates say so.
    """
    return facts.model_copy(
        update={"components": tuple(_with_profile(part) for part in facts.components)}
    )


def trace_component(architecture: str, config: dict[str, Any]) -> dict[str, ActivationProfile]:
    """Profiles of one component; empty where its architecture is not one of those known here, or
    cannot run on the meta device.

    A key is the method and the bits that are computed in: ``decode 32`` counts tensors,
    ``decode 32 cpu`` what a CPU's kernels hold besides.
    """
    import torch

    passes = next(
        (_PASSES[name] for name in _PASSES if architecture.lower().startswith(name)), None
    )
    if passes is None:
        return {}
    found: dict[str, ActivationProfile] = {}
    with quiet("transformers", "diffusers"):
        try:
            with torch.device("meta"):
                model, runs = passes(architecture, config)
            found = _largest_parts(model)
            for dtype in (torch.float32, torch.bfloat16):
                # the libraries' own `to` warns about what a model without values cannot lose
                model = torch.nn.Module.to(model.eval(), dtype)
                for run in runs:
                    found |= _profile(run, dtype)
        # any model's code runs here: whatever it raises, the answer is "not known"
        except Exception as error:
            _log.info("%s cannot be traced: %s", architecture, error)
            return {}
    return found


# -- inside ----------------------------------------------------------------------------------


def _with_profile(part: Component) -> Component:
    if part.activations:
        return part
    key = digest(part.architecture, part.config)
    if key is None:
        return part
    found = find_profiles(key)
    if found is None:
        found = trace_component(part.architecture, shortened(part.architecture, part.config))
        keep_profiles(key, part.architecture, found)
    return part.model_copy(update={"activations": found})


def _fused_attention(
    query: Any, key: Any, value: Any, attn_mask: Any = None, *_: Any, **__: Any
) -> Any:
    """What the fused CPU kernel allocates: the output as (batch, tokens, heads, width) and the
    log-sum of every row in float32; a mask of truth values is made into one of numbers."""
    import torch

    mask = None
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        mask = torch.empty_like(attn_mask, dtype=query.dtype)
    batch, heads, tokens, _width = query.shape
    output = query.new_empty((batch, tokens, heads, value.shape[-1]))
    rows = query.new_empty((batch, tokens, heads), dtype=torch.float32)
    del rows, mask
    return output.transpose(1, 2)


def _kernel_copies(name: str, args: Any, result: Any) -> int:
    """Bytes that a CPU kernel holds beside the tensors it is given and returns."""
    if not name.startswith("aten.convolution"):
        return 0
    given, weights, made = (int(t.numel() * t.element_size()) for t in (args[0], args[1], result))
    if result.element_size() < _FLOAT32_BYTES and args[1].shape[2:].numel() == 1:
        # 1 x 1 in 16 bits: a matrix product that is summed in float32
        return given + weights + int(result.numel()) * _FLOAT32_BYTES
    # The blocked input and weights are there first; the result's own pages are touched only
    # when the blocked result is copied into them, after the blocked input was freed.
    return weights + max(given, made)


@dataclass(frozen=True)
class _Pass:
    """One method of a model and how to call it: ``make(side or length, items, dtype)``."""

    method: str
    unit: str
    #: units that an item of the given side or length has
    units: Callable[[int], int]
    sizes: tuple[int, int, int]
    make: Callable[[int, int, Any], Callable[[], Any]]


def _largest_parts(model: Any) -> dict[str, ActivationProfile]:
    """The weights of the largest layer and of the largest block of a list of blocks: what
    offloading by layer and by block moves at once."""
    import torch

    def count(module: Any, recurse: bool) -> int:
        return sum(p.numel() for p in module.parameters(recurse=recurse))

    lists = [m for m in model.modules() if isinstance(m, torch.nn.ModuleList)]
    outer = [m for m in lists if not any(m is not o and m in set(o.modules()) for o in lists)]
    # a list has None where a block goes without, such as attention in a small autoencoder
    blocks = [count(block, True) for blocks in outer for block in blocks if block is not None]
    leaves = [count(module, False) for module in model.modules()]
    return {
        name: ActivationProfile(
            moments=((float(max(sizes)), 0.0, 0.0, 0.0),), unit="weight", source="shapes"
        )
        for name, sizes in (("block", blocks or [count(model, True)]), ("leaf", leaves))
    }


def _profile(run: _Pass, dtype: Any) -> dict[str, ActivationProfile]:
    """Every operation at three sizes and for two items, which gives its bytes at any size; kept
    are the operations that are the largest anywhere. Source: a pass is one list of operations."""
    import numpy as np
    import torch

    def bytes_of(size: int, items: int) -> Trace:
        with torch.device("meta"):
            return trace(run.make(size, items, dtype))

    traces = [bytes_of(size, 1) for size in run.sizes] + [bytes_of(run.sizes[0], 2)]
    bits = dtype.itemsize * 8
    found = {}
    n0, n1, n2 = (float(run.units(size)) for size in run.sizes)
    for key, rows in (
        (f"{run.method} {bits}", [t.live_bytes for t in traces]),
        (f"{run.method} {bits} cpu", [t.cpu_bytes for t in traces]),
    ):
        series: list[tuple[int, ...]] = list(rows)
        if len({len(row) for row in rows[:3]}) != 1:
            # another list of operations at another size (a table that is resized): peaks alone
            series = [(max(row),) for row in rows]
        f0, f1, f2 = np.array(series[:3], dtype=np.float64) / dtype.itemsize
        square = ((f2 - f1) / (n2 - n1) - (f1 - f0) / (n1 - n0)) / (n2 - n0)
        # a stride that does not divide a side leaves a trace of it; that is no square
        square = np.where(square * n2 > 0.01 * np.abs(f2 - f0) / (n2 - n0), square, 0.0)
        linear = (f2 - f0) / (n2 - n0) - square * (n0 + n2)
        item = np.zeros_like(f0)
        # some models copy a tensor for several items that is a view for one
        if len(series[3]) == len(f0):
            pair = np.array(series[3], dtype=np.float64) / dtype.itemsize
            item = pair - f0 - linear * n0 - square * n0**2
        moments = np.stack([f0 - item - linear * n0 - square * n0**2, item, linear, square])
        largest = set()
        for items in (1.0, 2.0, 4.0, 16.0, 64.0):
            for units in np.geomspace(n0 / 16, n2 * 16, 40) * items:
                largest.add(int((np.array([1, items, units, units**2 / items]) @ moments).argmax()))
        rounded = [[float(f"{c:.9g}") for c in moments[:, index]] for index in largest]
        kept = sorted({(c0, c1, c2, c3) for c0, c1, c2, c3 in rounded})
        found[key] = ActivationProfile(moments=tuple(kept), unit=run.unit, source=_SOURCE)
    return found


_Passes = tuple[Any, list[_Pass]]
_CLIP_TOKENS = 77
#: ``max_sequence_length`` that each pipeline has when it is not told another.
_SD3_T5_TOKENS, _FLUX_T5_TOKENS, _PIXART_T5_TOKENS = 256, 512, 300


def _area(side: int) -> int:
    return side * side


def _denoise(make: Callable[[int, int, Any], Callable[[], Any]]) -> _Pass:
    return _Pass("denoise", "latent pixel", _area, (32, 64, 128), make)


def _text_encoder(architecture: str, config: dict[str, Any]) -> _Passes:
    """One sequence at a time, as the pipelines encode; every layer's output is kept, as Stable
    Diffusion asks of its CLIP."""
    import torch
    import transformers

    is_t5 = architecture.lower().startswith("t5")
    cls = transformers.T5EncoderModel if is_t5 else transformers.CLIPTextModel
    model = cls(cls.config_class(**config))

    def make(tokens: int, items: int, dtype: Any) -> Callable[[], Any]:
        ids = torch.ones((items, tokens), dtype=torch.long)
        return lambda: model(ids, output_hidden_states=not is_t5)

    # a CLIP's positions end at 77
    sizes = (128, 256, 512) if is_t5 else (19, 38, 77)
    return model, [_Pass("encode", "token", lambda tokens: tokens, sizes, make)]


def _unet(architecture: str, config: dict[str, Any]) -> _Passes:
    import diffusers
    import torch

    model = diffusers.UNet2DConditionModel.from_config(config)
    shape = model.config

    def make(side: int, items: int, dtype: Any) -> Callable[[], Any]:
        sample = torch.empty(items, shape.in_channels, side, side, dtype=dtype)
        text = torch.empty(items, _CLIP_TOKENS, shape.cross_attention_dim, dtype=dtype)
        extra = None
        if shape.addition_embed_type == "text_time":
            width = shape.projection_class_embeddings_input_dim - 6 * shape.addition_time_embed_dim
            extra = {
                "text_embeds": torch.empty(items, width, dtype=dtype),
                "time_ids": torch.empty(items, 6, dtype=dtype),
            }
        step = torch.ones(())
        return lambda: model(
            sample, step, encoder_hidden_states=text, added_cond_kwargs=extra, return_dict=False
        )

    return model, [_denoise(make)]


def _sd3(architecture: str, config: dict[str, Any]) -> _Passes:
    import diffusers
    import torch

    model = diffusers.SD3Transformer2DModel.from_config(config)
    shape = model.config

    def make(side: int, items: int, dtype: Any) -> Callable[[], Any]:
        sample = torch.empty(items, shape.in_channels, side, side, dtype=dtype)
        tokens = _CLIP_TOKENS + _SD3_T5_TOKENS
        text = torch.empty(items, tokens, shape.joint_attention_dim, dtype=dtype)
        pooled = torch.empty(items, shape.pooled_projection_dim, dtype=dtype)
        return lambda: model(sample, text, pooled, torch.ones(items), return_dict=False)

    return model, [_denoise(make)]


def _flux(architecture: str, config: dict[str, Any]) -> _Passes:
    import diffusers
    import torch

    model = diffusers.FluxTransformer2DModel.from_config(config)
    shape = model.config

    def make(side: int, items: int, dtype: Any) -> Callable[[], Any]:
        # the pipeline packs 2 x 2 latent pixels into one token
        tokens = side * side // 4
        sample = torch.empty(items, tokens, shape.in_channels, dtype=dtype)
        text = torch.empty(items, _FLUX_T5_TOKENS, shape.joint_attention_dim, dtype=dtype)
        pooled = torch.empty(items, shape.pooled_projection_dim, dtype=dtype)
        step = torch.ones(items, dtype=dtype)
        places = [torch.empty(count, 3, dtype=dtype) for count in (tokens, _FLUX_T5_TOKENS)]
        guidance = torch.ones(items) if shape.guidance_embeds else None
        return lambda: model(sample, text, pooled, step, *places, guidance, return_dict=False)

    return model, [_denoise(make)]


def _pixart(architecture: str, config: dict[str, Any]) -> _Passes:
    import diffusers
    import torch

    model = diffusers.PixArtTransformer2DModel.from_config(config)
    shape = model.config

    def make(side: int, items: int, dtype: Any) -> Callable[[], Any]:
        sample = torch.empty(items, shape.in_channels, side, side, dtype=dtype)
        text = torch.empty(items, _PIXART_T5_TOKENS, shape.caption_channels, dtype=dtype)
        mask = torch.ones(items, _PIXART_T5_TOKENS)
        # read by the models of 1024 pixels of the first generation alone
        extra = {"resolution": torch.empty(items, 2), "aspect_ratio": torch.empty(items, 1)}
        return lambda: model(
            sample,
            text,
            torch.ones(items),
            added_cond_kwargs=extra,
            encoder_attention_mask=mask,
            return_dict=False,
        )

    return model, [_denoise(make)]


def _autoencoder(architecture: str, config: dict[str, Any]) -> _Passes:
    import diffusers
    import torch

    model = diffusers.AutoencoderKL.from_config(config)
    shape = model.config
    scale = 2 ** (len(shape.block_out_channels) - 1)

    def decode(side: int, items: int, dtype: Any) -> Callable[[], Any]:
        latents = torch.empty(
            items, shape.latent_channels, side // scale, side // scale, dtype=dtype
        )
        return lambda: model.decode(latents, return_dict=False)

    def encode(side: int, items: int, dtype: Any) -> Callable[[], Any]:
        pictures = torch.empty(items, shape.in_channels, side, side, dtype=dtype)
        return lambda: model.encode(pictures, return_dict=False)

    sizes = (128, 256, 512)
    return model, [
        _Pass("decode", "pixel", _area, sizes, decode),
        _Pass("encode", "pixel", _area, sizes, encode),
    ]


#: Beginning of an architecture's name -> its passes.
_PASSES: dict[str, Callable[[str, dict[str, Any]], _Passes]] = {
    "clip": _text_encoder,
    "t5": _text_encoder,
    "unet2dconditionmodel": _unet,
    "sd3transformer2dmodel": _sd3,
    "fluxtransformer2dmodel": _flux,
    "pixarttransformer2dmodel": _pixart,
    "autoencoderkl": _autoencoder,
}
