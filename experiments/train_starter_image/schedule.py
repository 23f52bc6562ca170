"""The noise schedule: velocity prediction, no zero-terminal SNR, so that Euler and DPM++ work."""

from __future__ import annotations

import torch
from diffusers import DDIMScheduler

TRAIN_STEPS = 1000


def new_scheduler() -> DDIMScheduler:
    """The scheduler that is saved with the model; others are made from its config."""
    return DDIMScheduler(
        num_train_timesteps=TRAIN_STEPS,
        beta_start=0.00085,
        beta_end=0.02,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )


def alphas_cumulative() -> torch.Tensor:
    """(1000,) share of signal power at every training step."""
    return new_scheduler().alphas_cumprod.float()
