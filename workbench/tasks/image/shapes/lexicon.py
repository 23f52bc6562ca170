"""The words of the shapes world in English and Vietnamese: names, synonyms and phrases.

In every tuple the first entry is the usual word. Adding a language is adding one `Lexicon` here
and its templates in `captions`.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Lexicon:
    """One language. `markers` are the words that make a colour beside them a background."""

    colours: dict[str, tuple[str, ...]]
    shapes: dict[str, tuple[str, ...]]
    any_shape: tuple[str, ...]
    sizes: dict[str, tuple[str, ...]]
    positions: dict[str, tuple[str, ...]]
    backgrounds: dict[str, tuple[str, ...]]
    background_phrases: tuple[str, ...]
    background_nouns: tuple[str, ...]
    relations: dict[str, tuple[str, ...]]
    sides: dict[str, tuple[str, ...]]
    axis: dict[str, tuple[int, int]]
    markers: frozenset[str]
    prepositions: frozenset[str]
    links: frozenset[str]


def _corner(vertical: str, upper: str, horizontal: str) -> tuple[str, ...]:
    return (
        f"in the {vertical} {horizontal}",
        f"in the {vertical} {horizontal} corner",
        f"at the {vertical} {horizontal}",
        f"in the {upper} {horizontal} corner",
        f"on the {upper} {horizontal}",
    )


def _goc(doc: str, ngang: str) -> tuple[str, ...]:
    return (
        f"ở góc {doc} bên {ngang}",
        f"góc {doc} bên {ngang}",
        f"ở phía {doc} bên {ngang}",
        f"nằm ở góc {doc} {ngang}",
        f"ở góc {ngang} {doc}",
    )


ENGLISH = Lexicon(
    colours={
        "red": ("red", "crimson", "scarlet"),
        "green": ("green", "emerald"),
        "blue": ("blue", "azure"),
        "yellow": ("yellow", "golden"),
        "orange": ("orange", "tangerine"),
        "purple": ("purple", "violet"),
        "pink": ("pink", "rose"),
        "cyan": ("cyan", "turquoise", "teal", "aqua"),
    },
    shapes={
        "circle": ("circle", "disc", "disk", "dot"),
        "square": ("square", "box"),
        "triangle": ("triangle",),
        "cross": ("cross", "plus sign", "plus"),
        "ring": ("ring", "hoop", "donut"),
        "heart": ("heart", "heart shape"),
    },
    any_shape=("shape", "object", "figure", "thing"),
    sizes={
        "small": ("small", "tiny", "little", "mini"),
        "large": ("large", "big", "huge", "giant"),
    },
    positions={
        "top left": _corner("top", "upper", "left"),
        "top": ("at the top", "near the top", "at the top edge", "in the upper part"),
        "top right": _corner("top", "upper", "right"),
        "left": ("on the left", "on the left side", "at the left", "at the left edge"),
        "center": ("in the center", "in the middle", "at the center", "in the centre"),
        "right": ("on the right", "on the right side", "at the right", "at the right edge"),
        "bottom left": _corner("bottom", "lower", "left"),
        "bottom": ("at the bottom", "near the bottom", "at the bottom edge", "in the lower part"),
        "bottom right": _corner("bottom", "lower", "right"),
    },
    backgrounds={
        "white": ("white",),
        "black": ("black",),
        "gray": ("gray", "grey"),
        "navy": ("navy", "navy blue", "dark blue"),
    },
    background_phrases=(
        "on a {} background",
        "on a {} background",
        "against a {} background",
        "over a {} background",
        "with a {} background",
        "on {}",
        "on a {} backdrop",
        "on a plain {} background",
    ),
    background_nouns=("{} background", "a {} background", "{} backdrop", "a plain {} background"),
    relations={
        "left of": ("to the left of", "left of", "on the left of"),
        "right of": ("to the right of", "right of", "on the right of"),
        "above": ("above", "over", "on top of"),
        "below": ("below", "under", "beneath", "underneath"),
    },
    sides={
        "left of": ("on the left", "on the left side"),
        "right of": ("on the right", "on the right side"),
        "above": ("at the top", "on top"),
        "below": ("at the bottom", "below"),
    },
    axis={
        "left": (-1, 0),
        "right": (1, 0),
        "top": (0, -1),
        "upper": (0, -1),
        "above": (0, -1),
        "over": (0, -1),
        "bottom": (0, 1),
        "lower": (0, 1),
        "below": (0, 1),
        "under": (0, 1),
        "beneath": (0, 1),
        "underneath": (0, 1),
        "center": (0, 0),
        "centre": (0, 0),
        "middle": (0, 0),
        "centered": (0, 0),
    },
    markers=frozenset({"background", "backdrop", "canvas", "behind", "around", "ground"}),
    prepositions=frozenset({"on", "against", "over", "with", "in"}),
    links=frozenset(
        {"a", "the", "is", "plain", "solid", "all", "should", "be", "it", "simple", "and", "of"}
    ),
)

VIETNAMESE = Lexicon(
    colours={
        "red": ("đỏ", "đỏ tươi"),
        "green": ("xanh lá", "xanh lá cây", "xanh lục"),
        "blue": ("xanh dương", "xanh lam", "xanh da trời", "xanh nước biển"),
        "yellow": ("vàng",),
        "orange": ("cam",),
        "purple": ("tím",),
        "pink": ("hồng",),
        "cyan": ("xanh ngọc", "xanh lơ"),
    },
    shapes={
        "circle": ("hình tròn", "chấm tròn", "đĩa tròn"),
        "square": ("hình vuông", "ô vuông"),
        "triangle": ("hình tam giác", "tam giác"),
        "cross": ("hình chữ thập", "dấu cộng", "chữ thập"),
        "ring": ("hình nhẫn", "chiếc nhẫn", "hình vành khuyên"),
        "heart": ("hình trái tim", "trái tim"),
    },
    any_shape=("hình", "vật thể", "đồ vật"),
    sizes={
        "small": ("nhỏ", "bé", "nhỏ xíu", "cỡ nhỏ"),
        "large": ("lớn", "to", "khổng lồ", "cỡ lớn"),
    },
    positions={
        "top left": _goc("trên", "trái"),
        "top": ("ở phía trên", "ở trên cùng", "nằm phía trên", "ở cạnh trên"),
        "top right": _goc("trên", "phải"),
        "left": ("ở bên trái", "bên trái", "nằm bên trái", "ở phía bên trái"),
        "center": ("ở giữa", "ở chính giữa", "nằm ở trung tâm", "ở trung tâm"),
        "right": ("ở bên phải", "bên phải", "nằm bên phải", "ở phía bên phải"),
        "bottom left": _goc("dưới", "trái"),
        "bottom": ("ở phía dưới", "ở dưới cùng", "nằm phía dưới", "ở cạnh dưới"),
        "bottom right": _goc("dưới", "phải"),
    },
    backgrounds={
        "white": ("trắng",),
        "black": ("đen",),
        "gray": ("xám",),
        "navy": ("xanh đậm", "xanh than", "xanh navy"),
    },
    background_phrases=(
        "trên nền {}",
        "trên nền {}",
        "trên nền màu {}",
        "với nền {}",
        "trên phông nền {}",
        "có nền màu {}",
    ),
    background_nouns=("nền {}", "nền màu {}", "phông nền {}"),
    relations={
        "left of": ("ở bên trái", "bên trái", "nằm bên trái", "ở phía bên trái"),
        "right of": ("ở bên phải", "bên phải", "nằm bên phải", "ở phía bên phải"),
        "above": ("ở trên", "phía trên", "nằm trên", "ở phía trên"),
        "below": ("ở dưới", "phía dưới", "nằm dưới", "bên dưới"),
    },
    sides={
        "left of": ("ở bên trái", "bên trái"),
        "right of": ("ở bên phải", "bên phải"),
        "above": ("ở trên", "phía trên"),
        "below": ("ở dưới", "phía dưới"),
    },
    axis={
        "trái": (-1, 0),
        "phải": (1, 0),
        "trên": (0, -1),
        "dưới": (0, 1),
        "giữa": (0, 0),
        "trung tâm": (0, 0),
    },
    markers=frozenset({"nền", "phông", "sau"}),
    prepositions=frozenset({"trên", "với"}),
    links=frozenset({"màu", "là", "có", "một", "phía", "toàn", "thì"}),
)

LEXICONS: dict[str, Lexicon] = {"en": ENGLISH, "vi": VIETNAMESE}
