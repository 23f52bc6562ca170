"""What every training stage shares: a time budget, moving averages, logs and checkpoints."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch


class Clock:
    """Processor time of one stage that survives restarts: a resumed stage continues its budget.

    Not wall time: on a shared machine that would train less the busier the others are.
    """

    def __init__(self, budget_seconds: float, spent_seconds: float = 0.0) -> None:
        self.budget_seconds = budget_seconds
        self._started = time.process_time() - spent_seconds

    @property
    def spent_seconds(self) -> float:
        """Seconds of training so far, all runs together."""
        return time.process_time() - self._started

    @property
    def fraction(self) -> float:
        """Spent part of the budget, 0..1."""
        return min(1.0, self.spent_seconds / self.budget_seconds)


def no_change() -> None:
    """The usual `gradients` of `Progress.descend`: one process has nothing to average."""


def learning_rate(peak: float, step: int, fraction: float, warmup: int, hold: float) -> float:
    """Linear warm-up over `warmup` steps, constant until `hold` of the budget, then a cosine.

    It ends at 2 % of the peak. Driven by the spent budget, not by a step count, because the
    machine may be shared and the number of steps that fit is unknown beforehand.
    """
    ramp = min(1.0, (step + 1) / warmup)
    if fraction <= hold:
        return peak * ramp
    along = (fraction - hold) / (1.0 - hold)
    return peak * ramp * (0.02 + 0.98 * 0.5 * (1.0 + math.cos(math.pi * along)))


class Average:
    """Exponential moving average of a module's parameters, with a ramp for the first steps."""

    def __init__(self, module: torch.nn.Module, decay: float) -> None:
        self.decay = decay
        self.steps = 0
        self.values = {k: v.detach().clone() for k, v in module.state_dict().items()}

    @torch.no_grad()
    def update(self, module: torch.nn.Module) -> None:
        """Moves the average towards the module's present weights."""
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        current = module.state_dict()
        floats = [k for k, v in self.values.items() if v.is_floating_point()]
        torch._foreach_lerp_(
            [self.values[k] for k in floats], [current[k].detach() for k in floats], 1.0 - decay
        )

    def state(self) -> dict[str, Any]:
        """What a checkpoint needs."""
        return {"steps": self.steps, "values": self.values}

    def load(self, state: dict[str, Any]) -> None:
        """Continues from `state`."""
        self.steps, self.values = state["steps"], state["values"]


def save(path: Path, value: Any) -> None:
    """Writes a checkpoint so that a kill leaves either the old or the new file, never half."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    torch.save(value, partial)
    partial.replace(path)


class Progress:
    """Steps, losses, clock and checkpoint of one stage; starts where an earlier run was killed."""

    def __init__(
        self,
        checkpoint: Path,
        minutes: float,
        model: torch.nn.Module,
        optimiser: torch.optim.Optimizer,
        average: Average | None = None,
    ) -> None:
        self._checkpoint = checkpoint
        self._model, self._optimiser, self._average = model, optimiser, average
        self.step = 0
        self.losses: list[float] = []
        spent_seconds = 0.0
        if checkpoint.exists():
            state = torch.load(checkpoint, weights_only=True)
            model.load_state_dict(state["model"])
            optimiser.load_state_dict(state["optimiser"])
            if average:
                average.load(state["average"])
            self.step, spent_seconds = state["step"], state["spent"]
        self.clock = Clock(minutes * 60, spent_seconds)
        self._saved_seconds = spent_seconds

    def descend(self, loss: torch.Tensor, rate: float, gradients: Callable[[], None]) -> None:
        """One optimiser step at learning rate `rate`; `gradients` may change them before."""
        for group in self._optimiser.param_groups:
            group["lr"] = rate
        self._optimiser.zero_grad()
        loss.backward()
        gradients()
        torch.nn.utils.clip_grad_norm_(self._model.parameters(), 1.0)
        self._optimiser.step()
        if self._average:
            self._average.update(self._model)
        self.step += 1
        self.losses.append(float(loss.detach()))

    def recent(self, steps: int) -> float:
        """Mean loss of the last steps."""
        last = self.losses[-steps:]
        return round(sum(last) / len(last), 5)

    def save_if_due(self, every_seconds: float = 60.0) -> bool:
        """Writes the checkpoint when the last one is old enough; says whether it did."""
        spent = self.clock.spent_seconds
        if spent - self._saved_seconds < every_seconds:
            return False
        self._saved_seconds = spent
        save(
            self._checkpoint,
            {
                "model": self._model.state_dict(),
                "optimiser": self._optimiser.state_dict(),
                "average": self._average.state() if self._average else None,
                "step": self.step,
                "spent": spent,
            },
        )
        return True


class Log:
    """Appends one JSON object per line and echoes it; a resumed run appends to the same file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)

    def __call__(self, stage: str, **values: Any) -> None:
        line = json.dumps({"stage": stage, **values})
        with self.path.open("a") as file:
            file.write(line + "\n")
        print(line, flush=True)
