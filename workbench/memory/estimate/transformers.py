"""Models in transformers."""

from __future__ import annotations

from workbench.memory.estimate.weights import cast_bytes
from workbench.memory.facts import ModelFacts
from workbench.memory.machine import MIB, Machine
from workbench.memory.request import LoadOptions, RequestSize
from workbench.memory.terms import Estimate, Phase, about


def estimate(
    facts: ModelFacts, options: LoadOptions, size: RequestSize, machine: Machine
) -> Estimate:
    """Weights stay; activations are live while it computes."""
    dtype = options.compute_type or facts.options.get("compute_type") or facts.dtype
    weights = sum(cast_bytes(component.weights, dtype) for component in facts.components)
    return Estimate(
        family=f"transformers/{facts.components[0].architecture}/{dtype}",
        resident=(
            about("context", machine.context_bytes["transformers"], 0.1, machine.name),
            about("weights", weights, 0.25, "safetensors headers"),
        ),
        phases=(Phase(name="run", terms=(about("activations", 20 * MIB, 1.0, "measured"),)),),
    )
