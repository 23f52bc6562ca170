"""Scores a picture against a scene by analysis through synthesis: no learnt parts, no threshold
to tune per model.

The background is the median of the border, objects are connected regions that differ from it, a
colour is the nearest of the palette, and a shape is the template that overlaps best when every
shape is drawn at the region's centroid and area.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from itertools import permutations

import numpy as np
import numpy.typing as npt

from workbench.tasks.image.shapes.render import (
    CENTRE_PX,
    OFFSET_PX,
    RADIUS_PX,
    SIDE_PX,
    coverage,
)
from workbench.tasks.image.shapes.scene import (
    BACKGROUNDS,
    COLOURS,
    POSITIONS,
    RELATIONS,
    SHAPES,
    Scene,
    Thing,
)

Floats = npt.NDArray[np.float32]

OBJECT_CONTRAST = 55.0  # RGB distance from the background; the closest palette pair is 116 apart
SMALLEST_OBJECT_PX = 6
SHAPE_IOU = 0.6  # a blob fits some template best too: below this overlap no shape is accepted
_RADIUS_FACTORS = (0.92, 1.0, 1.08)


@dataclass(frozen=True)
class CheckResult:
    """Which attributes are right; None means that the scene does not say it.

    `soft_iou` is the overlap (0..1) with the ideal template of the shape asked for (of the best
    shape where none is asked for), averaged over the things of the scene.
    """

    background: bool | None
    count: bool
    colour: bool | None
    shape: bool | None
    size: bool | None
    position: bool | None
    relation: bool | None
    soft_iou: float

    @property
    def all_right(self) -> bool:
        """Whether everything that the scene says is in the picture, and nothing more."""
        return all(
            right is not False
            for right in (
                self.background,
                self.count,
                self.colour,
                self.shape,
                self.size,
                self.position,
                self.relation,
            )
        )


@dataclass(frozen=True)
class Found:
    """One object seen in a picture; centre and radius in px of its best template."""

    colour: str
    shape: str
    x_px: float
    y_px: float
    radius_px: float
    iou: dict[str, float]  # best overlap per shape

    @property
    def size(self) -> str:
        """The nearer of the two nominal radii, on a ratio scale."""
        return min(RADIUS_PX, key=lambda size: abs(np.log(self.radius_px / RADIUS_PX[size])))

    @property
    def position(self) -> str:
        """The nearest of the nine places for a thing of this size."""
        offset_px = OFFSET_PX[self.size]

        def away(name: str) -> float:
            column, row = POSITIONS[name]
            return float(
                np.hypot(
                    self.x_px - CENTRE_PX - column * offset_px,
                    self.y_px - CENTRE_PX - row * offset_px,
                )
            )

        return min(POSITIONS, key=away)


def soft_iou(one: npt.ArrayLike, other: npt.ArrayLike) -> float:
    """Sum of minima over sum of maxima of two coverage maps of equal shape, in 0..1."""
    a, b = np.asarray(one, np.float32), np.asarray(other, np.float32)
    union = float(np.maximum(a, b).sum())
    return float(np.minimum(a, b).sum()) / union if union else 1.0


@cache
def _unit(shape: str) -> tuple[float, float]:
    """Area and y offset of the centroid of `shape` at radius 1 (x is symmetric)."""
    radius_px = 12.0
    centre = np.array([CENTRE_PX], np.float32)
    cover = coverage(shape, centre, centre, np.array([radius_px], np.float32))[0]
    area = float(cover.sum())
    rows = np.arange(SIDE_PX, dtype=np.float32)
    y = float((cover.sum(1) * rows).sum()) / area - CENTRE_PX
    return area / radius_px**2, y / radius_px


def _regions(mask: npt.NDArray[np.bool_]) -> list[npt.NDArray[np.bool_]]:
    """4-connected regions of (32, 32), largest first, specks left out."""
    todo = {(int(y), int(x)) for y, x in np.argwhere(mask)}
    regions = []
    while todo:
        edge = [todo.pop()]
        seen = list(edge)
        while edge:
            y, x = edge.pop()
            for near in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
                if near in todo:
                    todo.remove(near)
                    edge.append(near)
                    seen.append(near)
        if len(seen) >= SMALLEST_OBJECT_PX:
            region = np.zeros_like(mask)
            region[tuple(np.array(seen).T)] = True
            regions.append(region)
    return sorted(regions, key=lambda region: -int(region.sum()))


def _grown(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """The mask and its 8 neighbours."""
    padded = np.pad(mask, 1)
    rows = padded[:-2] | padded[1:-1] | padded[2:]
    return rows[:, :-2] | rows[:, 1:-1] | rows[:, 2:]


def nearest_colour(rgb: npt.ArrayLike, palette: dict[str, tuple[int, int, int]]) -> str:
    """The name in `palette` with the smallest RGB distance."""
    names = list(palette)
    table = np.array([palette[name] for name in names], np.float32)
    return names[int(np.argmin(((table - np.asarray(rgb, np.float32)) ** 2).sum(1)))]


def _describe(picture: Floats, ground: Floats, region: npt.NDArray[np.bool_]) -> Found:
    distance = np.sqrt(((picture - ground) ** 2).sum(-1))
    # Edge pixels are mixtures with the background, so the colour comes from the core.
    core = region & (distance >= 0.85 * np.percentile(distance[region], 90))
    rgb = np.median(picture[core], axis=0)
    axis = rgb - ground
    alpha = np.clip((picture - ground) @ axis / float(axis @ axis), 0.0, 1.0)
    alpha = np.where(_grown(region), alpha, 0.0).astype(np.float32)
    area = float(alpha.sum())
    grid = np.arange(SIDE_PX, dtype=np.float32)
    x = float((alpha.sum(0) * grid).sum()) / area
    y = float((alpha.sum(1) * grid).sum()) / area
    iou: dict[str, float] = {}
    places: dict[str, tuple[float, float]] = {}
    for shape in SHAPES:
        unit_area, unit_y = _unit(shape)
        radii = np.array(_RADIUS_FACTORS, np.float32) * np.sqrt(area / unit_area)
        covers = coverage(shape, np.full_like(radii, x), y - radii * unit_y, radii)
        overlaps = [soft_iou(alpha, cover) for cover in covers]
        best = int(np.argmax(overlaps))
        iou[shape] = overlaps[best]
        places[shape] = (y - float(radii[best]) * unit_y, float(radii[best]))
    shape = max(iou, key=lambda name: iou[name])
    return Found(nearest_colour(rgb, COLOURS), shape, x, *places[shape], iou)


def look(image: npt.NDArray[np.uint8]) -> tuple[str, list[Found]]:
    """Background name and objects (largest first) of a picture (32, 32, 3) uint8."""
    if image.shape != (SIDE_PX, SIDE_PX, 3):
        raise ValueError(f"expected a picture of {(SIDE_PX, SIDE_PX, 3)}, got {image.shape}")
    picture = image.astype(np.float32)
    border = np.concatenate([picture[0], picture[-1], picture[1:-1, 0], picture[1:-1, -1]])
    ground = np.median(border, axis=0).astype(np.float32)
    differs = np.sqrt(((picture - ground) ** 2).sum(-1)) > OBJECT_CONTRAST
    things = [_describe(picture, ground, region) for region in _regions(differs)]
    return nearest_colour(ground, BACKGROUNDS), things


def _every(rights: Iterable[bool | None]) -> bool | None:
    """Whether all that is said is right; None when nothing is said."""
    said = [right for right in rights if right is not None]
    return all(said) if said else None


def _same(asked: str | None, seen: str) -> bool | None:
    return None if asked is None else asked == seen


def _shape_right(thing: Thing, found: Found) -> bool | None:
    if thing.shape is None:
        return None
    return found.shape == thing.shape and found.iou[thing.shape] >= SHAPE_IOU


def _relation_right(relation: str, first: Found, second: Found) -> bool:
    column, row = RELATIONS[relation]
    dx, dy = first.x_px - second.x_px, first.y_px - second.y_px
    along, across = (dx * column, abs(dy)) if column else (dy * row, abs(dx))
    return along > across


def check(image: npt.NDArray[np.uint8], scene: Scene) -> CheckResult:
    """Compares a picture (32, 32, 3) uint8 with what `scene` says.

    Two found objects are matched to the things of the scene in the way that makes most
    attributes right; a missing object makes every attribute of its thing wrong.
    """
    background, found = look(image)
    results = []
    wanted = len(scene.things)
    nothing = Found("none", "none", -1.0, -1.0, 1e-3, dict.fromkeys(SHAPES, 0.0))
    shown = (found + [nothing] * wanted)[:wanted]
    for order in permutations(shown):
        pairs = list(zip(scene.things, order, strict=True))
        overlap = [f.iou[t.shape] if t.shape else max(f.iou.values()) for t, f in pairs]
        results.append(
            CheckResult(
                background=_same(scene.background, background),
                count=len(found) == wanted,
                colour=_every(_same(t.colour, f.colour) for t, f in pairs),
                shape=_every(_shape_right(t, f) for t, f in pairs),
                size=_every(_same(t.size, f.size) for t, f in pairs),
                position=_every(_same(t.position, f.position) for t, f in pairs),
                relation=(
                    _relation_right(scene.relation, order[0], order[1])
                    if scene.relation and len(order) == 2
                    else None
                ),
                soft_iou=float(np.mean(overlap)) if overlap else 0.0,
            )
        )

    def rights(result: CheckResult) -> int:
        return sum(
            right is True for right in (result.colour, result.shape, result.relation, result.size)
        )

    return max(results, key=rights)
