"""Predicts the peak of a model and one request, phase by phase. One module an engine.

A module has one function::

    def estimate(
        facts: ModelFacts, options: LoadOptions, size: RequestSize, machine: Machine
    ) -> Estimate

It is arithmetic on what headers and configurations say; nothing is loaded and no runtime is
imported. The unit is the memory of the whole process, so the engine's own libraries are a term.
"""

from __future__ import annotations

import importlib
import importlib.util

from workbench.memory.facts import ModelFacts
from workbench.memory.machine import Machine
from workbench.memory.request import LoadOptions, RequestSize
from workbench.memory.terms import Estimate, Phase, about


def estimate(
    facts: ModelFacts, options: LoadOptions, size: RequestSize, machine: Machine
) -> Estimate:
    """The estimate of the engine's own module; a wide one for an engine without a module."""
    name = f"workbench.memory.estimate.{facts.engine}"
    if importlib.util.find_spec(name) is None:
        weights = about("weights", facts.weights_bytes, 1.0, f"no estimator for {facts.engine}")
        phase = Phase(name="run", terms=(about("activations", 0, 0.0, "not known"),))
        return Estimate(family=facts.engine, resident=(weights,), phases=(phase,), is_known=False)
    module = importlib.import_module(name)
    found: Estimate = module.estimate(facts, options, size, machine)
    return found
