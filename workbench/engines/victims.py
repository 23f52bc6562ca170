"""Which idle models to free: enough memory at the least cost of loading them again."""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Iterable
from dataclasses import dataclass

#: Up to so many models every set of them is looked at (2^12); beyond, the cheapest per byte.
_EXACT = 12
#: Seconds of idleness after which it is half as likely that a model is wanted again.
_HALF_LIFE_SECONDS = 120.0
#: What loading costs beside reading: without it, two small models would differ by noise alone.
_LOAD_SECONDS = 0.05


@dataclass(frozen=True)
class Victim:
    """An idle model as a candidate for eviction."""

    key: Hashable
    freed_bytes: int
    load_seconds: float
    idle_seconds: float

    @property
    def cost_seconds(self) -> float:
        """Seconds that its eviction will cost: those of a reload, times how likely that is."""
        recency: float = 0.5 ** (self.idle_seconds / _HALF_LIFE_SECONDS)
        return (_LOAD_SECONDS + self.load_seconds) * recency


def choose_victims(idle: Iterable[Victim], missing_bytes: int) -> tuple[Victim, ...] | None:
    """The cheapest set that frees ``missing_bytes``; None: all of them are not enough.

    Of two sets that cost the same, the one that frees less.
    """
    models = [victim for victim in idle if victim.freed_bytes > 0]
    if sum(victim.freed_bytes for victim in models) < missing_bytes:
        return None
    if len(models) > _EXACT:
        return _greedy(models, missing_bytes)
    sets = itertools.chain.from_iterable(
        itertools.combinations(models, count) for count in range(len(models) + 1)
    )
    enough = (chosen for chosen in sets if _freed(chosen) >= missing_bytes)
    return min(enough, key=lambda chosen: (_cost(chosen), _freed(chosen)))


def _greedy(models: list[Victim], missing_bytes: int) -> tuple[Victim, ...]:
    chosen: list[Victim] = []
    for victim in sorted(models, key=lambda v: v.cost_seconds / v.freed_bytes):
        if _freed(chosen) >= missing_bytes:
            break
        chosen.append(victim)
    for victim in sorted(chosen, key=lambda v: -v.cost_seconds):
        if _freed(chosen) - victim.freed_bytes >= missing_bytes:  # a later one made it needless
            chosen.remove(victim)
    return tuple(chosen)


def _freed(chosen: Iterable[Victim]) -> int:
    return sum(victim.freed_bytes for victim in chosen)


def _cost(chosen: Iterable[Victim]) -> float:
    return sum(victim.cost_seconds for victim in chosen)
