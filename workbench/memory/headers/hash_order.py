"""The order in which CTranslate2 converts weights: that of libstdc++'s table of their names.

It matters for the peak of loading: what is still as it was stored while the largest weight is
converted depends on whose turn came before. The order is fixed by the names. Builds with another
C++ library (macOS, Windows) have another order.
"""

from __future__ import annotations

from collections.abc import Iterable

_MASK = 2**64 - 1
_MULTIPLIER = (0xC6A4A793 << 32) + 0x5BD1E995
_SEED = 0xC70F6907
#: Bucket counts of a table that grows by itself; the first is that of an empty one.
#: Source: ``__prime_list`` and ``_Prime_rehash_policy`` of libstdc++.
_BUCKETS = (1, 13, 29, 59, 127, 257, 541, 1109, 2357, 5087, 10273, 20753, 42043, 85229, 172933)


def unordered_map_order(names: Iterable[str]) -> list[str]:
    """Iteration order of a ``std::unordered_map`` into which ``names`` were inserted in turn.

    A new bucket goes to the front of the list, a new name to the front of its bucket; growing
    inserts all again, which turns the order round. Raises IndexError beyond 172933 names.
    """
    size = 0
    table: dict[int, list[tuple[str, int]]] = {}
    for count, name in enumerate(names, start=1):
        if count > _BUCKETS[size] or size == 0:
            size += 1
            grown: dict[int, list[tuple[str, int]]] = {}
            for entry in _walk(table):
                grown.setdefault(entry[1] % _BUCKETS[size], []).append(entry)
            table = grown
        code = hash_bytes(name.encode())
        table.setdefault(code % _BUCKETS[size], []).append((name, code))
    return [name for name, _ in _walk(table)]


def _walk(table: dict[int, list[tuple[str, int]]]) -> list[tuple[str, int]]:
    return [entry for bucket in reversed(table.values()) for entry in reversed(bucket)]


def hash_bytes(data: bytes) -> int:
    """``std::hash<std::string>`` of libstdc++ on 64 bits. Source: ``_Hash_bytes`` (MurmurHash2)."""

    def mix(value: int) -> int:
        return value ^ (value >> 47)

    found = _SEED ^ (len(data) * _MULTIPLIER & _MASK)
    whole = len(data) & ~7
    for at in range(0, whole, 8):
        word = int.from_bytes(data[at : at + 8], "little")
        found = (found ^ (mix(word * _MULTIPLIER & _MASK) * _MULTIPLIER & _MASK)) * _MULTIPLIER
        found &= _MASK
    if whole < len(data):
        found = (found ^ int.from_bytes(data[whole:], "little")) * _MULTIPLIER & _MASK
    return mix(mix(found) * _MULTIPLIER & _MASK)
