"""How long a request takes, from the measured speeds of a machine: coarse, for ranking plans only.

Every part of a model is a roofline: ``2 * weights * items`` multiply-adds over the compute of the
device, and, where one item is computed at a time, the bytes of the weights over its bandwidth.
Weights that wait elsewhere are carried once a pass. Loading is not counted. What is left out: the
cache that attention reads, kernel launches, sampling. Factors for formats and copies are orders
of magnitude that put one plan before another; none of them is a measurement of a machine.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict

from workbench.memory.facts import Component, ModelFacts
from workbench.memory.formats import Format, format_of, weights_count
from workbench.memory.machine import Machine
from workbench.memory.matrix import device_kind
from workbench.memory.pictures import latent_tokens, picture_size
from workbench.memory.request import LoadOptions, Offload, RequestSize

#: A request that names no size: so many tokens are read and written.
READ_TOKENS, NEW_TOKENS = 512, 128
STEPS = 20
#: Tokens that Whisper writes for a window of 30 s of speech, and encoder positions of a window.
_TOKENS_A_WINDOW, _WINDOW_SECONDS, _WINDOW_POSITIONS = 100, 30.0, 1500
#: Share of Whisper's weights that is its encoder (0.3 to 0.45 from base to large).
_ENCODER_SHARE = 0.4
#: A UNet's deep blocks see 1/4 to 1/64 of the latent pixels: 1.36 TFLOP of SD 1.5 at 64 x 64
#: against ``2 * 860M * 4096``. A VAE's decoder likewise, by output pixels: 2.5 TFLOP at 512 x 512.
_UNET_SHARE, _VAE_SHARE = 0.2, 0.06
#: Tiles overlap by a quarter on each side, so ``1 / 0.75²`` as many pixels are decoded.
_TILED = 1.78
#: Parts of `Machine.bytes_per_second["host_to_cuda"]`, which is for pinned memory: a copy from
#: pageable memory, and one for every single weight.
_PAGEABLE, _SINGLE = 0.5, 0.25

#: (is a CPU, dtype) that was not measured -> part of the fastest one that was: float32 runs on a
#: GPU's slower units, and a CPU without instructions for half precision widens it.
_UNMEASURED = {(False, "float32"): 0.15, (True, "bfloat16"): 0.7, (True, "float16"): 0.5}

_DENOISERS, _DECODERS = ("transformer", "unet"), ("vae", "vqvae", "movq")


class PredictedTime(BaseModel):
    """Seconds by phase, for which request, and where the speeds come from."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    seconds: float
    phases: dict[str, float]
    request: str
    provenance: str


def predicted_time(
    facts: ModelFacts, options: LoadOptions, size: RequestSize, machine: Machine
) -> PredictedTime:
    """The time of one request of ``size``; see the module's docstring for what it leaves out."""
    run = _Run(facts, options, size, machine, format_of(facts, options))
    phases, request = _TASKS.get(facts.task, _embedding)(run)
    measured = "measured speeds" if machine.is_measured else "reference speeds"
    return PredictedTime(
        seconds=sum(phases.values()),
        phases=phases,
        request=request,
        provenance=f"coarse, from {measured} of {machine.name}",
    )


# -- inside ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Run:
    """What every phase needs, and the three costs that they are made of."""

    facts: ModelFacts
    options: LoadOptions
    size: RequestSize
    machine: Machine
    form: Format

    @property
    def kind(self) -> str:
        return device_kind(self.options.device)

    @property
    def share_on_device(self) -> float:
        """Of the layers of a llama.cpp model; the others are computed by the CPU."""
        if self.options.gpu_layers is None or self.kind == "cpu":
            return 1.0
        layers = layer_count(self.facts)
        return min(1.0, self.options.gpu_layers / layers) if layers else 1.0

    def compute(self, multiply_adds: float) -> float:
        """Seconds of arithmetic."""
        on = self.share_on_device
        work = 2 * multiply_adds / self.form.speed
        return on * work / self._flops(self.kind) + (1 - on) * work / self._flops("cpu")

    def read(self, weights: float) -> float:
        """Seconds in which the device reads so many weights once."""
        on, size_bytes = self.share_on_device, weights * self.form.bytes_per_weight
        here = size_bytes / self._bytes_per_second(self.kind)
        return on * here + (1 - on) * size_bytes / self._bytes_per_second("cpu")

    def carry(self, weights: float, passes: float, hidden_seconds: float = 0.0) -> float:
        """Seconds to bring weights that wait elsewhere, for each pass.

        ``hidden_seconds`` is the arithmetic behind which a stream can hide its copies.
        """
        offload: Offload = self.options.offload
        size_bytes = weights * self.form.bytes_per_weight
        link = self._bytes_per_second(f"host_to_{self.kind}")
        if offload == "model":  # whole parts come once and go once, from pageable memory
            return 2 * size_bytes / (_PAGEABLE * link)
        if offload == "group":
            return passes * size_bytes / (_PAGEABLE * link)
        if offload == "group_stream":
            return max(0.0, passes * size_bytes / link - hidden_seconds)
        if offload == "sequential":
            return passes * size_bytes / (_SINGLE * link)
        if offload == "disk":
            return passes * size_bytes / self._bytes_per_second("disk")
        return 0.0

    def _bytes_per_second(self, name: str) -> float:
        speeds = self.machine.bytes_per_second
        return speeds.get(name) or speeds.get("cpu") or 1e10

    def _flops(self, kind: str) -> float:
        """Of the format that is computed in, else of the next like it."""
        speeds = self.machine.flops
        exact = speeds.get(f"{kind}/{self.form.compute}")
        if exact:
            return exact
        same = [speed for name, speed in speeds.items() if name.startswith(f"{kind}/")]
        if not same:
            return 1e11
        return max(same) * _UNMEASURED.get((kind == "cpu", self.form.compute), 1.0)


_Phases = tuple[dict[str, float], str]


def _chat(run: _Run) -> _Phases:
    model = run.facts.component("model")
    read = run.size.prompt_tokens or READ_TOKENS
    if run.options.context_tokens:
        read = min(read, run.options.context_tokens)
    weights = active_weights(model)
    prefill = run.compute(weights * read * run.size.batch)
    # all sequences of a batch share one reading of the weights
    token = max(run.read(weights), run.compute(weights * run.size.batch))
    decode = NEW_TOKENS * token
    return {
        "prefill": prefill + run.carry(weights, 1, prefill),
        "decode": decode + run.carry(weights, NEW_TOKENS, decode),
    }, f"{read} tokens read, {NEW_TOKENS} written"


def _embedding(run: _Run) -> _Phases:
    tokens = run.size.prompt_tokens or run.facts.context_tokens or READ_TOKENS
    weights = sum(active_weights(part) for part in run.facts.components)
    embed = run.compute(weights * tokens * run.size.batch)
    return {"embed": embed + run.carry(weights, 1, embed)}, f"{tokens} tokens"


def _speech(run: _Run) -> _Phases:
    seconds = run.size.audio_seconds or _WINDOW_SECONDS
    windows = max(1, math.ceil(seconds / _WINDOW_SECONDS))
    weights = sum(weights_count(part) for part in run.facts.components)
    encoder, decoder = _ENCODER_SHARE * weights, (1 - _ENCODER_SHARE) * weights
    encode = windows * run.compute(encoder * _WINDOW_POSITIONS)
    token = max(run.read(decoder), run.compute(decoder * run.size.beams))
    aligned = run.compute(decoder * _TOKENS_A_WINDOW) if run.size.words else 0.0
    decode = windows * (_TOKENS_A_WINDOW * token + aligned)
    return {"encode": encode, "decode": decode}, f"{seconds:.0f} s of speech"


def _image(run: _Run) -> _Phases:
    size, facts = run.size, run.facts
    width, height = picture_size(facts, size)
    phases = {"encode_prompt": 0.0, "denoise": 0.0, "decode_image": 0.0}
    for part in facts.components:
        weights = weights_count(part)
        if part.name in _DENOISERS:
            # a distilled guidance is an input, not a second pass
            guided = size.guided and not part.config.get("guidance_embeds")
            passes = size.batch * (2 if guided else 1)
            work = _denoiser_multiply_adds(part, facts, width, height, weights)
            seconds = STEPS * run.compute(passes * work)
            phases["denoise"] += seconds + run.carry(weights, STEPS, seconds)
        elif part.name in _DECODERS:
            tiled = _TILED if run.options.vae_tiling else 1.0
            work = _VAE_SHARE * weights * width * height * size.batch * tiled
            phases["decode_image"] += run.compute(work) + run.carry(weights, 1)
        else:
            tokens = _text_tokens(part) * size.batch * (2 if size.guided else 1)
            phases["encode_prompt"] += run.compute(weights * tokens) + run.carry(weights, 1)
    return phases, f"{width}x{height}, {size.batch} at once, {STEPS} steps"


_TASKS: dict[str, Callable[[_Run], _Phases]] = {
    "chat": _chat,
    "speech": _speech,
    "image": _image,
    "embedding": _embedding,
}


def active_weights(part: Component) -> float:
    """Weights that a token meets: of the experts only the chosen ones, of a table one row.

    A table of embeddings counts where it is the output projection too (no head of its own).
    """
    total = weights_count(part)
    by_kind = part.weights.bytes_by_kind
    if not by_kind:
        return total
    expert = weights_count(part, "expert")
    if expert:
        total -= expert * (1 - _chosen_experts(part))
    if "head" in by_kind:
        total -= weights_count(part, "embedding")
    return total


def layer_count(facts: ModelFacts) -> int:
    """Layers of a language model; 0 where its configuration does not say."""
    config = facts.components[0].config
    name = config.get("general.architecture")
    found = config.get(f"{name}.block_count") if name else config.get("num_hidden_layers")
    return found if isinstance(found, int) else 0


def _chosen_experts(part: Component) -> float:
    """Share of the experts that a token goes through."""
    config, name = part.config, part.config.get("general.architecture")
    chosen = config.get(f"{name}.expert_used_count") or config.get("num_experts_per_tok")
    there = (
        config.get(f"{name}.expert_count")
        or config.get("num_local_experts")
        or config.get("num_experts")
        or config.get("n_routed_experts")
    )
    if isinstance(chosen, int) and isinstance(there, int) and there > 0:
        return min(1.0, chosen / there)
    return 1.0


def _denoiser_multiply_adds(
    part: Component, facts: ModelFacts, width: int, height: int, weights: float
) -> float:
    """Of one picture and one step."""
    tokens = latent_tokens(part, facts, width, height)
    if part.name == "unet":
        return _UNET_SHARE * weights * tokens
    config = part.config
    heads, head_dim = config.get("num_attention_heads"), config.get("attention_head_dim")
    layers = (config.get("num_layers") or 0) + (config.get("num_single_layers") or 0)
    hidden = 0
    if isinstance(heads, int) and isinstance(head_dim, int):
        hidden = heads * head_dim
    tokens += _JOINT_TOKENS if config.get("joint_attention_dim") else 0
    return weights * tokens + 2.0 * tokens * tokens * hidden * layers


#: Tokens of text that a transformer with joint attention carries along.
_JOINT_TOKENS = 512


def _text_tokens(part: Component) -> int:
    found = part.config.get("max_position_embeddings")
    return min(512, found) if isinstance(found, int) else 512
