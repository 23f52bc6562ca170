"""Whisper's own way to make English texts comparable, as transformers ships it.

Known limits: transformers does not ship Whisper's list of British spellings, so ``colour`` and
``color`` differ; and digits spoken one by one become one number (``one oh one`` -> ``101``),
which makes one word of a long digit string.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache


def normalize_english(text: str) -> str:
    """``"Mr. Smith won't pay twenty dollars!"`` -> ``"mister smith will not pay $20"``.

    The first call imports transformers (seconds). Source: Radford et al., "Robust Speech
    Recognition via Large-Scale Weak Supervision", appendix C.
    """
    return _normalizer()(text)


@lru_cache(maxsize=1)
def _normalizer() -> Callable[[str], str]:
    from transformers.models.whisper.english_normalizer import EnglishTextNormalizer

    normalizer: Callable[[str], str] = EnglishTextNormalizer({})
    return normalizer
