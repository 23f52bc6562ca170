"""Stage `unet`: the denoiser, trained on latents that are encoded once.

Phase 1 shows one thing per picture, phase 2 mostly two. Two processes of one thread each average
one flat gradient, which is faster than two threads in one process.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch.nn import functional
from transformers import CLIPTextModel

from experiments.train_starter_image.autoencoder import (
    LATENT_CHANNELS,
    new_autoencoder,
    scenes_of,
    to_tensor,
)
from experiments.train_starter_image.loop import (
    Average,
    Clock,
    Log,
    Progress,
    learning_rate,
    save,
)
from experiments.train_starter_image.schedule import TRAIN_STEPS, alphas_cumulative
from experiments.train_starter_image.text import WIDTH, new_text_encoder, token_ids
from experiments.train_starter_image.wording import training_caption
from workbench.tasks.image.shapes.render import render
from workbench.tasks.image.shapes.scene import Scene, forget

LATENT_SIDE = 8
PEAK_RATE = 1e-3
CAPTION_DROP = 0.1
NOISE = 0.3


@dataclass(frozen=True)
class Phase:
    """One part of the training: which pictures, how many and how long."""

    name: str
    minutes: float
    two_share: float
    pictures: int  # in the pool of every process
    batch: int = 32  # per process


def new_unet() -> UNet2DConditionModel:
    """The architecture with random weights: 4.0 M parameters, attention on the 4 x 4 grid only."""
    return UNet2DConditionModel(
        sample_size=LATENT_SIDE,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        layers_per_block=1,
        block_out_channels=(64, 128),
        # Attention at 8 x 8 as well costs 30 % more time.
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=WIDTH,
        attention_head_dim=4,
        norm_num_groups=16,
    )


def frozen_parts(work: Path) -> tuple[AutoencoderKL, CLIPTextModel]:
    """The trained autoencoder and text encoder of the stages before."""
    autoencoder, text = new_autoencoder(), new_text_encoder()
    autoencoder.load_state_dict(torch.load(work / "ae.pt", weights_only=True))
    text.load_state_dict(torch.load(work / "text.pt", weights_only=True))
    return autoencoder.eval().requires_grad_(False), text.eval().requires_grad_(False)


@torch.no_grad()
def encode_pool(
    autoencoder: AutoencoderKL, rng: np.random.Generator, phase: Phase
) -> tuple[list[Scene], torch.Tensor, torch.Tensor]:
    """Scenes, latent means (n, 4, 8, 8) and loss weights (n, 1, 8, 8) of fresh pictures."""
    scenes = scenes_of(rng, phase.pictures, phase.two_share)
    latents, weights = [], []
    for start in range(0, phase.pictures, 256):
        images, masks = render(scenes[start : start + 256], rng)
        with torch.autocast("cpu", torch.bfloat16):
            mean = autoencoder.encode(to_tensor(images)).latent_dist.mean
        latents.append(mean.float())
        cells = functional.max_pool2d(torch.from_numpy(masks)[:, None], 4)
        # Objects and one cell around them count three times.
        weights.append(1.0 + 2.0 * functional.max_pool2d(cells, 3, stride=1, padding=1))
    return scenes, torch.cat(latents), torch.cat(weights)


def batch_captions(scenes: list[Scene], rng: np.random.Generator) -> list[str]:
    """A fresh caption per picture: most say everything, some say nothing (for guidance)."""
    captions = []
    for scene in scenes:
        told = forget(scene, rng) if rng.random() < 0.3 else scene
        told = Scene(()) if rng.random() < CAPTION_DROP else told
        captions.append(training_caption(told, rng, NOISE))
    return captions


def _average_gradients(model: torch.nn.Module) -> None:
    """One all-reduce of one flat vector: many small ones would cost more than the step saves."""
    if not dist.is_initialized():
        return
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    flat = torch.cat([g.flatten() for g in gradients])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(part.view_as(gradient))


def _shared_fraction(clock: Clock) -> float:
    """The first process's clock for all, so that they stop at the same step."""
    fraction = torch.tensor([clock.fraction], dtype=torch.float64)
    if dist.is_initialized():
        dist.broadcast(fraction, 0)
    return float(fraction)


def _batches(count: int, batch: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Rows of full batches, reshuffled after every pass, for ever."""
    while True:
        order = rng.permutation(count)
        for start in range(0, count - batch + 1, batch):
            yield order[start : start + batch]


def velocity_loss(
    model: UNet2DConditionModel, clean: torch.Tensor, words: torch.Tensor, weights: torch.Tensor
) -> torch.Tensor:
    """Weighted squared error of the predicted velocity at stratified random noise levels."""
    count = len(clean)
    # Stratified: every batch sees all noise levels.
    steps = ((torch.arange(count) + torch.rand(count)) / count * TRAIN_STEPS).long()
    steps = steps.clamp(max=TRAIN_STEPS - 1)  # 31.99999997 rounds up to 32
    cumulative = alphas_cumulative()[steps][:, None, None, None]
    signal, noise_level = cumulative.sqrt(), (1 - cumulative).sqrt()
    noise = torch.randn_like(clean)
    with torch.autocast("cpu", torch.bfloat16):
        velocity = model(signal * clean + noise_level * noise, steps, words).sample
    error = velocity.float() - (signal * noise - noise_level * clean)
    return (error.square() * weights).mean()


def train_phase(work: Path, phase: Phase, start_from: str | None, log: Log) -> list[float]:
    """Runs one phase (in every process of the group) and saves `unet_<phase>.pt`.

    `start_from` names the phase whose averaged weights are the start.
    """
    rank = dist.get_rank() if dist.is_initialized() else 0
    world = dist.get_world_size() if dist.is_initialized() else 1
    torch.manual_seed(7)
    model = new_unet()
    if start_from:
        model.load_state_dict(torch.load(work / f"unet_{start_from}.pt", weights_only=True))
    average = Average(model, 0.999)
    optimiser = torch.optim.AdamW(
        model.parameters(), PEAK_RATE, betas=(0.9, 0.99), weight_decay=0.01
    )
    checkpoint = work / f"unet_{phase.name}_progress.pt"
    progress = Progress(checkpoint, phase.minutes, model, optimiser, average)
    seed = 10_000 * (2 if start_from else 1) + 10 * progress.step + rank
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    autoencoder, text = frozen_parts(work)
    scenes, latents, weights = encode_pool(autoencoder, rng, phase)
    batches = _batches(phase.pictures, phase.batch, rng)
    while (fraction := _shared_fraction(progress.clock)) < 1.0:
        rows = next(batches)
        ids = token_ids(batch_captions([scenes[i] for i in rows], rng))
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            words = text(ids).last_hidden_state
        loss = velocity_loss(model, latents[rows], words, weights[rows])
        rate = learning_rate(PEAK_RATE, progress.step, fraction, warmup=150, hold=0.25)
        progress.descend(loss, rate, lambda: _average_gradients(model))
        if rank == 0 and progress.step % 100 == 0:
            log(
                f"unet_{phase.name}",
                step=progress.step,
                samples=progress.step * phase.batch * world,
                loss=progress.recent(100),
                seconds=round(progress.clock.spent_seconds, 1),
            )
        if rank == 0 and progress.save_if_due():
            save(work / f"unet_{phase.name}_so_far.pt", average.values)
    if rank == 0:
        save(work / f"unet_{phase.name}.pt", average.values)
    return progress.losses


def _process(rank: int, world: int, work: Path, phases: list[Phase], port: int) -> None:
    torch.set_num_threads(1)
    if world > 1:
        dist.init_process_group(
            "gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=world
        )
    before = None
    log = Log(work / "training_log.jsonl")
    for phase in phases:
        if not (work / f"unet_{phase.name}.pt").exists():
            train_phase(work, phase, before, log)
        if world > 1:
            dist.barrier()
        before = phase.name
    if world > 1:
        dist.destroy_process_group()


def train_unet(work: Path, phases: list[Phase], processes: int = 2, port: int = 29513) -> None:
    """Runs the phases that are not finished yet, each in `processes` processes."""
    torch.multiprocessing.spawn(  # type: ignore[no-untyped-call]
        _process, (processes, work, phases, port), nprocs=processes
    )
