"""Stage `text`: the text encoder learns what a caption says before any picture is drawn.

Linear heads on the MEAN of the token outputs predict every attribute, because a fresh
cross-attention is nearly uniform: from its first step the UNet receives all attributes. The
encoder is then frozen, so that what it learnt about unknown wordings is not lost again.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional
from transformers import CLIPTextConfig, CLIPTextModel

from experiments.train_starter_image.loop import (
    Log,
    Progress,
    learning_rate,
    no_change,
    save,
)
from experiments.train_starter_image.wording import TOKENS, new_tokenizer, training_caption
from workbench.tasks.image.shapes.captions import Language, Wording, caption
from workbench.tasks.image.shapes.scene import (
    BACKGROUNDS,
    COLOURS,
    POSITIONS,
    SHAPES,
    SIZES,
    Scene,
    forget,
    sample_scene,
)

WIDTH = 128
PEAK_RATE = 1.5e-3
BATCH = 96
NOISE = 0.5
# Names of every head; None is "not said". Two things are told from the left or upper one.
HEADS: dict[str, tuple[str | int | None, ...]] = {
    "things": (0, 1, 2),
    "colour": (*COLOURS, None),
    "shape": (*SHAPES, None),
    "size": (*SIZES, None),
    "position": (*POSITIONS, None),
    "background": (*BACKGROUNDS, None),
    "colour_2": (*COLOURS, None),
    "shape_2": (*SHAPES, None),
    "relation": ("left of", "above", None),
}


def new_text_encoder() -> CLIPTextModel:
    """The architecture with random weights: 3 layers of width 128, 77 positions."""
    tokenizer = new_tokenizer()
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=WIDTH,
            intermediate_size=4 * WIDTH,
            num_hidden_layers=3,
            num_attention_heads=4,
            max_position_embeddings=TOKENS,
            projection_dim=WIDTH,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def token_ids(captions: list[str], full: bool = True) -> torch.Tensor:
    """(n, 77) token ids as the pipeline makes them; without `full` padded to the longest only.

    Attention is causal, so shorter padding leaves the outputs of the real tokens as they are.
    """
    batch = new_tokenizer()(
        captions,
        padding="max_length" if full else "longest",
        max_length=TOKENS,
        truncation=True,
        return_tensors="pt",
    )
    return batch.input_ids


def labels(scenes: list[Scene]) -> dict[str, torch.Tensor]:
    """Index of the right name for every head, (n,) each."""
    rows = []
    for scene in scenes:
        # Without a relation neither is left or upper: then the order is that of the caption.
        told = scene.canonical() if scene.relation else scene
        first = told.things[0] if told.things else None
        second = told.things[1] if len(told.things) > 1 else None
        said: dict[str, Any] = {
            "things": len(told.things),
            "colour": first and first.colour,
            "shape": first and first.shape,
            "size": first and first.size,
            "position": first and first.position,
            "background": told.background,
            "colour_2": second and second.colour,
            "shape_2": second and second.shape,
            "relation": told.relation,
        }
        rows.append([names.index(said[head]) for head, names in HEADS.items()])
    table = torch.tensor(rows)
    return {head: table[:, i] for i, head in enumerate(HEADS)}


class Reader(torch.nn.Module):
    """The text encoder with one linear head per attribute on its mean output."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = new_text_encoder()
        self.heads = torch.nn.ModuleDict(
            {head: torch.nn.Linear(WIDTH, len(names)) for head, names in HEADS.items()}
        )

    def forward(self, ids: torch.Tensor) -> dict[str, torch.Tensor]:
        """Token ids (n, tokens) to logits (n, names) per head."""
        mean = self.encoder(ids).last_hidden_state.mean(1)
        return {name: head(mean) for name, head in self.heads.items()}


def _prompts(rng: np.random.Generator, count: int) -> tuple[list[str], list[Scene]]:
    captions, scenes = [], []
    for _ in range(count):
        scene = sample_scene(rng, 2 if rng.random() < 0.7 else 1)
        if rng.random() < 0.5:
            scene = forget(scene, rng)
        if rng.random() < 0.05:
            scene = Scene(())
        captions.append(training_caption(scene, rng, NOISE))
        scenes.append(scene)
    return captions, scenes


def train_text(
    work: Path, minutes: float, log: Log, batch: int = BATCH, gate_prompts: int = 300
) -> list[float]:
    """Trains until the budget is spent, saves `text.pt`; returns the losses."""
    model = Reader()
    optimiser = torch.optim.AdamW(model.parameters(), PEAK_RATE, betas=(0.9, 0.99))
    progress = Progress(work / "text_progress.pt", minutes, model, optimiser)
    rng = np.random.default_rng(2000 + progress.step)
    while (fraction := progress.clock.fraction) < 1.0:
        captions, scenes = _prompts(rng, batch)
        # Every sixth batch has all 77 positions; the others are three times as fast without.
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(token_ids(captions, full=progress.step % 6 == 0))
        targets = labels(scenes)
        losses = [functional.cross_entropy(logits[h].float(), targets[h]) for h in HEADS]
        rate = learning_rate(PEAK_RATE, progress.step, fraction, warmup=100, hold=0.3)
        progress.descend(torch.stack(losses).mean(), rate, no_change)
        if progress.step % 100 == 0:
            log(
                "text",
                step=progress.step,
                loss=progress.recent(100),
                seconds=round(progress.clock.spent_seconds, 1),
            )
        progress.save_if_due()
    model.eval()
    save(work / "text.pt", model.encoder.state_dict())
    log("text_gate", step=progress.step, **read_accuracy(model, gate_prompts))
    return progress.losses


@torch.no_grad()
def read_accuracy(model: Reader, count: int) -> dict[str, float]:
    """Share of captions with every head right, per language, wording and kind of scene."""
    result = {}
    languages: tuple[Language, ...] = ("en", "vi")
    wordings: tuple[Wording, ...] = ("trained", "unseen")
    for language in languages:
        for wording in wordings:
            for kind in ("one", "two", "held_out"):
                rng = np.random.default_rng(3)
                scenes, captions = [], []
                for i in range(count):
                    things = 2 if kind == "two" or (kind == "held_out" and i % 2) else 1
                    scene = sample_scene(rng, things, held_out=kind == "held_out")
                    scenes.append(forget(scene, rng) if i % 4 > 1 else scene)
                    captions.append(caption(scenes[-1], rng, language, wording))
                logits, targets = model(token_ids(captions)), labels(scenes)
                right = torch.stack([logits[h].argmax(1) == targets[h] for h in HEADS]).all(0)
                key = f"{language}_{wording}_{kind}"
                result[key] = round(float(right.float().mean()), 4)
    return result
