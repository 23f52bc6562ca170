"""How the pool asks whether a model fits: candidates, best first. Loads nothing."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from workbench.engines import registry
from workbench.engines.facts import known_facts
from workbench.memory.devices import Budget
from workbench.memory.machine import get_machine
from workbench.memory.plan import MemoryPlan, plan_model, rank_plans
from workbench.memory.request import LoadOptions, RequestSize
from workbench.models.spec import ModelSpec
from workbench.settings import get_settings


@dataclass(frozen=True)
class Candidate:
    """One way to load a model, and the plan that goes with it."""

    options: LoadOptions
    plan: MemoryPlan


class Planner(Protocol):
    """Says what a model takes. The pool decides with it."""

    def candidates(
        self, spec: ModelSpec, path: Path, options: LoadOptions, size: RequestSize, budget: Budget
    ) -> Iterator[Candidate]:
        """Ways to load ``spec`` that respect ``options``: the default, then cheaper ones."""

    def loaded(
        self, spec: ModelSpec, path: Path, options: LoadOptions, size: RequestSize, budget: Budget
    ) -> MemoryPlan:
        """The plan of exactly ``options``: what a request of ``size`` makes of a loaded model."""


class FilePlanner:
    """Plans with what the model's files say."""

    def candidates(
        self, spec: ModelSpec, path: Path, options: LoadOptions, size: RequestSize, budget: Budget
    ) -> Iterator[Candidate]:
        """The default first; the ranking is computed only if somebody asks for a second one."""
        first = self.loaded(spec, path, options, size, budget)
        yield Candidate(options, first)
        facts = known_facts(spec, path)
        ranked = rank_plans(
            facts, budget, options, size, get_machine(), held_engines(spec, options)
        )
        for plan in ranked:
            if plan.options != first.options:
                yield Candidate(plan.options, plan)

    def loaded(
        self, spec: ModelSpec, path: Path, options: LoadOptions, size: RequestSize, budget: Budget
    ) -> MemoryPlan:
        """One plan, with the context left out where the engine is imported already."""
        facts = known_facts(spec, path)
        held = held_engines(spec, options)
        return plan_model(facts, budget, options, size, get_machine(), held)


def held_engines(spec: ModelSpec, options: LoadOptions) -> frozenset[str]:
    """The engine of ``spec``, if this process has imported it: its context is paid for."""
    engine = registry.ENGINES.get(spec.engine)
    if engine is None or options.device != "cpu" or spec.engine in get_settings().memory.isolate:
        return frozenset()
    # the last import is the one that has all the others behind it
    paid = bool(engine.imports) and engine.imports[-1] in sys.modules
    return frozenset({spec.engine}) if paid else frozenset()
