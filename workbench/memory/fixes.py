"""What would make a plan fit: small changes, each of them planned, cheapest first, as flags.

One change at a time is tried: another way of loading, or the largest request that fits. Where
none is enough, the best way of loading among all is named, and last the memory that is missing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

from workbench.memory.facts import ModelFacts
from workbench.memory.formats import compute_type
from workbench.memory.matrix import SUPPORT, device_kind
from workbench.memory.pictures import picture_size
from workbench.memory.request import LoadOptions, RequestSize
from workbench.memory.search import Scales, Weighed, host_upper_bytes, ranked
from workbench.units import format_bytes

_MIB = 2**20
#: A context is cut in such steps, a picture's side in the others (latents of most models allow
#: multiples of 64 pixels without cropping).
_CONTEXT_STEP, _PIXEL_STEP, _AUDIO_STEP_SECONDS = 256, 64, 30.0
_DEFAULT_CONTEXT = 4096

#: The prices of what a change loses (see `quality_loss`: weights, cache, seams), as the logarithm
#: of a slowdown that a person would take instead: 8-bit weights are as bad as 1.1 times the time,
#: 4-bit ones as 1.5 times.
_LOSS_PRICES = ((0.0, 0.02, 0.1, 0.4), (0.0, 0.05, 0.2), (0.0, 0.05))
#: Doing without what was asked for: words' times, or the search for speech.
_WITHOUT_PRICE = 0.2
#: Half a context, half a batch or half the pixels cost as much as 1.4 times the time.
_SHRINK_PRICE = 0.5

#: Fields of LoadOptions whose every value is tried -> where `SUPPORT` has them.
_CHOICES = {
    "vae_slicing": None,
    "vae_tiling": None,
    "cache_type": "cache_types",
    "compute_type": "compute_types",
    "quantization": "quantizations",
    "offload": "offloads",
}
_FLAGS = {
    "context_tokens": "--context",
    "compute_type": "--compute-type",
    "quantization": "--quantization",
    "offload": "--offload",
    "cache_type": "--cache-type",
    "gpu_layers": "--gpu-layers",
    "vae_tiling": "--vae-tiling",
    "vae_slicing": "--vae-slicing",
}


@dataclass(frozen=True)
class Fix:
    """A change that was planned and fits: flags of ``workbench plan`` and what they lead to."""

    flags: str
    price: float
    note: str

    def __str__(self) -> str:
        return f"{self.flags} ({self.note})"


def cheapest_fixes(scales: Scales, refused: Weighed, count: int = 3) -> tuple[str, ...]:
    """Up to ``count`` changes that would make ``refused`` fit, the cheapest first.

    Each is a flag of ``workbench plan``; in brackets what it needs and what it costs.
    """
    tried = chain(_other_ways(scales, refused), _smaller_requests(scales, refused))
    best: dict[str, Fix] = {}
    for found in tried:
        fix = _fix(scales, refused, found)
        name = fix.flags.split()[0]
        # of one flag only the cheapest value: three ways are worth more than three shades
        if name not in best or fix.price < best[name].price:
            best[name] = fix
    fixes = sorted(best.values(), key=lambda fix: (fix.price, fix.flags))[:count]
    if len(fixes) < count:
        together = _all_together(scales, refused)
        if together is not None and str(together) not in map(str, fixes):
            fixes.append(together)
    said = [str(fix) for fix in fixes]
    if len(said) < count:
        said.append(_missing(refused))
    return tuple(said)


def smallest(scales: Scales, refused: Weighed) -> Weighed:
    """Of all allowed ways to load the same model for the same request, the smallest."""
    old = refused.options
    free = LoadOptions(device=old.device, context_tokens=old.context_tokens)
    ways = [refused, *scales.allowed(free, refused.size)]
    return min(ways, key=lambda w: (w.found.upper_bytes, w.departures, repr(w.options)))


def flags(facts: ModelFacts, before: Weighed, after: Weighed) -> str:
    """The flags of ``workbench plan`` that turn one into the other."""
    words = []
    for name, flag in _FLAGS.items():
        value = getattr(after.options, name)
        if value == getattr(before.options, name) or (
            name == "compute_type" and value == compute_type(facts, before.options)
        ):
            continue
        if isinstance(value, bool):
            words.append(flag if value else f"--no-{flag[2:]}")
        else:
            words.append(f"{flag} {'none' if value is None else value}")
    old, new = before.size, after.size
    if new.batch != old.batch:
        words.append(f"--batch {new.batch}")
    if new.beams != old.beams:
        words.append(f"--beam {new.beams}")
    if (new.width, new.height) != (old.width, old.height):
        words.append(f"--size {new.width}x{new.height}")
    if new.audio_seconds != old.audio_seconds:
        words.append(f"--audio {new.audio_seconds:.0f}s")
    if old.vad and not new.vad:
        words.append("--no-vad")
    if old.words and not new.words:
        words.append("--no-words")
    return " ".join(words)


# -- inside ----------------------------------------------------------------------------------


def _other_ways(scales: Scales, refused: Weighed) -> Iterator[Weighed]:
    """The same request with one option changed, where that fits."""
    options = refused.options
    support = SUPPORT.get((scales.facts.engine, device_kind(options.device)))
    for name, choices in _CHOICES.items():
        values = (True,) if choices is None else getattr(support, choices, ())
        for value in values:
            if value == getattr(options, name) or _is_same(scales, options, name, value):
                continue
            change: dict[str, Any] = {name: value}
            changed = replace(options, **change)
            if scales.refusal(changed) is None:
                found = scales.weigh(changed, refused.size)
                if found.fits:
                    yield found


def _is_same(scales: Scales, options: LoadOptions, name: str, value: object) -> bool:
    """Whether the value is what the engine does anyway."""
    return name == "compute_type" and value == compute_type(scales.facts, options)


def _smaller_requests(scales: Scales, refused: Weighed) -> Iterator[Weighed]:
    """The largest context, batch, picture, number of beams or of layers that fits."""
    facts, options, size = scales.facts, refused.options, refused.size
    support = SUPPORT.get((facts.engine, device_kind(options.device)))

    def largest(highest: int, make: Callable[[int], tuple[LoadOptions, RequestSize]]) -> Weighed:
        """The last of 1 to ``highest`` that fits, or the refused one; needs grow with it."""
        low, high, best = 0, highest + 1, refused
        while high - low > 1:
            middle = (low + high) // 2
            found = scales.weigh(*make(middle))
            if found.fits:
                low, best = middle, found
            else:
                high = middle
        return best

    found: list[Weighed] = []
    if facts.task == "chat" and support is not None and support.has_context:
        context = options.context_tokens or facts.context_tokens or _DEFAULT_CONTEXT
        floor = math.ceil(((size.prompt_tokens or 0) + 1) / _CONTEXT_STEP) - 1
        steps = math.ceil(context / _CONTEXT_STEP) - 1 - floor
        found.append(
            largest(
                steps,
                lambda n: (replace(options, context_tokens=(floor + n) * _CONTEXT_STEP), size),
            )
        )
    if size.batch > 1:
        found.append(largest(size.batch - 1, lambda n: (options, replace(size, batch=n))))
    if facts.task == "speech":
        found += [scales.weigh(options, replace(size, vad=False))] if size.vad else []
        found += [scales.weigh(options, replace(size, words=False))] if size.words else []
        found.append(largest(size.beams - 1, lambda n: (options, replace(size, beams=n))))
        pieces = math.ceil((size.audio_seconds or 0) / _AUDIO_STEP_SECONDS) - 1
        found.append(
            largest(
                pieces,
                lambda n: (options, replace(size, audio_seconds=n * _AUDIO_STEP_SECONDS)),
            )
        )
    if facts.task == "image" and not facts.options.get("widths"):
        width, height = picture_size(facts, size)

        def scaled(n: int) -> tuple[LoadOptions, RequestSize]:
            side = max(1, round(n * height / width)) * _PIXEL_STEP
            return options, replace(size, width=n * _PIXEL_STEP, height=side)

        found.append(largest(math.ceil(width / _PIXEL_STEP) - 1, scaled))
    if facts.engine == "llama_cpp" and options.gpu_layers is None:
        every = scales.allowed(options, size, [name for name in _FLAGS if name != "gpu_layers"])
        found += [w for w in every if w.options.gpu_layers]
    yield from (w for w in found if w.fits)


def _all_together(scales: Scales, refused: Weighed) -> Fix | None:
    """The best way to load for the same request, whatever it changes; None: none fits."""
    old = refused.options
    free = LoadOptions(device=old.device, context_tokens=old.context_tokens)
    order = ranked(scales.allowed(free, refused.size))
    if not order or not order[0].fits:
        return None
    return _fix(scales, refused, order[0])


def _fix(scales: Scales, refused: Weighed, found: Weighed) -> Fix:
    times = found.time.seconds / refused.time.seconds if refused.time.seconds else 1.0
    note = f"needs {format_bytes(found.found.upper_bytes)}"
    shrink = _shrink(scales, refused, found)
    # of a smaller request the time says nothing about the way it is loaded
    if times > 1.1 and not shrink:
        note += f", {times:.{0 if times >= 10 else 1}f} x the time"
    price = max(0.0, math.log(max(times, 1e-9))) + _SHRINK_PRICE * shrink
    less = (refused.size.vad > found.size.vad) + (refused.size.words > found.size.words)
    price += _WITHOUT_PRICE * less
    for prices, new, old in zip(_LOSS_PRICES, found.loss, refused.loss, strict=True):
        price += max(0.0, prices[new] - prices[old])
    return Fix(flags(scales.facts, refused, found), price, note)


def _shrink(scales: Scales, refused: Weighed, found: Weighed) -> float:
    """How much smaller the request is, as a logarithm; 0: it is the same."""
    facts, old, new = scales.facts, refused, found
    shrink = math.log(old.size.batch / new.size.batch) + math.log(old.size.beams / new.size.beams)
    before = old.options.context_tokens or facts.context_tokens or _DEFAULT_CONTEXT
    shrink += math.log(before / (new.options.context_tokens or before))
    if old.size.audio_seconds and new.size.audio_seconds:
        shrink += math.log(old.size.audio_seconds / new.size.audio_seconds)
    if facts.task == "image":
        pixels = [math.prod(picture_size(facts, w.size)) for w in (old, new)]
        shrink += math.log(pixels[0] / pixels[1])
    return shrink


def _missing(refused: Weighed) -> str:
    """The memory that would do."""
    if refused.host_missing_bytes:
        needed = host_upper_bytes(refused.found)
        return (
            f"free {format_bytes(refused.host_missing_bytes)} of host memory "
            f"({format_bytes(needed)} wait there)"
        )
    needed = math.ceil(refused.found.upper_bytes / _MIB)
    missing = format_bytes(refused.missing_bytes)
    return f"--memory {needed}MiB ({missing} more than there is: close programs, raise the limit)"
