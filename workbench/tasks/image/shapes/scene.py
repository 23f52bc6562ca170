"""The vocabulary of the shapes world and the scenes that it can express.

Knows nothing of pixels (`render`), words (`captions`) or scores (`checker`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

# RGB. Object and background colours are disjoint, so "white" in a prompt can only be a background.
COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (220, 40, 40),
    "green": (40, 160, 60),
    "blue": (45, 90, 230),
    "yellow": (245, 215, 50),
    "orange": (245, 140, 30),
    "purple": (140, 60, 190),
    "pink": (245, 130, 190),
    "cyan": (50, 205, 220),
}
BACKGROUNDS: dict[str, tuple[int, int, int]] = {
    "white": (245, 245, 245),
    "black": (12, 12, 12),
    "gray": (128, 128, 128),
    "navy": (22, 30, 84),
}
SHAPES: tuple[str, ...] = ("circle", "square", "triangle", "cross", "ring", "heart")
SIZES: tuple[str, ...] = ("small", "large")
# Column and row of each position, -1, 0 or 1, with y growing downwards.
POSITIONS: dict[str, tuple[int, int]] = {
    "top left": (-1, -1),
    "top": (0, -1),
    "top right": (1, -1),
    "left": (-1, 0),
    "center": (0, 0),
    "right": (1, 0),
    "bottom left": (-1, 1),
    "bottom": (0, 1),
    "bottom right": (1, 1),
}
# Where the first thing is, seen from the second.
RELATIONS: dict[str, tuple[int, int]] = {
    "left of": (-1, 0),
    "right of": (1, 0),
    "above": (0, -1),
    "below": (0, 1),
}
INVERSE: dict[str, str] = {
    "left of": "right of",
    "right of": "left of",
    "above": "below",
    "below": "above",
}
# Never drawn in training: they measure whether colour and shape were learnt as separate ideas.
HELD_OUT: frozenset[tuple[str, str]] = frozenset(
    {
        ("green", "heart"),
        ("purple", "square"),
        ("orange", "ring"),
        ("cyan", "triangle"),
        ("yellow", "cross"),
        ("pink", "circle"),
    }
)
_T = TypeVar("_T")
_ALL_PAIRS = tuple((colour, shape) for colour in COLOURS for shape in SHAPES)
_TRAINED_PAIRS = tuple(pair for pair in _ALL_PAIRS if pair not in HELD_OUT)
_HELD_OUT_PAIRS = tuple(sorted(HELD_OUT))


@dataclass(frozen=True)
class Thing:
    """One object. None means "not said": such an attribute is not scored."""

    colour: str | None = None
    shape: str | None = None
    size: str | None = None
    position: str | None = None


@dataclass(frozen=True)
class Scene:
    """One thing, or two things with a relation (then without sizes and positions)."""

    things: tuple[Thing, ...]
    background: str | None = None
    relation: str | None = None

    def canonical(self) -> Scene:
        """The same scene told from its left or upper thing, so that equal scenes compare equal.

        Two things without a relation are sorted by name.
        """
        if len(self.things) == 2 and self.relation is None:
            ordered = sorted(self.things, key=lambda thing: (thing.colour or "", thing.shape or ""))
            return replace(self, things=tuple(ordered))
        if self.relation in ("right of", "below"):
            return replace(self, things=self.things[::-1], relation=INVERSE[self.relation])
        return self

    @property
    def is_complete(self) -> bool:
        """Whether everything that drawing needs is said."""
        if self.background is None or not self.things:
            return False
        if any(thing.colour is None or thing.shape is None for thing in self.things):
            return False
        if len(self.things) == 1:
            return self.things[0].size is not None and self.things[0].position is not None
        return self.relation is not None


def _pick(rng: np.random.Generator, options: Sequence[_T]) -> _T:
    return options[int(rng.integers(len(options)))]


_COLOUR_NAMES, _BACKGROUND_NAMES = tuple(COLOURS), tuple(BACKGROUNDS)
_POSITION_NAMES, _RELATION_NAMES = tuple(POSITIONS), tuple(RELATIONS)


def sample_scene(rng: np.random.Generator, things: int = 1, held_out: bool = False) -> Scene:
    """A complete random scene of one or two things.

    With `held_out` one of the things (chosen by chance when there are two) has a colour-shape
    pair of `HELD_OUT`; without it none has. Two things never share a colour.
    """
    background = _pick(rng, _BACKGROUND_NAMES)
    pair = _pick(rng, _HELD_OUT_PAIRS if held_out else _TRAINED_PAIRS)
    if things == 1:
        size, position = _pick(rng, SIZES), _pick(rng, _POSITION_NAMES)
        return Scene((Thing(*pair, size, position),), background)
    other = pair
    while other[0] == pair[0]:
        other = _pick(rng, _TRAINED_PAIRS)
    both = (Thing(*pair), Thing(*other))
    if rng.random() < 0.5:
        both = both[::-1]
    return Scene(both, background, _pick(rng, _RELATION_NAMES))


def forget(scene: Scene, rng: np.random.Generator) -> Scene:
    """The scene with some attributes left unsaid, as people write prompts.

    Size, position and background are often left out, colour or shape of a single thing rarely.
    """
    background = None if rng.random() < 0.35 else scene.background
    if len(scene.things) == 2:
        relation = None if rng.random() < 0.08 else scene.relation
        return replace(scene, background=background, relation=relation)
    thing = scene.things[0]
    colour, shape = thing.colour, thing.shape
    chance = rng.random()
    if chance < 0.05:
        colour = None
    elif chance < 0.10:
        shape = None
    size = None if rng.random() < 0.45 else thing.size
    position = None if rng.random() < 0.45 else thing.position
    return Scene((Thing(colour, shape, size, position),), background)
