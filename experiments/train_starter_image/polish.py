"""Stage `polish`: the decoder learns to decode what the UNet really makes.

The UNet's latents are a little off those of real pictures, which shows as stray specks. Decoder
and `post_quant_conv` are trained on one-step UNet predictions paired with the true picture.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from experiments.train_starter_image.autoencoder import (
    pixel_weights,
    reconstruction_loss,
    scenes_of,
    to_tensor,
)
from experiments.train_starter_image.export import newest_unet
from experiments.train_starter_image.loop import (
    Average,
    Log,
    Progress,
    learning_rate,
    no_change,
    save,
)
from experiments.train_starter_image.schedule import alphas_cumulative
from experiments.train_starter_image.text import token_ids
from experiments.train_starter_image.unet import frozen_parts, new_unet
from experiments.train_starter_image.wording import training_caption
from workbench.tasks.image.shapes.render import render
from workbench.tasks.image.shapes.scene import Scene

PEAK_RATE = 3e-4
BATCH = 64


@torch.no_grad()
def _predicted(
    work: Path, scenes: list[Scene], latents: torch.Tensor, rng: np.random.Generator
) -> torch.Tensor:
    """What the UNet takes for the clean latents, from noise of step 60 to 480, guided by 1 to 2."""
    _, text = frozen_parts(work)
    unet = new_unet()
    unet.load_state_dict(torch.load(newest_unet(work), weights_only=True))
    unet.eval()
    cumulative = alphas_cumulative()
    silence = text(token_ids([""])).last_hidden_state
    parts = []
    for start in range(0, len(scenes), 64):
        clean = latents[start : start + 64]
        captions = [training_caption(s, rng, 0.0) for s in scenes[start : start + 64]]
        words = text(token_ids(captions)).last_hidden_state
        steps = torch.from_numpy(rng.integers(60, 480, len(clean)))
        signal = cumulative[steps].sqrt()[:, None, None, None]
        noise_level = (1 - cumulative[steps]).sqrt()[:, None, None, None]
        noisy = signal * clean + noise_level * torch.randn_like(clean)
        with torch.autocast("cpu", torch.bfloat16):
            guided = unet(noisy, steps, words).sample.float()
            free = unet(noisy, steps, silence.expand(len(clean), -1, -1)).sample.float()
        guidance = torch.from_numpy(rng.uniform(1.0, 2.0, len(clean)).astype(np.float32))
        velocity = free + guidance[:, None, None, None] * (guided - free)
        parts.append(signal * noisy - noise_level * velocity)
    return torch.cat(parts)


def polish(work: Path, minutes: float, log: Log, pictures: int = 6000) -> list[float]:
    """Trains the decoder until the budget is spent, saves `ae_polished.pt`; returns the losses."""
    rng = np.random.default_rng(5)
    scenes = scenes_of(rng, pictures, 0.5)
    images, masks = render(scenes, rng)
    autoencoder, _ = frozen_parts(work)
    with torch.no_grad():
        clean = torch.cat(
            [autoencoder.encode(p).latent_dist.mean for p in to_tensor(images).split(256)]
        )
    predicted = _predicted(work, scenes, clean, rng)
    parts = torch.nn.ModuleList([autoencoder.decoder, autoencoder.post_quant_conv])
    parts.requires_grad_(True)
    average = Average(parts, 0.99)
    optimiser = torch.optim.AdamW(parts.parameters(), PEAK_RATE, betas=(0.9, 0.99))
    coverage = torch.from_numpy(masks)
    batch = min(BATCH, pictures)
    progress = Progress(work / "polish_progress.pt", minutes, parts, optimiser, average)
    while (fraction := progress.clock.fraction) < 1.0:
        rows = torch.from_numpy(rng.choice(pictures, batch, replace=False))
        # Mostly the UNet's latents; some true ones, so that plain reconstruction stays good.
        kind = torch.from_numpy(rng.random(batch))[:, None, None, None]
        latents = torch.where(kind < 0.6, predicted[rows], clean[rows])
        noise_level = torch.where(kind < 0.6, 0.0, torch.where(kind < 0.85, 0.05, 0.15)).float()
        latents = latents + noise_level * torch.randn_like(latents)
        true = to_tensor(images[rows.numpy()])
        with torch.autocast("cpu", torch.bfloat16):
            drawn = autoencoder.decode(latents).sample
        loss = reconstruction_loss(drawn, true, pixel_weights(coverage[rows]))
        rate = learning_rate(PEAK_RATE, progress.step, fraction, warmup=20, hold=0.2)
        progress.descend(loss, rate, no_change)
        if progress.step % 50 == 0:
            log(
                "polish",
                step=progress.step,
                loss=progress.recent(50),
                seconds=round(progress.clock.spent_seconds, 1),
            )
        progress.save_if_due()
    parts.load_state_dict(average.values)
    save(work / "ae_polished.pt", autoencoder.state_dict())
    return progress.losses
