"""The picture that a diffusion model makes when nobody says its size, and its latents."""

from __future__ import annotations

from workbench.memory.facts import Component, ModelFacts
from workbench.memory.request import RequestSize

_USUAL_PIXELS = 512


def picture_size(facts: ModelFacts, size: RequestSize) -> tuple[int, int]:
    """(width, height) in pixels: what is asked for, else the model's own size."""
    own = _own_pixels(facts)
    width = size.width or _only(facts, "widths") or own
    return width, size.height or _only(facts, "heights") or own


def latent_scale(facts: ModelFacts) -> int:
    """Output pixels along one side of a latent pixel. Source: diffusers' ``vae_scale_factor``."""
    for part in facts.components:
        channels = part.config.get("block_out_channels")
        if part.name == "vae" and isinstance(channels, list):
            return int(2 ** (len(channels) - 1))
    return 8


def latent_tokens(part: Component, facts: ModelFacts, width: int, height: int) -> float:
    """What the denoiser computes with: latent pixels, or the patches of a transformer."""
    scale = latent_scale(facts)
    pixels = (width / scale) * (height / scale)
    patch = part.config.get("patch_size")
    if not isinstance(patch, int):
        return pixels
    if part.config.get("guidance_embeds") is not None and patch == 1:
        patch = 2  # Flux packs 2 x 2 latent pixels before its transformer
    return pixels / patch**2


def _own_pixels(facts: ModelFacts) -> int:
    """``sample_size`` of the denoiser in latent pixels, else the usual size."""
    for part in facts.components:
        sample = part.config.get("sample_size")
        if part.name in ("unet", "transformer") and isinstance(sample, int):
            return sample * latent_scale(facts)
    if any(part.architecture.startswith("Flux") for part in facts.components):
        return 1024
    return _USUAL_PIXELS


def _only(facts: ModelFacts, name: str) -> int | None:
    """The first of the sizes that the catalogue allows."""
    allowed = facts.options.get(name)
    return int(allowed[0]) if allowed else None
