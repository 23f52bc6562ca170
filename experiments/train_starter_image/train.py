"""Trains the starter image model from nothing: `python -m experiments.train_starter_image.train`.

Stages run in order and each can be run alone; a stage that was killed continues from its last
checkpoint (one a minute), and a finished stage is skipped. Budgets are processor time of one core.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from experiments.train_starter_image.autoencoder import train_autoencoder
from experiments.train_starter_image.evaluate import ROWS, Job, evaluate, run_job
from experiments.train_starter_image.export import export, reload
from experiments.train_starter_image.loop import Log
from experiments.train_starter_image.polish import polish
from experiments.train_starter_image.text import train_text
from experiments.train_starter_image.unet import Phase, train_phase, train_unet
from experiments.train_starter_image.wording import new_tokenizer

STAGES = ("tokenizer", "ae", "text", "unet", "polish", "export", "evaluate")
DEFAULT_TARGET = Path("data/models/shapes-32")


@dataclass(frozen=True)
class Budget:
    """Minutes of processor time per stage and process, as used for the committed weights."""

    ae: float = 10.0
    text: float = 27.0
    unet_one: float = 6.0
    unet_two: float = 27.0
    polish: float = 3.0


@dataclass(frozen=True)
class Run:
    """Where one training works and where the model goes."""

    work: Path
    target: Path
    budget: Budget
    processes: int
    prompts: int

    def tokenizer(self) -> None:
        """The tokenizer needs no training data; it is built when used and only reported here."""
        self.log()("tokenizer", tokens=len(new_tokenizer()))

    def ae(self) -> None:
        """Autoencoder and whitening."""
        if not (self.work / "ae.pt").exists():
            train_autoencoder(self.work, self.budget.ae, self.log())

    def text(self) -> None:
        """Text encoder."""
        if not (self.work / "text.pt").exists():
            train_text(self.work, self.budget.text, self.log())

    def unet(self) -> None:
        """Denoiser, both phases."""
        phases = [
            Phase("one", self.budget.unet_one, two_share=0.0, pictures=16_384),
            Phase("two", self.budget.unet_two, two_share=0.55, pictures=32_768),
        ]
        train_unet(self.work, phases, self.processes)

    def polish(self) -> None:
        """Decoder on the UNet's own latents."""
        if not (self.work / "ae_polished.pt").exists():
            polish(self.work, self.budget.polish, self.log())

    def export(self) -> None:
        """float16 files."""
        export(self.work, self.target)

    def evaluate(self) -> None:
        """The tables of the README, from the exported files."""
        table = evaluate(self.target, self.prompts)
        (self.work / "accepted.json").write_text(
            json.dumps(table, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
        )
        print(json.dumps(table, indent=2))

    def log(self) -> Log:
        """The one log of this work directory."""
        return Log(self.work / "training_log.jsonl")


def run_fast(work: Path) -> dict[str, list[float]]:
    """The whole loop on tiny settings (under a minute); returns the losses of every stage.

    It proves that every stage runs on the output of the one before and that the losses fall; the
    model that it makes draws nothing useful.
    """
    started = time.monotonic()
    log = Log(work / "training_log.jsonl")
    torch.manual_seed(0)
    losses = {
        "ae": train_autoencoder(work, 0.11, log, batch=16, gate_pictures=8),
        "text": train_text(work, 0.11, log, batch=24, gate_prompts=8),
    }
    phase = Phase("one", 0.13, two_share=0.0, pictures=256, batch=16)
    losses["unet"] = train_phase(work, phase, None, log)
    losses["polish"] = polish(work, 0.03, log, pictures=32)
    export(work, work / "model")
    pipeline = reload(work / "model")
    row = run_job(pipeline, Job("accuracy", ROWS[0].name, ROWS[0], count=2, seed=0))
    log("fast", seconds=round(time.monotonic() - started, 1), prompts=row["n"])
    return losses


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "stages", nargs="*", default=STAGES, metavar="STAGE", help="; ".join(STAGES)
    )
    parser.add_argument("--work-dir", type=Path, default=Path("runs/train_starter_image"))
    parser.add_argument("--target", type=Path, default=DEFAULT_TARGET)
    parser.add_argument("--minutes", type=float, help="budget of the (single) stage that is run")
    parser.add_argument("--processes", type=int, default=2, help="processes of the stage unet")
    parser.add_argument("--prompts", type=int, default=128, help="prompts per row of evaluate")
    parser.add_argument("--fast", action="store_true", help="the whole loop in under a minute")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    if options.fast:
        losses = run_fast(options.work_dir)
        print(json.dumps({stage: [values[0], values[-1]] for stage, values in losses.items()}))
        return
    unknown = sorted(set(options.stages) - set(STAGES))
    if unknown:
        parser.error(f"unknown stage {unknown[0]!r}; the stages are {', '.join(STAGES)}")
    budget = Budget()
    if options.minutes is not None:
        if len(options.stages) != 1:
            parser.error("--minutes needs exactly one stage")
        stage = options.stages[0]
        fields = {"unet": "unet_two"}.get(stage, stage)
        budget = replace(budget, **{fields: options.minutes})
    run = Run(options.work_dir, options.target, budget, options.processes, options.prompts)
    for stage in options.stages:
        action: Callable[[], None] = getattr(run, stage)
        action()


if __name__ == "__main__":
    main()
