"""Pipelines in diffusers, phase by phase: load, encode the prompt, denoise, decode the pictures.

Activations come from profiles of the real architecture (`workbench.engines.trace`), so nothing
here is fitted to a model: what is measured are constants of the libraries, each with its reason.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from workbench.memory.estimate.weights import (
    DTYPE_BYTES,
    cast_bytes,
    is_cast,
    quantized_bytes,
)
from workbench.memory.facts import Component, ModelFacts
from workbench.memory.machine import MIB, Machine
from workbench.memory.matrix import LARGEST_TILE_PIXELS
from workbench.memory.pictures import latent_scale, picture_size
from workbench.memory.request import LoadOptions, RequestSize
from workbench.memory.terms import Estimate, Phase, Term, about, exact

#: Looking a pipeline up imports all pipelines of diffusers and their configurations: code and
#: tables, the same for every model. Measured after loading, weights taken off: 56 to 59 MiB.
_PIPELINES_BYTES = 58 * MIB
#: What the first pass of a phase leaves: code that oneDNN compiles, pages of the libraries that
#: are touched now, and MKL's packing buffers, which are kept for the next product: 10 MiB each
#: for three shapes of large products, less where all operands are smaller.
_ENCODE_KEPT_BYTES, _DENOISE_KEPT_BYTES, _PACKING_BYTES = 16 * MIB, 20 * MIB, 30 * MIB
#: The context of CUDA and its libraries where it was not measured on the machine.
_CUDA_CONTEXT_BYTES = 500 * MIB
#: Tiles of an autoencoder overlap by a quarter. Source: AutoencoderKL.tile_overlap_factor.
_TILE_STEP = 0.75
#: Tokens of the prompt as the pipelines pad it, and the encoder that gives their width.
_PROMPT_TOKENS = {
    "UNet2DConditionModel": (77, "cross_attention_dim"),
    "SD3Transformer2DModel": (333, "joint_attention_dim"),
    "FluxTransformer2DModel": (512, "joint_attention_dim"),
    "PixArtTransformer2DModel": (300, "caption_channels"),
}
_T5_TOKENS = {
    "SD3Transformer2DModel": 256,
    "FluxTransformer2DModel": 512,
    "PixArtTransformer2DModel": 300,
}
_CLIP_TOKENS = 77
_DENOISERS = ("unet", "transformer")


@dataclass(frozen=True)
class _Run:
    """One request to one pipeline: what every part below needs to know."""

    facts: ModelFacts
    options: LoadOptions
    dtype: str
    width: int
    height: int
    batch: int
    guided: bool

    @property
    def is_cpu(self) -> bool:
        return self.options.device == "cpu"

    @property
    def value_bytes(self) -> int:
        return DTYPE_BYTES.get(self.dtype, 4)

    def part(self, *names: str) -> Component | None:
        """The first component with one of these names."""
        return next((part for part in self.facts.components if part.name in names), None)

    @property
    def denoiser(self) -> Component | None:
        return self.part(*_DENOISERS)

    @property
    def text_encoders(self) -> list[Component]:
        return [part for part in self.facts.components if part.name.startswith("text_encoder")]


def estimate(
    facts: ModelFacts, options: LoadOptions, size: RequestSize, machine: Machine
) -> Estimate:
    """The peak of one request of ``size``: ``width`` x ``height``, ``batch`` pictures."""
    # the engine computes in float32 where neither the request nor the entry says otherwise
    dtype = str(
        options.compute_type or facts.options.get("compute_type") or facts.dtype or "float32"
    )
    width, height = picture_size(facts, size)
    run = _Run(facts, options, dtype, width, height, max(1, size.batch), size.guided)
    weights = {part.name: _weights_bytes(run, part) for part in facts.components}
    stays, moved, host = _placed(run, weights)
    kept = _context(run, machine)
    phases = [
        Phase(name="load", terms=tuple(_load_terms(run))),
        Phase(name="encode_prompt", terms=tuple(_encode_terms(run, moved))),
        Phase(name="denoise", terms=tuple(_denoise_terms(run, moved))),
        Phase(name="decode_image", terms=tuple(_decode_terms(run, moved))),
    ]
    denoiser = run.denoiser
    architecture = denoiser.architecture if denoiser else facts.components[0].architecture
    name = "/".join(["diffusers", architecture, dtype, *_variants(options)])
    return Estimate(
        family=name,
        resident=(*kept, *stays),
        phases=tuple(phases),
        is_known=all(_profile(part, method, run) is not None for part, method in _passes(run)),
        host=host,
    )


# -- weights and where they are -----------------------------------------------------------------


def _weights_bytes(run: _Run, part: Component) -> int:
    if part.name in _DENOISERS or part.name.startswith("text_encoder"):
        return quantized_bytes(part.weights, run.dtype, run.options.quantization)
    return cast_bytes(part.weights, run.dtype)


def _placed(
    run: _Run, weights: dict[str, int]
) -> tuple[list[Term], dict[str, int], tuple[Term, ...]]:
    """(terms of what stays on the device, bytes that each part brings when it runs, host terms).

    ``model``: a part is on the device while it runs. ``group``: one block of it at a time, and
    with a stream the next one too. ``sequential`` and ``disk``: one layer.
    """
    offload = run.options.offload
    host: list[Term] = []
    if not run.is_cpu:
        host.append(about("context", run_host_bytes(run), 0.1, "libraries in host memory"))
    if offload == "none":
        said = f"{run.dtype}, safetensors headers"
        stays = [exact("weights", size, f"{name} in {said}") for name, size in weights.items()]
        return stays, {}, tuple(host)
    moved = {}
    for part in run.facts.components:
        size = weights[part.name]
        if offload == "model":
            moved[part.name] = size
        elif offload in ("group", "group_stream"):
            count = 2 if offload == "group_stream" else 1
            moved[part.name] = min(size, count * _largest(part, "block", run, size))
        else:
            moved[part.name] = min(size, _largest(part, "leaf", run, size))
    if offload != "disk":
        where = "pinned" if offload == "group_stream" else "waiting"
        host.append(about("weights", sum(weights.values()), 0.02, f"{where} in host memory"))
    return [], moved, tuple(host)


def run_host_bytes(run: _Run) -> int:
    """Host memory of the libraries alone, before weights."""
    return 480 * MIB + _PIPELINES_BYTES


def _largest(part: Component, what: str, run: _Run, size: int) -> int:
    """Bytes of the largest block or layer of ``part``; all of it where that is not known."""
    profile = part.activations.get(what)
    return round(profile.elements(0) * run.value_bytes) if profile else size


def _moved_term(part: Component, moved: dict[str, int]) -> list[Term]:
    if part.name not in moved:
        return []
    return [about("weights", moved[part.name], 0.1, f"{part.name} while it runs")]


def _context(run: _Run, machine: Machine) -> list[Term]:
    if not run.is_cpu:
        size = machine.context_bytes.get("diffusers@cuda", _CUDA_CONTEXT_BYTES)
        return [about("context", size, 0.2, machine.name)]
    return [
        about("context", machine.context_bytes["diffusers"], 0.03, machine.name),
        about("workspace", _PIPELINES_BYTES, 0.1, "pipelines imported while loading; measured"),
    ]


# -- phases ---------------------------------------------------------------------------------------


def _load_terms(run: _Run) -> list[Term]:
    """A part's stored weights beside its cast ones while it is read. Weights in the dtype of the
    file stay mapped: no second copy.

    The engine reads the largest part first (`workbench.engines.diffusers_parts`). Parts that are
    quantized are read in any order, so the bound there is for the worst: the largest one last.
    On another device nothing of this counts: casting is done in host memory.
    """
    if run.options.offload == "disk" and run.is_cpu:
        return [about("workspace", 8 * MIB, 1.0, "tables of the files")]
    is_quantized = run.options.quantization not in (None, "fp8")
    if not (run.is_cpu or is_quantized):
        return []
    parts = sorted(run.facts.components, key=lambda part: -part.weights.weights_bytes)
    size = _load_excess(run, parts)
    upper = _load_excess(run, parts[::-1]) if is_quantized else size
    said = "stored weights that are mapped beside the cast ones"
    return [Term(name="workspace", size_bytes=size, upper_bytes=upper, provenance=said)]


def _load_excess(run: _Run, parts: Sequence[Component]) -> int:
    """How much more than the finished pipeline there is while its parts are read in this order."""
    done = peak = 0
    for part in parts:
        beside = 0
        if is_cast(part.weights, run.dtype) or run.options.quantization:
            beside = part.weights.weights_bytes + _position_table_bytes(part)
        # fp8 is made when all parts are there
        is_late = run.options.quantization == "fp8"
        done += cast_bytes(part.weights, run.dtype) if is_late else _weights_bytes(run, part)
        peak = max(peak, done + beside)
    return peak - sum(_weights_bytes(run, part) for part in parts)


def _position_table_bytes(part: Component) -> int:
    """Stable Diffusion 3 computes its table of positions in float32 before it is read from the
    file. Source: diffusers.models.embeddings.PatchEmbed."""
    if part.architecture != "SD3Transformer2DModel":
        return 0
    config = part.config
    width = int(config.get("num_attention_heads") or 18) * int(
        config.get("attention_head_dim") or 64
    )
    return int(config.get("pos_embed_max_size") or 0) ** 2 * width * 4


def _encode_terms(run: _Run, moved: dict[str, int]) -> list[Term]:
    best: list[Term] = []
    for part in run.text_encoders:
        tokens = _CLIP_TOKENS
        if part.architecture.startswith("t5"):
            denoiser = run.denoiser
            tokens = _T5_TOKENS.get(denoiser.architecture if denoiser else "", 512)
        terms = [_activations(run, part, "encode", tokens, 1), *_moved_term(part, moved)]
        best = max(best, terms, key=_total)
    return [*best, *_kept(run, _ENCODE_KEPT_BYTES, 0)]


def _denoise_terms(run: _Run, moved: dict[str, int]) -> list[Term]:
    """Latents and prompts of all pictures, and one pass of the denoiser; guidance computes each
    picture a second time without the prompt, but not in Flux, which has it as a number."""
    denoiser = run.denoiser
    if denoiser is None:
        return []
    items = run.batch * (2 if _is_doubled(run, denoiser) else 1)
    scale = latent_scale(run.facts)
    pixels = (run.width / scale) * (run.height / scale)
    live = _activations(run, denoiser, "denoise", pixels * items, items)
    return [
        live,
        _latents(run, denoiser, pixels, items),
        *_moved_term(denoiser, moved),
        *_kept(run, _DENOISE_KEPT_BYTES, live.size_bytes),
    ]


def _decode_terms(run: _Run, moved: dict[str, int]) -> list[Term]:
    """The autoencoder over all pictures at once, or over one picture (slicing) or one tile; then
    the canvas, which tiles and slices are copied into."""
    vae = run.part("vae", "vqvae", "movq")
    if vae is None:
        return []
    channels = 3 * run.value_bytes
    items = 1 if run.options.vae_slicing else run.batch
    wide, high, tiles = run.width, run.height, 0.0
    side = _tile_pixels(vae)
    if run.options.vae_tiling and max(wide, high) > side:
        tiles = _tiles(wide, side) * _tiles(high, side)
        wide, high = min(wide, side), min(high, side)
    area = run.width * run.height * run.batch
    terms = [_activations(run, vae, "decode", wide * high * items, items)]
    canvas = 0.0
    if tiles:
        # all tiles wait for their neighbours to be blended, then rows, then the picture
        canvas += (tiles * wide * high * items + area) * channels
    if items < run.batch:
        canvas += 2 * area * channels
    terms.append(about("pictures", canvas, 0.2, "decoded tiles and pictures"))
    if _decodes_in_float32(run):
        terms.append(about("weights", cast_bytes(vae.weights, "float32"), 0.0, "vae in float32"))
    # in numbers of 32 bits for rounding, which happens after the autoencoder's own peak
    finished = area * (2 * channels + 3 * 3 * 4)
    if finished > _total(terms):
        terms = [about("pictures", finished, 0.2, "finished pictures as float32")]
    kept = _kept(run, _DENOISE_KEPT_BYTES, _total(terms))
    return [*terms, *_moved_term(vae, moved), *kept]


# -- terms ----------------------------------------------------------------------------------------


def _activations(run: _Run, part: Component, method: str, units: float, items: int) -> Term:
    profile = _profile(part, method, run)
    if profile is None:
        # nothing is known of it: as much as its weights, and up to three times that
        return about("activations", part.weights.weights_bytes, 2.0, f"{part.name}: not known")
    bits = 32 if method == "decode" and _decodes_in_float32(run) else 8 * run.value_bytes
    elements = profile.elements(units, items)
    said = f"{part.name}.{method}, {profile.source}"
    return about("activations", elements * bits / 8, 0.06, said)


def _profile(part: Component, method: str, run: _Run) -> Any:
    """What a CPU's kernels hold counts there; a GPU's library takes what is free, so not."""
    bits = (
        16 if run.value_bytes < 4 and not (method == "decode" and _decodes_in_float32(run)) else 32
    )
    return part.activations.get(f"{method} {bits}{' cpu' if run.is_cpu else ''}")


def _passes(run: _Run) -> list[tuple[Component, str]]:
    found = [(part, "encode") for part in run.text_encoders]
    found += [(part, "denoise") for part in run.facts.components if part.name in _DENOISERS]
    found += [(part, "decode") for part in run.facts.components if part.name == "vae"]
    return found


def _latents(run: _Run, denoiser: Component, pixels: float, items: int) -> Term:
    """Latents as they are, doubled for guidance and as they come back; prompts likewise."""
    config = denoiser.config
    channels = int(config.get("in_channels") or 4)
    if denoiser.architecture.startswith("Flux"):
        channels //= 4  # of the packed 2 x 2 pixels
    tokens, field = _PROMPT_TOKENS.get(denoiser.architecture, (_CLIP_TOKENS, ""))
    width = config.get(field)
    prompt = items * tokens * (width if isinstance(width, int) else 2048)
    elements = 3 * items * channels * pixels + 2 * prompt
    return about("latents", elements * run.value_bytes, 0.3, "latents and prompts, doubled")


def _kept(run: _Run, fixed: int, operands: int) -> list[Term]:
    if not run.is_cpu:
        return []
    size = fixed + min(_PACKING_BYTES, operands)
    return [about("workspace", size, 0.5, "buffers that MKL and oneDNN keep; measured")]


def _is_doubled(run: _Run, denoiser: Component) -> bool:
    return run.guided and not denoiser.architecture.startswith("Flux")


def _decodes_in_float32(run: _Run) -> bool:
    """Stable Diffusion XL's autoencoder overflows in float16, so its pipeline casts it."""
    denoiser, vae = run.denoiser, run.part("vae")
    is_xl = denoiser is not None and denoiser.config.get("addition_embed_type") == "text_time"
    upcast = vae is not None and vae.config.get("force_upcast", True)
    return bool(is_xl and upcast and run.dtype == "float16")


def _tile_pixels(vae: Component) -> int:
    """A tile is as large as the pictures that the autoencoder was trained with, but not more
    than the engine lets it be."""
    side = vae.config.get("sample_size", 32)
    return min(int(side if isinstance(side, int) else side[0]), LARGEST_TILE_PIXELS)


def _tiles(pixels: int, side: int) -> int:
    return -(-pixels // int(side * _TILE_STEP))


def _total(terms: list[Term]) -> int:
    return sum(term.size_bytes for term in terms)


def _variants(options: LoadOptions) -> list[str]:
    """What else makes memory differ, for the family's name."""
    said: list[str] = [options.offload] if options.offload != "none" else []
    said += [options.quantization] if options.quantization else []
    said += ["tiled"] if options.vae_tiling else []
    return said + (["sliced"] if options.vae_slicing else [])
