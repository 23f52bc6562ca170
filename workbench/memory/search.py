"""Which way of loading a model to choose: every allowed one is weighed, and what fits is ranked.

The order is by predicted time, and by quality where the times are alike: from the fastest one on,
all that take up to `TIME_BAND` times as long form a band, in which the better quality comes first;
the next band begins with the fastest of the rest. So the first is never more than a tenth slower
than the fastest that fits, and a larger budget never gives a slower choice, but for one of better
quality in that same tenth. Memory only breaks ties: what fits, fits.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, fields, replace

from workbench.memory.cost import PredictedTime, layer_count, predicted_time
from workbench.memory.devices import Budget
from workbench.memory.estimate import estimate
from workbench.memory.facts import ModelFacts
from workbench.memory.formats import quality_loss
from workbench.memory.history import corrected
from workbench.memory.machine import Machine
from workbench.memory.matrix import candidates, device_kind, why_not
from workbench.memory.request import LoadOptions, RequestSize
from workbench.memory.terms import Estimate

TIME_BAND = 1.1


@dataclass(frozen=True)
class Weighed:
    """One way of loading and one request: what they take, and how much of it is not there.

    ``raw`` is the estimate as it was before anything learned from runs, ``found`` after it and
    without what this process holds already. ``missing_bytes`` and ``host_missing_bytes`` are 0
    where the upper bound is within the budget.
    """

    options: LoadOptions
    size: RequestSize
    raw: Estimate
    found: Estimate
    time: PredictedTime
    loss: tuple[int, int, int]
    missing_bytes: int
    host_missing_bytes: int

    @property
    def fits(self) -> bool:
        return not self.missing_bytes and not self.host_missing_bytes

    @property
    def departures(self) -> int:
        """In how many options it differs from the engine's defaults."""
        plain = LoadOptions(device=self.options.device)
        return sum(
            getattr(self.options, f.name) != getattr(plain, f.name) for f in fields(LoadOptions)
        )


@dataclass(frozen=True)
class Scales:
    """What candidates are weighed with: the model, the budgets and the machine."""

    facts: ModelFacts
    budget: Budget
    host: Budget | None
    machine: Machine
    held_engines: Collection[str] = ()

    def weigh(self, options: LoadOptions, size: RequestSize) -> Weighed:
        """Estimate one candidate and compare it with the budgets."""
        raw = estimate(self.facts, options, size, self.machine)
        found = corrected(raw, device_kind(options.device))
        if self.facts.engine in self.held_engines:
            found = _without_context(found)
        host_missing = 0
        if self.host is not None:
            host_missing = host_upper_bytes(found) - self.host.available_bytes
        return Weighed(
            options=options,
            size=size,
            raw=raw,
            found=found,
            time=predicted_time(self.facts, options, size, self.machine),
            loss=quality_loss(self.facts, options),
            missing_bytes=max(0, found.upper_bytes - self.budget.available_bytes),
            host_missing_bytes=max(0, host_missing),
        )

    def refusal(self, options: LoadOptions) -> str | None:
        """Why the matrix does not allow ``options``; None when it does."""
        return why_not(self.facts.engine, self.facts.task, options)

    def allowed(
        self, options: LoadOptions, size: RequestSize, fixed: Collection[str] = ()
    ) -> Iterator[Weighed]:
        """Every allowed candidate that agrees with ``options`` where the caller fixed them.

        Fixed is what differs from the default, and the fields named in ``fixed``.
        """
        plain = LoadOptions(device=options.device)
        kept = {
            f.name: getattr(options, f.name)
            for f in fields(LoadOptions)
            if f.name in fixed or getattr(options, f.name) != getattr(plain, f.name)
        }
        tried = set()
        for candidate in candidates(self.facts.engine, self.facts.task, options.device):
            chosen = replace(candidate, **kept)
            if chosen in tried or self.refusal(chosen) is not None:
                continue
            tried.add(chosen)
            yield from self._with_layers(self.weigh(chosen, size), "gpu_layers" in kept)

    def _with_layers(self, found: Weighed, is_fixed: bool) -> Iterator[Weighed]:
        """Beside a llama.cpp model that is too large for a GPU: as many layers as fit there."""
        yield found
        layers = layer_count(self.facts)
        is_split = self.facts.engine == "llama_cpp" and device_kind(found.options.device) != "cpu"
        if is_fixed or not is_split or found.fits or not layers:
            return
        lowest, highest = 0, layers + 1  # the output layer counts as one more
        best = self.weigh(replace(found.options, gpu_layers=0), found.size)
        while highest - lowest > 1:
            middle = (lowest + highest) // 2
            tried = self.weigh(replace(found.options, gpu_layers=middle), found.size)
            if tried.fits:
                lowest, best = middle, tried
            else:
                highest = middle
        yield best


def ranked(candidates_found: Iterable[Weighed]) -> list[Weighed]:
    """What fits in the order of the module's docstring, then the rest by what is missing."""
    everything = list(candidates_found)
    left = sorted((c for c in everything if c.fits), key=lambda c: (c.time.seconds, _ties(c)))
    order: list[Weighed] = []
    while left:
        limit = left[0].time.seconds * TIME_BAND
        band = [c for c in left if c.time.seconds <= limit]
        order += sorted(band, key=lambda c: (c.loss, c.time.seconds, _ties(c)))
        left = left[len(band) :]
    rest = [c for c in everything if not c.fits]
    return order + sorted(
        rest, key=lambda c: (c.missing_bytes + c.host_missing_bytes, c.time.seconds, _ties(c))
    )


def host_upper_bytes(found: Estimate) -> int:
    """What waits in host memory while the rest is on another device, at most."""
    return sum(term.upper_bytes for term in found.host)


# -- inside ----------------------------------------------------------------------------------


def _ties(candidate: Weighed) -> tuple[int, int, str]:
    """Fewer departures from the defaults, then less memory, then the same order every time."""
    return candidate.departures, candidate.found.upper_bytes, repr(candidate.options)


def _without_context(found: Estimate) -> Estimate:
    """The engine's libraries are in the process already: what is free is without them."""
    resident = tuple(
        term.model_copy(
            update={"size_bytes": 0, "upper_bytes": 0, "provenance": "in this process already"}
        )
        if term.name == "context"
        else term
        for term in found.resident
    )
    return found.model_copy(update={"resident": resident})
