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
    """The diffusers scheduler class behind a name, and the settings that make it that sampler."""

    scheduler: str
    settings: dict[str, Any] = field(default_factory=dict)


# A model's own configuration may switch on any spacing: each name states the one it means.
_PLAIN = {"use_karras_sigmas": False, "use_exponential_sigmas": False, "use_beta_sigmas": False}
_KARRAS = {**_PLAIN, "use_karras_sigmas": True}
_ODE = {"algorithm_type": "dpmsolver++", "solver_order": 2}
_SDE = {"algorithm_type": "sde-dpmsolver++", "solver_order": 2}
# without it the single-step solver accepts even numbers of steps only
_ANY_STEPS = {"lower_order_final": True}

SAMPLERS: dict[str, Sampler] = {
    "DPM++ 2M": Sampler("DPMSolverMultistepScheduler", {**_ODE, **_PLAIN}),
    "DPM++ 2M Karras": Sampler("DPMSolverMultistepScheduler", {**_ODE, **_KARRAS}),
    "DPM++ 2M SDE": Sampler("DPMSolverMultistepScheduler", {**_SDE, **_PLAIN}),
    "DPM++ 2M SDE Karras": Sampler("DPMSolverMultistepScheduler", {**_SDE, **_KARRAS}),
    "DPM++ SDE": Sampler("DPMSolverSinglestepScheduler", {**_SDE, **_PLAIN, **_ANY_STEPS}),
    "DPM++ SDE Karras": Sampler("DPMSolverSinglestepScheduler", {**_SDE, **_KARRAS, **_ANY_STEPS}),
    "Euler": Sampler("EulerDiscreteScheduler", _PLAIN),
    "Euler a": Sampler("EulerAncestralDiscreteScheduler"),
    "Heun": Sampler("HeunDiscreteScheduler", _PLAIN),
    "LMS": Sampler("LMSDiscreteScheduler", _PLAIN),
    "LMS Karras": Sampler("LMSDiscreteScheduler", _KARRAS),
    "DPM2": Sampler("KDPM2DiscreteScheduler", _PLAIN),
    "DPM2 Karras": Sampler("KDPM2DiscreteScheduler", _KARRAS),
    "DPM2 a": Sampler("KDPM2AncestralDiscreteScheduler", _PLAIN),
    "DPM2 a Karras": Sampler("KDPM2AncestralDiscreteScheduler", _KARRAS),
    "DDIM": Sampler("DDIMScheduler"),
    "PLMS": Sampler("PNDMScheduler", {"skip_prk_steps": True}),
    "UniPC": Sampler("UniPCMultistepScheduler", _PLAIN),
}

#: The same names for models trained by flow matching (Flux, Stable Diffusion 3).
FLOW_SAMPLERS: dict[str, Sampler] = {"Euler": Sampler("FlowMatchEulerDiscreteScheduler")}

#: Samplers of the web UI that diffusers has no scheduler for.
NO_EQUIVALENT = ("DPM++ 2S a", "DPM++ 2S a Karras", "DPM adaptive", "DPM fast")


def find_sampler(name: str, schedulers: Collection[str]) -> Sampler:
    """The sampler called ``name`` among those whose scheduler class is in ``schedulers``.

    Raises UnknownOption with the closest names and all that there are.
    """
    possible = {
        known: sampler
        for table in (SAMPLERS, FLOW_SAMPLERS)
        for known, sampler in table.items()
        if sampler.scheduler in schedulers
    }
    if name in possible:
        return possible[name]
    if name in NO_EQUIVALENT:
        problem = f"The sampler {name!r} has no equivalent in diffusers."
    elif name in SAMPLERS:
        problem = f"The sampler {name!r} does not suit this model."
    else:
        problem = f"There is no sampler {name!r}."
    lowered = {known.lower(): known for known in possible}
    near = [lowered[key] for key in difflib.get_close_matches(name.lower(), lowered, n=3)]
    hint = f"Did you mean {' or '.join(map(repr, near))}? " if near else ""
    raise UnknownOption(problem, f"{hint}Use one of: {', '.join(possible)}.")
