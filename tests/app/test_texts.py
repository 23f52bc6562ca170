"""Every text exists in both languages, says the same values, and is used."""

from __future__ import annotations

import re
from pathlib import Path
from string import Formatter

import pytest

import apps
from apps.texts import TEXTS, text

_SOURCES = sorted(Path(apps.__file__).parent.glob("*.py"))
_CODE = "\n".join(path.read_text() for path in _SOURCES if path.name != "texts.py").replace(
    "'", '"'
)
#: Words that are the same in Vietnamese.
_SAME = {"page.title", "page.sql"}


def fields(form: str) -> set[str]:
    return {name for _, name, _, _ in Formatter().parse(form) if name}


@pytest.mark.parametrize("key", TEXTS)
def test_a_text_is_complete_in_both_languages(key: str) -> None:
    english, vietnamese = TEXTS[key]
    assert english.strip() and vietnamese.strip()
    assert fields(english) == fields(vietnamese)
    assert (english == vietnamese) == (key in _SAME)
    assert text(key, "en").startswith(english[:1]) and text(key, "vi")[:1] == vietnamese[:1]


def test_every_key_in_the_code_is_a_text() -> None:
    prefixes = {key.partition(".")[0] for key in TEXTS}
    found = set(re.findall(rf'"((?:{"|".join(sorted(prefixes))})\.[a-z_]+)"', _CODE))
    assert found <= TEXTS.keys()


def test_every_text_is_used() -> None:
    computed = {"sql.phase_", "models.", "speech."}  # f"models.{name}" and the like
    unused = {
        key
        for key in TEXTS
        if f'"{key}"' not in _CODE
        and not any(key.startswith(p) and f'f"{p}{{' in _CODE for p in computed)
    }
    assert not unused


def test_values_are_filled_in() -> None:
    assert text("sql.rows", "vi", count=3, seconds=0.5) == "Số dòng: 3 · 0.50 giây"
