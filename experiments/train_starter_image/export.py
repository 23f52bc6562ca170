"""Stage `export`: puts the trained parts together as a diffusers directory in float16."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextModel

from experiments.train_starter_image.schedule import new_scheduler
from experiments.train_starter_image.unet import frozen_parts, new_unet
from experiments.train_starter_image.wording import new_tokenizer


def assemble(
    autoencoder: AutoencoderKL, text: CLIPTextModel, unet: UNet2DConditionModel
) -> StableDiffusionPipeline:
    """A stock pipeline of the parts, without a safety checker (it can only draw shapes)."""
    return StableDiffusionPipeline(
        vae=autoencoder,
        text_encoder=text,
        tokenizer=new_tokenizer(),
        unet=unet,
        scheduler=new_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def newest_unet(work: Path) -> Path:
    """The averaged weights of the latest phase, also of one that still runs."""
    for name in ("two", "two_so_far", "one", "one_so_far"):
        path = work / f"unet_{name}.pt"
        if path.exists():
            return path
    raise FileNotFoundError(f"no UNet weights in {work}; run the stage 'unet' first")


def export(work: Path, target: Path) -> StableDiffusionPipeline:
    """Writes the model to `target` and loads it again as users do (float16 files, float32 maths).

    The directory is written aside and moved into place, so that a reader never sees half of it;
    a model card that is already in `target` is kept.
    """
    autoencoder, text = frozen_parts(work)
    polished = work / "ae_polished.pt"
    if polished.exists():
        autoencoder.load_state_dict(torch.load(polished, weights_only=True))
    unet = new_unet()
    unet.load_state_dict(torch.load(newest_unet(work), weights_only=True))
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    aside.chmod(0o755)
    pipeline = assemble(autoencoder, text, unet).to(torch.float16)
    pipeline.save_pretrained(aside, variant="fp16", safe_serialization=True)
    for file in aside.rglob("*.safetensors"):
        file.chmod(0o644)
    if target.exists():
        card = target / "README.md"
        if card.exists():
            shutil.copy(card, aside / "README.md")
        old = target.with_name(f".{target.name}-old")
        target.replace(old)
        aside.replace(target)
        shutil.rmtree(old)
    else:
        aside.replace(target)
    return reload(target)


def reload(directory: Path) -> StableDiffusionPipeline:
    """Loads the saved model the way the README tells users to."""
    pipeline = StableDiffusionPipeline.from_pretrained(
        directory, variant="fp16", dtype=torch.float32, local_files_only=True
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline
