"""Whisper in CTranslate2."""

from __future__ import annotations

from workbench.memory.estimate.weights import DTYPE_BYTES
from workbench.memory.facts import ModelFacts
from workbench.memory.machine import MIB, Machine
from workbench.memory.request import LoadOptions, RequestSize
from workbench.memory.terms import Estimate, Phase, about


def estimate(
    facts: ModelFacts, options: LoadOptions, size: RequestSize, machine: Machine
) -> Estimate:
    """Weights in the compute type stay; activations are live while it transcribes."""
    model = facts.component("model")
    dtype = options.compute_type or facts.options.get("compute_type") or "int8"
    # the starters are stored in float16; CTranslate2 converts when it loads
    weights = model.weights.weights_bytes * DTYPE_BYTES.get(dtype, 4) // 2
    return Estimate(
        family=f"ctranslate2/whisper/{dtype}",
        resident=(
            about("context", machine.context_bytes["ctranslate2"], 0.1, machine.name),
            about("weights", weights, 0.25, "CTranslate2 file"),
        ),
        phases=(Phase(name="decode", terms=(about("activations", 80 * MIB, 1.0, "measured"),)),),
    )
