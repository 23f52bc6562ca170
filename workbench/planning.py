"""`workbench.plan`: whether a model fits here, before anything is loaded."""

from __future__ import annotations

from workbench.engines.pool import default_pool
from workbench.errors import UserInputError
from workbench.memory.devices import Budget
from workbench.memory.facts import read_facts
from workbench.memory.plan import MemoryPlan, plan_model
from workbench.memory.request import LoadOptions
from workbench.models import get, sources
from workbench.units import parse_bytes


def plan(
    model: str,
    memory: str | None = None,
    *,
    context_tokens: int | None = None,
    compute_type: str | None = None,
) -> MemoryPlan:
    """Predict the memory of ``model`` and say whether it fits.

    ``memory`` is a budget such as ``"8GiB"``; None: what is free here, idle models counted as
    free. Raises UnknownModel, ModelMissing, UserInputError.
    """
    if context_tokens is not None and context_tokens < 1:
        raise UserInputError("The context must be at least 1 token.", "Give a positive number.")
    spec = get(model)
    if spec.is_remote:
        raise UserInputError(
            f"The model {spec.id} runs at its provider.", "It takes no memory here; just use it."
        )
    options = LoadOptions(context_tokens=context_tokens, compute_type=compute_type)
    if memory is None:
        return default_pool().plan(spec, options)
    given = Budget("cpu", parse_bytes(memory), f"the budget given is {memory}")
    return plan_model(read_facts(spec, sources.require(spec)), given, options)
