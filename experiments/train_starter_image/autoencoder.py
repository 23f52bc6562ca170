"""Stage `ae`: the autoencoder (32 x 32 x 3 to 8 x 8 x 4 and back), then whitened latents.

About 90 % of the pixels are background, so a plain loss learns to paint backgrounds: the pixels of
objects and of their edges weigh seven times as much.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch.nn import functional

from experiments.train_starter_image.loop import (
    Average,
    Log,
    Progress,
    learning_rate,
    no_change,
    save,
)
from workbench.tasks.image.shapes.checker import check
from workbench.tasks.image.shapes.render import SIDE_PX, render
from workbench.tasks.image.shapes.scene import Scene, sample_scene

LATENT_CHANNELS = 4
PEAK_RATE = 2.5e-3
BATCH = 64


def new_autoencoder() -> AutoencoderKL:
    """The architecture with random weights: f = 4, 0.65 M parameters."""
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(16, 32, 64),
        layers_per_block=1,
        latent_channels=LATENT_CHANNELS,
        norm_num_groups=8,
        sample_size=SIDE_PX,
        scaling_factor=1.0,
        mid_block_add_attention=False,
    )


def to_tensor(images: np.ndarray) -> torch.Tensor:
    """(n, 32, 32, 3) uint8 to (n, 3, 32, 32) float in -1..1."""
    return torch.from_numpy(images).permute(0, 3, 1, 2).float().div_(127.5).sub_(1.0)


def to_images(pixels: torch.Tensor) -> np.ndarray:
    """(n, 3, 32, 32) in -1..1 to (n, 32, 32, 3) uint8."""
    levels = (pixels.float().clamp(-1, 1) + 1.0) * 127.5
    return levels.round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()


def pixel_weights(masks: torch.Tensor) -> torch.Tensor:
    """(n, 32, 32) coverage to (n, 1, 32, 32): 7 on objects and 1 px around them, else 1."""
    return 1.0 + 6.0 * functional.max_pool2d(masks[:, None], 3, stride=1, padding=1)


def reconstruction_loss(
    drawn: torch.Tensor, true: torch.Tensor, weights: torch.Tensor
) -> torch.Tensor:
    """Weighted absolute plus squared error."""
    difference = drawn.float() - true
    return ((difference.abs() + difference.square()) * weights).mean()


def scenes_of(rng: np.random.Generator, count: int, two_share: float) -> list[Scene]:
    """Random scenes without held-out pairs, `two_share` of them with two things."""
    return [sample_scene(rng, 2 if rng.random() < two_share else 1) for _ in range(count)]


def train_autoencoder(
    work: Path, minutes: float, log: Log, batch: int = BATCH, gate_pictures: int = 192
) -> list[float]:
    """Trains until the budget is spent, saves `ae.pt` (averaged, whitened); returns the losses."""
    model = new_autoencoder()
    average = Average(model, 0.995)
    optimiser = torch.optim.AdamW(model.parameters(), PEAK_RATE, betas=(0.9, 0.99))
    progress = Progress(work / "ae_progress.pt", minutes, model, optimiser, average)
    rng = np.random.default_rng(1000 + progress.step)
    while (fraction := progress.clock.fraction) < 1.0:
        images, masks = render(scenes_of(rng, batch, 0.5), rng)
        true, weights = to_tensor(images), pixel_weights(torch.from_numpy(masks))
        # bfloat16 convolutions are 75 % faster on a CPU that has them; sums stay in float32.
        with torch.autocast("cpu", torch.bfloat16):
            posterior = model.encode(true).latent_dist
            drawn = model.decode(posterior.sample()).sample
        loss = reconstruction_loss(drawn, true, weights) + 1e-4 * posterior.kl().float().mean()
        rate = learning_rate(PEAK_RATE, progress.step, fraction, warmup=100, hold=0.15)
        progress.descend(loss, rate, no_change)
        if progress.step % 50 == 0:
            log(
                "ae",
                step=progress.step,
                images=progress.step * batch,
                loss=progress.recent(50),
                seconds=round(progress.clock.spent_seconds, 1),
            )
        progress.save_if_due()
    model.load_state_dict(average.values)
    model.eval()
    whiten(model, np.random.default_rng(1))
    save(work / "ae.pt", model.state_dict())
    log("ae_gate", step=progress.step, **gate(model, np.random.default_rng(2), gate_pictures))
    return progress.losses


@torch.no_grad()
def whiten(model: AutoencoderKL, rng: np.random.Generator, count: int = 2048) -> None:
    """Makes the latents zero-mean with (nearly) unit covariance, without changing the pictures.

    Diffusion adds the same noise to every channel, so a channel of small variance would drown and
    correlated channels waste capacity. A shrunk ZCA (eigenvalues + 0.1) is folded exactly into the
    1 x 1 convolutions around the latent, so the stock pipeline needs no change.
    """
    images, _ = render(scenes_of(rng, count, 0.5), rng)
    means = torch.cat([model.encode(p).latent_dist.mean for p in to_tensor(images).split(256)])
    flat = means.permute(1, 0, 2, 3).flatten(1).double()
    centre = flat.mean(1)
    values, vectors = torch.linalg.eigh(torch.cov(flat))
    scale = (values + 0.1).sqrt()
    forward = vectors @ torch.diag(1 / scale) @ vectors.T
    backward = vectors @ torch.diag(scale) @ vectors.T
    # A full matrix cannot act on the log-variances channel by channel: they are shifted by the
    # mean log-scale. Only the mean is used from here on.
    quant, post = model.quant_conv, model.post_quant_conv
    n = LATENT_CHANNELS
    weight = quant.weight[:n, :, 0, 0].double()
    quant.weight[:n] = (forward @ weight)[:, :, None, None].float()
    quant.bias[:n] = (forward @ (quant.bias[:n].double() - centre)).float()
    quant.bias[n:] -= 2 * scale.log().mean().float()
    weight = post.weight[:, :, 0, 0].double()
    post.bias.copy_((post.bias.double() + weight @ centre).float())
    post.weight.copy_((weight @ backward)[:, :, None, None].float())


@torch.no_grad()
def gate(model: AutoencoderKL, rng: np.random.Generator, count: int) -> dict[str, float]:
    """PSNR (dB) and checker accuracy of reconstructions of unseen pictures, one and two things."""
    result = {}
    for name, things in (("one", 1), ("two", 2)):
        scenes = [sample_scene(rng, things) for _ in range(count)]
        images, _ = render(scenes, rng)
        true = to_tensor(images)
        drawn = model.decode(model.encode(true).latent_dist.mean).sample
        error = (drawn.clamp(-1, 1) - true).square().mean((1, 2, 3)) / 4
        result[f"psnr_db_{name}"] = round(float((-10 * error.log10()).mean()), 2)
        right = [check(i, s).all_right for i, s in zip(to_images(drawn), scenes, strict=True)]
        result[f"all_right_{name}"] = round(float(np.mean(right)), 4)
    return result
