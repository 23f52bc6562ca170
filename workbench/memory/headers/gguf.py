"""Tensors and metadata of ``.gguf`` files. Source: ggml/docs/gguf.md."""

from __future__ import annotations

import itertools
import math
import mmap
import struct
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from workbench.memory.headers.base import WeightsHeader, broken, kind_of_tensor
from workbench.memory.headers.ggml_types import GGML_TYPES

_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q"}
_SCALARS[12] = "d"
_STRING, _ARRAY = 8, 9
# Far above any real file. A header that claims more is broken: nothing is read or allocated
# because a header says so.
_MOST_KEYS, _MOST_TENSORS, _MOST_STRINGS = 2**16, 2**18, 2**23
_MOST_NAME_BYTES = 2**12
# longer texts (chat templates, licences) and arrays (vocabularies) say nothing about memory
_LONGEST_FACT_BYTES, _LONGEST_FACT_VALUES = 256, 1024
_DEFAULT_ALIGNMENT = 32
# Found by loading one block of each type on an x86-64 processor with AVX2 (the build of
# xllamacpp): every other type is computed with as it is mapped.
_REPACKED = {"Q4_0", "Q4_K", "IQ4_NL", "MXFP4"}


class _Tensor(NamedTuple):
    name: str
    shape: tuple[int, ...]
    ggml_type: int
    offset: int


def read_gguf(path: Path) -> WeightsHeader:
    """Bytes of all tensors by type and kind, and the metadata.

    Facts are scalars as they are, short arrays of numbers (one a layer) as lists, other arrays
    (vocabularies) as their length; long texts are left out. Four facts are added:

    * ``file_bytes``, ``tensor_count``, and ``layer_bytes``, the tensors of each block;
    * ``repacked_bytes``: what llama.cpp copies into another order on this kind of processor;
    * ``mapped_bytes``: what of the file it keeps mapped after that, from the first tensor that
      is used as it is to the end of the last. Norms lie between the blocks, so in most files
      that is nearly everything, and a repacked model is in memory twice.

    Raises UserInputError for a file that is cut off or a header that lies.
    """
    stat = path.stat()
    return _read(path, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=64)
def _read(path: Path, size: int, changed_ns: int) -> WeightsHeader:
    if size < 4:
        raise broken(path, "it does not start with GGUF")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        found = parse_gguf(path, data, size)
    if found is None:
        raise broken(path, "it ends inside its header")
    return found


def parse_gguf(path: Path | str, data: bytes | mmap.mmap, size: int) -> WeightsHeader | None:
    """The same from the first bytes, ``data``, of a file of ``size`` bytes.

    None: they end inside the header. Raises UserInputError.
    """
    reader = _Reader(path, data, size)
    try:
        facts, tensors = reader.header()
    except (struct.error, OverflowError):
        return None
    if reader.at > len(data):
        return None
    alignment = facts.get("general.alignment", _DEFAULT_ALIGNMENT)
    if not isinstance(alignment, int) or not 0 < alignment <= 2**20:
        raise broken(path, f"its alignment is {alignment}")
    start = -(-reader.at // alignment) * alignment
    return _summary(path, size, start, facts, tensors)


class _Reader:
    """Reads a header front to back; ``at`` is the next byte."""

    def __init__(self, path: Path | str, data: bytes | mmap.mmap, size: int) -> None:
        self.at = 0
        self._path, self._data, self._size = path, data, size

    def header(self) -> tuple[dict[str, object], list[_Tensor]]:
        """Raises UserInputError, and struct.error where the file ends."""
        if self._data[:4] != b"GGUF":
            raise broken(self._path, "it does not start with GGUF")
        self.at = 4
        version = self._integer("I")
        if version not in (2, 3):
            raise broken(self._path, f"GGUF version {version} is not known")
        tensor_count, key_count = self._count(_MOST_TENSORS), self._count(_MOST_KEYS)
        facts: dict[str, object] = {}
        for _ in range(key_count):
            key = self._name()
            value = self._value(self._integer("I"))
            if value is not None:
                facts[key] = value
        return facts, list(self._tensors(tensor_count))

    def _tensors(self, count: int) -> Iterator[_Tensor]:
        for _ in range(count):
            name = self._name()
            dimensions = self._integer("I")
            if dimensions > 8:
                raise broken(self._path, f"the tensor {name!r} claims {dimensions} dimensions")
            shape = tuple(self._integer("Q") for _ in range(dimensions))
            yield _Tensor(name, shape, self._integer("I"), self._integer("Q"))

    def _value(self, kind: int) -> object:
        if kind == _STRING:
            start, length = self._string()
            if length > _LONGEST_FACT_BYTES:
                return None
            return self._data[start : start + length].decode("utf-8", "replace")
        if kind == _ARRAY:
            return self._array()
        if kind not in _SCALARS:
            raise broken(self._path, f"its header has an unknown value type {kind}")
        (found,) = self._unpack(_SCALARS[kind])
        # JSON has no infinity
        return None if isinstance(found, float) and not math.isfinite(found) else found

    def _array(self) -> object:
        inner = self._integer("I")
        if inner == _STRING:
            length = self._count(_MOST_STRINGS)
            data, unpack, at = self._data, struct.Struct("<Q").unpack_from, self.at
            for _ in range(length):  # vocabularies: the only loop that is long
                at += 8 + unpack(data, at)[0]
            self.at = at
            return length
        if inner not in _SCALARS:
            raise broken(self._path, f"its header has an array of the unknown type {inner}")
        length = self._count(self._size)
        if length <= _LONGEST_FACT_VALUES and inner not in (6, 12):
            return list(self._unpack(f"{length}{_SCALARS[inner]}"))
        self.at += struct.calcsize(_SCALARS[inner]) * length
        return length

    def _name(self) -> str:
        start, length = self._string()
        if length > _MOST_NAME_BYTES:
            raise broken(self._path, f"its header has a name of {length} bytes")
        return self._data[start : start + length].decode("utf-8", "replace")

    def _string(self) -> tuple[int, int]:
        """Where the next string starts, and its bytes; goes to its end."""
        length = self._count(self._size)
        start = self.at
        self.at += length
        if self.at > self._size:
            raise broken(self._path, "it ends inside its header")
        return start, length

    def _count(self, most: int) -> int:
        number = self._integer("Q")
        if number > min(most, self._size):
            raise broken(
                self._path, f"its header claims a length of {number} in {self._size} bytes"
            )
        return number

    def _integer(self, form: str) -> int:
        found = self._unpack(form)[0]
        assert isinstance(found, int)
        return found

    def _unpack(self, form: str) -> tuple[object, ...]:
        found = struct.unpack_from("<" + form, self._data, self.at)
        self.at += struct.calcsize("<" + form)
        return found


def _summary(
    path: Path | str, size: int, start: int, facts: dict[str, object], tensors: list[_Tensor]
) -> WeightsHeader:
    """Adds the tensors up. ``start`` is where the data of the first one begins."""
    by_dtype: dict[str, int] = {}
    by_kind: dict[str, dict[str, int]] = {}
    layers: dict[int, int] = {}
    repacked, first, last = 0, size, start
    tied = all(tensor.name != "output.weight" for tensor in tensors)
    for tensor, (dtype, length) in zip(tensors, _lengths(path, size - start, tensors), strict=True):
        begin = start + tensor.offset
        if begin + length > size:
            raise broken(
                path, f"the tensor {tensor.name!r} ends at byte {begin + length} of {size}"
            )
        by_dtype[dtype] = by_dtype.get(dtype, 0) + length
        kind = by_kind.setdefault(kind_of_tensor(tensor.name, len(tensor.shape)), {})
        kind[dtype] = kind.get(dtype, 0) + length
        block = tensor.name.split(".")[1:2] if tensor.name.startswith("blk.") else []
        if block and block[0].isascii() and block[0].isdigit() and len(block[0]) < 5:
            layers[int(block[0])] = layers.get(int(block[0]), 0) + length
        is_embedding = tensor.name == "token_embd.weight"
        is_copied = dtype in _REPACKED and _can_be_repacked(tensor)
        if is_copied and (tied or not is_embedding):
            repacked += length
        if is_embedding or not is_copied:
            first, last = min(first, begin), max(last, begin + length)
    found = facts | {
        "file_bytes": size,
        "tensor_count": len(tensors),
        "layer_bytes": [layers[number] for number in sorted(layers)],
        "repacked_bytes": repacked,
        "mapped_bytes": max(0, last - first),
    }
    return WeightsHeader(
        weights_bytes=sum(by_dtype.values()),
        bytes_by_dtype=by_dtype,
        facts=found,
        bytes_by_kind=by_kind,
    )


def _can_be_repacked(tensor: _Tensor) -> bool:
    """Matrices that are multiplied with, in groups of 8 rows; experts are three-dimensional.

    Source: ``ggml_repack_get_optimal_repack_type`` and ``extra_buffer_type::supports_op``.
    """
    dimensions = len(tensor.shape)
    return (dimensions == 2 or (dimensions == 3 and "_exps" in tensor.name)) and (
        tensor.shape[1] % 8 == 0
    )


def _lengths(path: Path | str, room: int, tensors: list[_Tensor]) -> Iterator[tuple[str, int]]:
    """Name of the type and bytes of each tensor.

    One of a type that is younger than this table goes up to where the next one begins.
    """
    starts = sorted({tensor.offset for tensor in tensors} | {max(0, room)})
    following = dict(itertools.pairwise(starts))
    for tensor in tensors:
        known = GGML_TYPES.get(tensor.ggml_type)
        if known is None:
            stop = following.get(tensor.offset, tensor.offset)
            yield f"type {tensor.ggml_type}", stop - tensor.offset
            continue
        values = math.prod(tensor.shape)
        row = tensor.shape[0] if tensor.shape else 1
        if row % known.block_values:
            raise broken(
                path, f"the tensor {tensor.name!r} has rows of {row} values in {known.name}"
            )
        yield known.name, values // known.block_values * known.block_bytes
