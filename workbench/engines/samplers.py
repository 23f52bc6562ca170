"""Samplers by the names that AUTOMATIC1111's web UI gave them. Data only: imports no runtime.

Source: the table in diffusers' documentation, api/schedulers/overview. "DPM++ SDE" asks the
single-step solver for its stochastic form, which that table leaves out; "DDIM", "PLMS" and
"UniPC" are not samplers of k-diffusion and name their scheduler directly.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

from workbench.errors import UnknownOption


@dataclass(frozen=True)
class Sampler:
    """A name, the diffusers scheduler behind it, and the settings that make it that sampler."""

    name: str
    scheduler: str
    settings: dict[str, Any] = field(default_factory=dict)


# A model's own configuration may switch on any spacing: each name states the one it means.
_PLAIN = {"use_karras_sigmas": False, "use_exponential_sigmas": False, "use_beta_sigmas": False}
_KARRAS = {**_PLAIN, "use_karras_sigmas": True}
_ODE = {"algorithm_type": "dpmsolver++", "solver_order": 2}
_SDE = {"algorithm_type": "sde-dpmsolver++", "solver_order": 2}
# without it the single-step solver accepts even numbers of steps only
_ANY_STEPS = {"lower_order_final": True}

SAMPLERS: tuple[Sampler, ...] = (
    Sampler("DPM++ 2M", "DPMSolverMultistepScheduler", {**_ODE, **_PLAIN}),
    Sampler("DPM++ 2M Karras", "DPMSolverMultistepScheduler", {**_ODE, **_KARRAS}),
    Sampler("DPM++ 2M SDE", "DPMSolverMultistepScheduler", {**_SDE, **_PLAIN}),
    Sampler("DPM++ 2M SDE Karras", "DPMSolverMultistepScheduler", {**_SDE, **_KARRAS}),
    Sampler("DPM++ SDE", "DPMSolverSinglestepScheduler", {**_SDE, **_PLAIN, **_ANY_STEPS}),
    Sampler("DPM++ SDE Karras", "DPMSolverSinglestepScheduler", {**_SDE, **_KARRAS, **_ANY_STEPS}),
    Sampler("Euler", "EulerDiscreteScheduler", _PLAIN),
    Sampler("Euler a", "EulerAncestralDiscreteScheduler"),
    Sampler("Heun", "HeunDiscreteScheduler", _PLAIN),
    Sampler("LMS", "LMSDiscreteScheduler", _PLAIN),
    Sampler("LMS Karras", "LMSDiscreteScheduler", _KARRAS),
    Sampler("DPM2", "KDPM2DiscreteScheduler", _PLAIN),
    Sampler("DPM2 Karras", "KDPM2DiscreteScheduler", _KARRAS),
    Sampler("DPM2 a", "KDPM2AncestralDiscreteScheduler", _PLAIN),
    Sampler("DPM2 a Karras", "KDPM2AncestralDiscreteScheduler", _KARRAS),
    Sampler("DDIM", "DDIMScheduler"),
    Sampler("PLMS", "PNDMScheduler", {"skip_prk_steps": True}),
    Sampler("UniPC", "UniPCMultistepScheduler", _PLAIN),
    # for models trained on flow matching (Flux, Stable Diffusion 3)
    Sampler("Euler", "FlowMatchEulerDiscreteScheduler"),
)

#: Samplers of the web UI that diffusers has no scheduler for.
NO_EQUIVALENT = ("DPM++ 2S a", "DPM++ 2S a Karras", "DPM adaptive", "DPM fast")


def find_sampler(name: str, schedulers: Collection[str]) -> Sampler:
    """The sampler called ``name`` among those whose scheduler class is in ``schedulers``.

    Raises UnknownOption with the closest names and all that there are.
    """
    possible = {row.name: row for row in SAMPLERS if row.scheduler in schedulers}
    if name in possible:
        return possible[name]
    if name in NO_EQUIVALENT:
        problem = f"The sampler {name!r} has no equivalent in diffusers."
    elif name in {row.name for row in SAMPLERS}:
        problem = f"The sampler {name!r} does not suit this model."
    else:
        problem = f"There is no sampler {name!r}."
    lowered = {known.lower(): known for known in possible}
    near = [lowered[key] for key in difflib.get_close_matches(name.lower(), lowered, n=3)]
    hint = f"Did you mean {' or '.join(map(repr, near))}? " if near else ""
    raise UnknownOption(problem, f"{hint}Use one of: {', '.join(possible)}.")
