"""Which ways of loading a model work: the compatibility matrix, as data and a few rules.

`SUPPORT` says what each engine can do on each kind of device, option by option, best first.
`why_not` adds what does not work together, each with its reason. Nothing else in the project
decides this: engines refuse what `why_not` refuses, with the same words, and the planner tries
what `candidates` gives.

A row is *proven* when its combinations were run on such a device, by tests/engines/test_offload.py
(torch) and tests/engines/test_cells.py (llama.cpp, CTranslate2). The others follow the
documentation of diffusers 0.42, transformers 5.23, accelerate 1.15, torchao 0.18, bitsandbytes
0.50, CTranslate2 4.8 and llama.cpp.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product

from workbench.errors import UnknownOption
from workbench.memory.request import CacheType, LoadOptions, Offload, Quantization

#: Who quantizes. 8 bit are torchao's and not bitsandbytes': modules of the latter cannot be moved
#: between devices, so no offload would work with them. All quantize a weight when it is read but
#: diffusers, which stores in fp8 what was loaded in the compute type: fp8 makes drawing smaller,
#: and the peak of loading is that of the compute type.
BACKENDS: dict[Quantization, str] = {
    "int8": "torchao",
    "int4": "torchao",
    "nf4": "bitsandbytes",
    "fp8": "diffusers",
}

#: Side of the largest tile that a picture is decoded in with ``vae_tiling``.
LARGEST_TILE_PIXELS = 512


@dataclass(frozen=True)
class Support:
    """What an engine takes on one kind of device. Order is quality, then speed: best first.

    An empty tuple of compute types or cache types: the engine has no such choice.
    """

    compute_types: tuple[str, ...] = ()
    quantizations: tuple[Quantization, ...] = ()
    offloads: tuple[Offload, ...] = ("none",)
    cache_types: tuple[CacheType, ...] = ()
    has_vae: bool = False
    has_context: bool = False
    is_proven: bool = False


_HALF = ("float32", "bfloat16", "float16")
_CACHES: tuple[CacheType, ...] = ("f32", "f16", "bf16", "q8_0", "q4_0")
#: The caches that a planner may choose: f32 costs twice f16 and bf16 has fewer digits than f16.
_PLANNED_CACHES: tuple[CacheType | None, ...] = ("f16", "q8_0", "q4_0")

#: (engine, kind of device) -> what works there.
SUPPORT: dict[tuple[str, str], Support] = {
    ("llama_cpp", "cpu"): Support(cache_types=_CACHES, has_context=True, is_proven=True),
    ("llama_cpp", "cuda"): Support(cache_types=_CACHES, has_context=True),
    ("llama_cpp", "mps"): Support(cache_types=_CACHES, has_context=True),
    ("ctranslate2", "cpu"): Support(
        # int16 needs a build with MKL, 16-bit floats a CPU that this list cannot know of
        compute_types=("float32", "int8_float32", "int8"),
        is_proven=True,
    ),
    ("ctranslate2", "cuda"): Support(
        compute_types=(
            "float32",
            "bfloat16",
            "float16",
            "int8_float32",
            "int8_bfloat16",
            "int8_float16",
            "int8",
        )
    ),
    ("transformers", "cpu"): Support(
        compute_types=_HALF,
        quantizations=("int8", "nf4"),
        offloads=("none", "disk"),
        has_context=True,
        is_proven=True,
    ),
    ("transformers", "cuda"): Support(
        compute_types=_HALF,
        quantizations=("int8", "int4", "nf4"),
        offloads=("none", "sequential", "disk"),
        has_context=True,
    ),
    ("transformers", "mps"): Support(compute_types=_HALF, has_context=True),
    ("diffusers", "cpu"): Support(
        compute_types=("float32", "bfloat16"),
        quantizations=("int8", "fp8"),
        offloads=("none", "disk"),
        has_vae=True,
        is_proven=True,
    ),
    ("diffusers", "cuda"): Support(
        compute_types=_HALF,
        quantizations=("int8", "fp8", "nf4"),
        offloads=("none", "model", "group_stream", "group", "sequential", "disk"),
        has_vae=True,
    ),
    ("diffusers", "mps"): Support(compute_types=_HALF, has_vae=True),
}

#: Engines that load nothing into this machine's memory, or only pretend to.
_WITHOUT_MEMORY = ("providers", "stub")


def device_kind(device: str) -> str:
    """``cuda:1`` -> ``cuda``."""
    return device.partition(":")[0]


def is_proven(engine: str, device: str) -> bool:
    """Whether the engine's combinations were run on such a device, not only read about."""
    support = SUPPORT.get((engine, device_kind(device)))
    return support is not None and support.is_proven


def why_not(engine: str, task: str, options: LoadOptions) -> str | None:
    """Why ``engine`` cannot load a model of ``task`` so, in one line; None when it can.

    Options that are None are the engine's own choice and always right.
    """
    if engine in _WITHOUT_MEMORY:
        return None
    kind = device_kind(options.device)
    support = SUPPORT.get((engine, kind))
    if support is None:
        return f"the engine {engine} has no device {options.device!r} here"
    for rule in _RULES:
        reason = rule(engine, task, options, support)
        if reason is not None:
            return reason
    return None


def check(model: str, engine: str, task: str, options: LoadOptions) -> None:
    """Raise UnknownOption with the reason of `why_not`, if there is one, in ``model``'s name."""
    reason = why_not(engine, task, options)
    if reason is not None:
        raise UnknownOption(
            f"{model} cannot be loaded so: {reason}.",
            "Leave that option out, or choose another value.",
        )


def candidates(engine: str, task: str, device: str) -> Iterator[LoadOptions]:
    """Every allowed way to load, the best quality first and the fastest of one quality first.

    Compute types come before quantizations, and what only costs time before what costs quality:
    each compute type is given with every offload before the next compute type.
    """
    support = SUPPORT.get((engine, device_kind(device)))
    if support is None:
        if engine in _WITHOUT_MEMORY:
            yield LoadOptions(device=device)
        return
    pictures = support.has_vae and task == "image"
    for quantization, compute_type, cache_type, offload, tiling, slicing in product(
        (None, *support.quantizations),
        support.compute_types or (None,),
        _PLANNED_CACHES if support.cache_types else (None,),
        support.offloads,
        (False, True) if pictures else (False,),
        (False, True) if pictures else (False,),
    ):
        options = LoadOptions(
            device=device,
            compute_type=compute_type,
            quantization=quantization,
            cache_type=cache_type,
            offload=offload,
            vae_tiling=tiling,
            vae_slicing=slicing,
        )
        if why_not(engine, task, options) is None:
            yield options


# -- rules: each looks at one thing and returns the reason why it cannot be, or None ----------

Rule = Callable[[str, str, LoadOptions, Support], str | None]


def _compute_type(engine: str, task: str, options: LoadOptions, support: Support) -> str | None:
    wanted = options.compute_type
    if wanted is None or wanted in support.compute_types:
        return None
    if not support.compute_types:
        return f"the quantization of a {engine} file is fixed, so it has no compute type {wanted!r}"
    if wanted == "float16" and device_kind(options.device) == "cpu" and engine == "diffusers":
        return "on a CPU float16 convolutions take about 5 times as long as those of float32"
    known = ", ".join(support.compute_types)
    return f"{engine} has no compute type {wanted!r} on {options.device} (it has {known})"


def _quantization(engine: str, task: str, options: LoadOptions, support: Support) -> str | None:
    wanted, kind = options.quantization, device_kind(options.device)
    if wanted is None:
        return None
    if engine == "diffusers" and BACKENDS[wanted] == "bitsandbytes" and kind == "cpu":
        return "diffusers lets bitsandbytes quantize on a GPU only"
    if wanted not in support.quantizations:
        known = ", ".join(support.quantizations) or "none"
        return f"{engine} cannot quantize to {wanted} on {options.device} (it has {known})"
    # the scales of int8 and nf4 have the dtype of the layer; fp8 keeps norms and embeddings there
    if wanted == "int4" and options.compute_type not in (None, "bfloat16"):
        return "torchao's int4 kernels compute in bfloat16 only"
    return None


def _offload(engine: str, task: str, options: LoadOptions, support: Support) -> str | None:
    wanted = options.offload
    if wanted in support.offloads:
        return None
    if device_kind(options.device) == "cpu" and wanted != "disk":
        return (
            f"{wanted} offload moves weights between host memory and an accelerator; on a CPU "
            "both are the same memory and only disk offload saves any"
        )
    known = ", ".join(support.offloads)
    return f"{engine} has no {wanted} offload on {options.device} (it has {known})"


def _quantized_offload(
    engine: str, task: str, options: LoadOptions, support: Support
) -> str | None:
    wanted, offload = options.quantization, options.offload
    if wanted is None or offload == "none":
        return None
    if offload == "disk":
        return (
            "disk offload reads the model's own files layer by layer, and those are not quantized"
        )
    if offload == "sequential":
        return f"sequential offload rebuilds each weight and loses what {BACKENDS[wanted]} added"
    if wanted == "nf4" and offload != "model":
        return "bitsandbytes packs 4-bit weights with a state that group offload does not move"
    return None


def _cache(engine: str, task: str, options: LoadOptions, support: Support) -> str | None:
    wanted = options.cache_type
    if wanted is None or wanted in support.cache_types:
        return None
    if not support.cache_types:
        return f"{engine} has no choice of cache type (llama_cpp has)"
    return f"{engine} has no cache type {wanted!r} (it has {', '.join(support.cache_types)})"


def _gpu_layers(engine: str, task: str, options: LoadOptions, support: Support) -> str | None:
    if options.gpu_layers is None:
        return None
    if engine != "llama_cpp":
        return f"{engine} does not count layers on a device: use an offload"
    if device_kind(options.device) == "cpu" and options.gpu_layers:
        return "layers can be kept on an accelerator only, and the device is the CPU"
    return None


def _vae(engine: str, task: str, options: LoadOptions, support: Support) -> str | None:
    if (options.vae_tiling or options.vae_slicing) and not (support.has_vae and task == "image"):
        return f"a {task} model of {engine} has no picture decoder to tile or slice"
    return None


def _context(engine: str, task: str, options: LoadOptions, support: Support) -> str | None:
    if options.context_tokens is not None and not support.has_context:
        return f"a {task} model of {engine} has no context length to choose"
    return None


_RULES: tuple[Rule, ...] = (
    _compute_type,
    _quantization,
    _offload,
    _quantized_offload,
    _cache,
    _gpu_layers,
    _vae,
    _context,
)
