"""Scenes in words: English and Vietnamese captions, and three disjoint sets of wordings.

`TRAINED` templates are what the starter model learns from; `UNSEEN` ones are never used in
training and measure whether it understands people who write differently, and so do the `SEALED`
ones, which did not exist before the training was over. `parse` reads the first two.

Slots: {t} the thing, {p} its position, {b} a background phrase, {B} a background noun, {c} the
background's colour word; for two things {s} and {o} are the things, {r} the relation, and {i} and
{j} the sides they are on. A template belongs to the scenes that say exactly its slots.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Literal

import numpy as np

from workbench.tasks.image.shapes.lexicon import LEXICONS, Lexicon
from workbench.tasks.image.shapes.scene import INVERSE, Scene, Thing

Language = Literal["en", "vi"]
Wording = Literal["trained", "unseen", "sealed"]

PREFIXES: dict[Language, tuple[str, ...]] = {
    "en": (
        "a picture of",
        "an image of",
        "a drawing of",
        "a photo of",
        "a simple picture showing",
        "an icon of",
        "draw",
        "draw me",
        "show me",
        "show",
        "make",
        "create",
        "render",
        "generate",
        "paint",
        "there is",
        "this is",
        "here is",
        "we see",
        "i want",
        "can you make",
        "make a picture with",
    ),
    "vi": (
        "vẽ",
        "vẽ cho tôi",
        "hình ảnh",
        "bức tranh có",
        "một bức ảnh về",
        "tạo",
        "tạo ra",
        "cho xem",
        "đây là",
        "tôi cần",
        "một bức vẽ",
        "trong ảnh có",
    ),
}
ENDINGS: dict[Language, tuple[str, ...]] = {
    "en": (".", "!", ", simple", ", flat design", ", high quality", ", nothing else", " now"),
    "vi": (".", "!", ", đơn giản", ", đẹp", ", chất lượng cao", " nhé"),
}
TRAINED: dict[Language, tuple[str, ...]] = {
    "en": (
        "{t}",
        "just {t}",
        "only {t} here",
        "{t} {p}",
        "{p} {t}",
        "{p}, {t}",
        "{t}, {p}",
        "{t} placed {p}",
        "{t} is {p}",
        "{p} there is {t}",
        "{t} {b}",
        "{t}, {B}",
        "{B}, {t}",
        "{B} with {t}",
        "{t} and {B}",
        "{t}. the background is {c}",
        "{t} is shown {b}",
        "{t} drawn {b}",
        "{t} {p} {b}",
        "{t} {b} {p}",
        "{t}, {p}, {b}",
        "{t}, {b}, {p}",
        "{p} {t} {b}",
        "{B}, {t} {p}",
        "{B} with {t} {p}",
        "{B}, {p} {t}",
        "{B} and {p} {t}",
        "{p} {t}, {B}",
        "{t} placed {p}, {B}",
        "{t} is {p} {b}",
        "{t} {p}. the background is {c}",
        "{s} {r} {o}",
        "{s} is {r} {o}",
        "{s} placed {r} {o}",
        "{r} {o} is {s}",
        "{r} {o} there is {s}",
        "{s} {i} and {o} {j}",
        "{i} {s}, {j} {o}",
        "{s} {r} {o} {b}",
        "{s} {r} {o}, {B}",
        "{B}, {s} {r} {o}",
        "{B} with {s} {r} {o}",
        "{s} is {r} {o} {b}",
        "{s} {r} {o}. the background is {c}",
        "{r} {o} is {s} {b}",
        "{r} {o} we see {s} {b}",
        "{r} {o} there is {s}, {B}",
        "{s} {i} and {o} {j} {b}",
        "{i} {s}, {j} {o}, {B}",
        "{s} and {o}",
        "{s} and {o} {b}",
        "{B}, {s} and {o}",
    ),
    "vi": (
        "{t}",
        "chỉ có {t}",
        "{t} {p}",
        "{t}, {p}",
        "{p} là {t}",
        "{p}, {t}",
        "{t} được đặt {p}",
        "{t} {b}",
        "{t}, {B}",
        "{B}, {t}",
        "{B} với {t}",
        "{t} và {B}",
        "{t}. nền là màu {c}",
        "{t} được vẽ {b}",
        "{t} {p} {b}",
        "{t} {b} {p}",
        "{t}, {p}, {b}",
        "{B}, {t} {p}",
        "{B} với {t} {p}",
        "{t} {p}, {B}",
        "{t} được đặt {p} {b}",
        "{p} là {t}, {B}",
        "{s} {r} {o}",
        "{s} được đặt {r} {o}",
        "{s} {i} và {o} {j}",
        "{i} là {s}, {j} là {o}",
        "{s} {r} {o} {b}",
        "{s} {r} {o}, {B}",
        "{B}, {s} {r} {o}",
        "{B} với {s} {r} {o}",
        "{s} {i} và {o} {j} {b}",
        "{i} là {s}, {j} là {o}, {B}",
        "{s} và {o}",
        "{s} và {o} {b}",
    ),
}
UNSEEN: dict[Language, tuple[str, ...]] = {
    "en": (
        "please draw {t}",
        "i'd like to see {t}",
        "could you sketch {t} for my son",
        "what would {t} look like?",
        "please draw {t} {p}",
        "i'd like to see {t} {p}",
        "we need an illustration of {t}, put it {p}",
        "look {p}: you will find {t}",
        "please draw {t} {b}",
        "on a {c} background there is {t}",
        "i'd like to see {t} {b}",
        "could you sketch {t} {b} for my daughter",
        "the background should be {c}, and add {t}",
        "a minimalist poster: {t} {b}",
        "please draw {t} {p} {b}",
        "on a {c} background there is {t} {p}",
        "i'd like to see {t} {b} and it goes {p}",
        "on a {c} background, {p}, sits {t}",
        "give me {t} that appears {p} {b}",
        "the background should be {c} and {p} i need {t}",
        "my kid asked for {t} {p} {b}, thanks",
        "please draw {s} {r} {o}",
        "i'd like to see {s} {r} {o}",
        "could you sketch {s} that sits {r} {o}",
        "put {s} {r} {o}, will you",
        "please draw {s} {r} {o} {b}",
        "on a {c} background there is {s} {r} {o}",
        "i'd like to see {s} {r} {o} {b}",
        "a minimalist poster: {s} {r} {o} {b}",
        "the background should be {c}, put {s} {r} {o}",
        "please draw {s} together with {o}",
        "please draw {s} together with {o} {b}",
    ),
    "vi": (
        "làm ơn vẽ giúp mình {t}",
        "mình muốn nhìn thấy {t}",
        "bạn vẽ được {t} không?",
        "làm ơn vẽ giúp mình {t} {p}",
        "mình muốn nhìn thấy {t} {p}",
        "minh họa {t}, hãy để nó {p}",
        "làm ơn vẽ giúp mình {t} {b}",
        "trên nền {c} có {t}",
        "mình muốn nhìn thấy {t} {b}",
        "hãy phác họa {t} {b} cho con gái tôi",
        "nền thì màu {c}, thêm {t}",
        "làm ơn vẽ giúp mình {t} {p} {b}",
        "trên nền {c} có {t} {p}",
        "mình muốn nhìn thấy {t} {p} {b}",
        "hãy phác họa {t} {b}, nó {p}",
        "bạn vẽ được {t} {p} {b} không?",
        "làm ơn vẽ giúp mình {s} {r} {o}",
        "mình muốn nhìn thấy {s} {r} {o}",
        "hãy phác họa {s} {r} {o} cho con gái tôi",
        "làm ơn vẽ giúp mình {s} {r} {o} {b}",
        "trên nền {c} có {s} {r} {o}",
        "mình muốn nhìn thấy {s} {r} {o} {b}",
        "làm ơn vẽ giúp mình {s} cùng với {o}",
        "làm ơn vẽ giúp mình {s} cùng với {o} {b}",
    ),
}
# Written when the training was over and the weights were final; complete scenes only.
SEALED: dict[Language, tuple[str, ...]] = {
    "en": (
        "would you kindly produce {t} {p} {b}?",
        "our new logo: {t} {b}, {p}",
        "once upon a time there lived {t} {p} {b}",
        "hey! {t}, {p}, on {c} paper",
        "i was thinking of {t} with {c} behind it, located {p}",
        "compose a scene where {t} rests {p}; use {c} as the backdrop colour",
        "would you kindly produce {s} {r} {o} {b}?",
        "hey! {s} {r} {o}, on {c} paper",
        "compose a scene where {s} rests {r} {o}; use {c} as the backdrop colour",
        "i was thinking of {s} {r} {o} with {c} behind them",
    ),
    "vi": (
        "cậu thử họa {t} {p} {b} xem nào",
        "ước gì có {t} {p} {b}",
        "logo mới của quán: {t} {p} {b}",
        "ngày xưa có {t} sống {p} {b}",
        "cậu thử họa {s} {r} {o} {b} xem nào",
        "ước gì có {s} {r} {o} {b}",
    ),
}
TEMPLATES: dict[Wording, dict[Language, tuple[str, ...]]] = {
    "trained": TRAINED,
    "unseen": UNSEEN,
    "sealed": SEALED,
}


def slots(template: str) -> tuple[bool, bool, bool, bool]:
    """What a template says: (two things, position, background, relation)."""
    return (
        "{s}" in template,
        "{p}" in template,
        any(slot in template for slot in ("{b}", "{B}", "{c}")),
        "{r}" in template or "{i}" in template,
    )


@cache
def _fitting(
    language: Language, wording: Wording, said: tuple[bool, bool, bool, bool]
) -> tuple[str, ...]:
    return tuple(t for t in TEMPLATES[wording][language] if slots(t) == said)


def _pick(rng: np.random.Generator, options: Sequence[str], usual: float = 0.0) -> str:
    """One option; the first with chance `usual`, else all alike."""
    if rng.random() < usual:
        return options[0]
    return options[int(rng.integers(len(options)))]


def _english_thing(thing: Thing, words: Lexicon, rng: np.random.Generator) -> list[str]:
    colour = [_pick(rng, words.colours[thing.colour], 0.7)] if thing.colour else []
    shape = [_pick(rng, words.shapes[thing.shape] if thing.shape else words.any_shape, 0.7)]
    size = [_pick(rng, words.sizes[thing.size], 0.4)] if thing.size else []
    form = rng.random()
    if form < 0.05 and colour:
        return [*shape, ",", *colour, *([",", *size] if size else [])]
    if form < 0.12 and colour:
        core = [*size, *shape, "in", *colour]
    elif form < 0.17 and colour:
        core = [*size, *shape, "that is", *colour]
    elif form < 0.22 and size:
        core = [*colour, *shape, "that is", *size]
    elif form < 0.27 and colour:
        core = [*size, *colour, "colored", *shape]
    elif form < 0.35:
        core = [*colour, *size, *shape]
    else:
        core = [*size, *colour, *shape]
    article = "an" if core[0][0] in "aeiou" else "a"
    chance = rng.random()
    if chance < 0.65:
        return [article, *core]
    return core if chance < 0.87 else [("one" if chance < 0.94 else "the"), *core]


def _vietnamese_thing(thing: Thing, words: Lexicon, rng: np.random.Generator) -> list[str]:
    colour = [_pick(rng, words.colours[thing.colour], 0.6)] if thing.colour else []
    shape = [_pick(rng, words.shapes[thing.shape] if thing.shape else words.any_shape, 0.6)]
    size = [_pick(rng, words.sizes[thing.size], 0.4)] if thing.size else []
    if colour:
        chance = rng.random()
        colour = (["màu"] if chance < 0.7 else ["có màu"] if chance < 0.78 else []) + colour
    core = [*shape, *colour, *size] if rng.random() < 0.4 else [*shape, *size, *colour]
    chance = rng.random()
    return core if chance < 0.3 else [("một" if chance < 0.92 else "1"), *core]


def caption_units(
    scene: Scene,
    rng: np.random.Generator,
    language: Language = "en",
    wording: Wording = "trained",
) -> list[str]:
    """A caption as a list of phrases that belong together; joined by `join` it is the text.

    Between two units a stray word does no harm, which is what training inserts.
    """
    words = LEXICONS[language]
    two = len(scene.things) == 2
    if two and scene.relation and rng.random() < 0.5:
        scene = Scene(scene.things[::-1], scene.background, INVERSE[scene.relation])
    first = scene.things[0]
    said = (two, first.position is not None, scene.background is not None, bool(scene.relation))
    template = _pick(rng, _fitting(language, wording, said))
    write = _english_thing if language == "en" else _vietnamese_thing
    fill: dict[str, list[str]] = {"{t}": write(first, words, rng)}
    if two:
        fill["{s}"], fill["{o}"] = fill["{t}"], write(scene.things[1], words, rng)
    if first.position:
        fill["{p}"] = [_pick(rng, words.positions[first.position], 0.3)]
    if scene.relation:
        fill["{r}"] = [_pick(rng, words.relations[scene.relation], 0.3)]
        fill["{i}"] = [_pick(rng, words.sides[scene.relation], 0.5)]
        fill["{j}"] = [_pick(rng, words.sides[INVERSE[scene.relation]], 0.5)]
    if scene.background:
        name = _pick(rng, words.backgrounds[scene.background], 0.6)
        fill["{b}"] = [_pick(rng, words.background_phrases).format(name)]
        fill["{B}"] = [_pick(rng, words.background_nouns).format(name)]
        fill["{c}"] = [name]
    units: list[str] = []
    opens = template.startswith(("{t}", "{s}"))
    if wording == "trained" and opens and rng.random() < 0.45:
        units.append(_pick(rng, PREFIXES[language]))
    for piece in template.split():
        slot = piece[:3]
        if slot in fill:
            units += fill[slot]
            units += [piece[3:]] if piece[3:] else []
        else:
            units.append(piece)
    if wording == "trained" and rng.random() < 0.15:
        units.append(_pick(rng, ENDINGS[language]))
    return units


def join(units: Sequence[str]) -> str:
    """The text of caption units: spaces, but none before punctuation."""
    text = " ".join(units)
    for mark in (",", ".", "!", "?", ":"):
        text = text.replace(f" {mark}", mark)
    return " ".join(text.split())


def caption(
    scene: Scene,
    rng: np.random.Generator,
    language: Language = "en",
    wording: Wording = "trained",
) -> str:
    """One of the many ways to say `scene`; attributes that are None are not mentioned."""
    return join(caption_units(scene, rng, language, wording))
