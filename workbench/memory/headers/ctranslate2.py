"""The variable table of a CTranslate2 ``model.bin``: every weight's name, shape and dtype.

Layout (little endian; source: ``ModelSpec._serialize`` of CTranslate2): version u32, spec name,
revision u32, number of variables u32; each variable: name, rank u8, dimensions u32, dtype u8,
bytes u32, data; number of aliases u32, each two names. A name is a length u16 that counts the
zero byte at its end.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from workbench.memory.headers.base import WeightsHeader, broken
from workbench.memory.headers.hash_order import unordered_map_order

#: The order of CTranslate2's DataType, under the names that safetensors uses.
_DTYPES = (("F32", 4), ("I8", 1), ("I16", 2), ("I32", 4), ("F16", 2), ("BF16", 2))
_VERSIONS = range(4, 7)  # before 4 there are no dtypes; Whisper came with 6
_MAX_RANK = 8
_TABLE_LIMIT = 100_000


@dataclass(frozen=True)
class Variable:
    """One entry of the table. A scalar has the shape ``()``."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    size_bytes: int

    @property
    def kind(self) -> str:
        """What CTranslate2 does with it when it loads: the names decide there too.

        ``linear`` and ``embedding`` are quantized, the rest is only cast; ``scale`` belongs to
        weights that are stored quantized. Source: ``WhisperModel::is_quantizable``.
        """
        last = self.name.rpartition("/")[2]
        if last.endswith("_scale"):
            return "scale"
        if not last.endswith("weight") or not self.shape:
            return "other"
        if "conv" in self.name:
            return "conv"
        return "embedding" if "embeddings" in self.name else "linear"


def read_ctranslate2(path: Path) -> WeightsHeader:
    """Bytes by kind and dtype of ``model.bin``, and the model's dimensions.

    ``facts`` has ``spec``, ``revision``, ``linear_rows`` and ``embedding_rows`` (output rows of
    the weights that int8 quantizes: one scale each), ``quantized_first`` and ``cast_first``
    (values that CTranslate2 converts before the embeddings, when it quantizes) and, for Whisper,
    `whisper_dimensions`.
    Raises UserInputError for a truncated file or a table that lies.
    """
    by_dtype: dict[str, int] = {}
    by_kind: dict[str, dict[str, int]] = {}
    rows = {"linear": 0, "embedding": 0}
    found: dict[str, Variable] = {}
    with path.open("rb") as file:
        table = _Table(path, file)
        for variable in table.variables():
            size_bytes, dtype, kind = variable.size_bytes, variable.dtype, variable.kind
            by_dtype[dtype] = by_dtype.get(dtype, 0) + size_bytes
            total = by_kind.setdefault(kind, {})
            total[dtype] = total.get(dtype, 0) + size_bytes
            if kind in rows:
                rows[kind] += variable.shape[0]
            found[variable.name] = variable
    facts: dict[str, object] = {
        "format": "CTranslate2",
        "spec": table.spec,
        "revision": table.revision,
        "variables": len(found),
        "aliases": table.aliases,
        "linear_rows": rows["linear"],
        "embedding_rows": rows["embedding"],
        **_values_before_embeddings(found),
    }
    if table.spec == "WhisperSpec":
        shapes = {name: variable.shape for name, variable in found.items()}
        facts |= whisper_dimensions(path, shapes, table.scalars)
    return WeightsHeader(
        weights_bytes=sum(by_dtype.values()),
        bytes_by_dtype=by_dtype,
        facts=facts,
        bytes_by_kind=by_kind,
    )


def _values_before_embeddings(variables: dict[str, Variable]) -> dict[str, int]:
    """Values whose turn comes before that of the first embeddings, by what happens to them."""
    values = {"quantized_first": 0, "cast_first": 0}
    for name in unordered_map_order(variables):
        variable = variables[name]
        if variable.kind == "embedding":
            break
        key = "quantized_first" if variable.kind == "linear" else "cast_first"
        values[key] += math.prod(variable.shape)
    return values


def whisper_dimensions(
    path: Path, shapes: dict[str, tuple[int, ...]], scalars: dict[str, int]
) -> dict[str, int]:
    """Sizes of a Whisper under OpenAI's names; ``config.json`` does not have them.

    ``n_audio_ctx`` counts encoder positions of a 30 s window, ``n_text_ctx`` decoder positions.
    """

    def dimension(name: str, axis: int, rank: int) -> int:
        shape = shapes.get(name, ())
        if len(shape) != rank:
            raise broken(path, f"it is a Whisper without {name}")
        return shape[axis]

    def layers(part: str) -> int:
        heads = (name.split("/") for name in shapes if name.startswith(f"{part}/layer_"))
        return len({parts[1] for parts in heads if parts[1] != "layer_norm"})

    found = {
        "n_mels": dimension("encoder/conv1/weight", 1, 3),
        "n_audio_ctx": dimension("encoder/position_encodings/encodings", 0, 2),
        "n_state": dimension("decoder/embeddings/weight", 1, 2),
        "n_vocab": dimension("decoder/embeddings/weight", 0, 2),
        "n_text_ctx": dimension("decoder/position_encodings/encodings", 0, 2),
        "n_ffn": dimension("encoder/layer_0/ffn/linear_0/weight", 0, 2),
        "n_audio_layer": layers("encoder"),
        "n_text_layer": layers("decoder"),
        "n_head": scalars.get("encoder/num_heads", 0),
    }
    if not all(found.values()):
        raise broken(path, f"it is a Whisper with {min(found, key=lambda key: found[key])} = 0")
    return found


class _Table:
    """Walks over the file; data are skipped, not read."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self._path = path
        self._file = file
        self._size_bytes = path.stat().st_size
        version = self._number("I")
        if version not in _VERSIONS:
            raise broken(path, f"CTranslate2 binary version {version} is not known")
        self.spec = self._text()
        self.revision = self._number("I")
        self.aliases = 0
        #: integers that are stored as variables without dimensions, such as numbers of heads
        self.scalars: dict[str, int] = {}

    def variables(self) -> Iterator[Variable]:
        """All variables; then ``aliases`` is known."""
        for _ in range(self._count("variables")):
            name, rank = self._text(), self._number("B")
            if rank > _MAX_RANK:
                raise broken(self._path, f"{name} claims {rank} dimensions")
            shape = tuple(self._number("I") for _ in range(rank))
            type_id, size_bytes = self._number("B"), self._number("I")
            if type_id >= len(_DTYPES):
                raise broken(self._path, f"{name} has an unknown dtype {type_id}")
            dtype, item_bytes = _DTYPES[type_id]
            if math.prod(shape) * item_bytes != size_bytes:
                raise broken(self._path, f"{name} claims {size_bytes} bytes for {shape} {dtype}")
            if self._file.tell() + size_bytes > self._size_bytes:
                raise broken(self._path, f"it ends inside {name}")
            if not shape and dtype in ("I8", "I16", "I32"):
                self.scalars[name] = self._number({1: "b", 2: "h", 4: "i"}[item_bytes])
            else:
                self._file.seek(size_bytes, 1)
            yield Variable(name, shape, dtype, size_bytes)
        self.aliases = self._count("aliases")
        for _ in range(self.aliases):
            self._text()
            self._text()

    def _count(self, what: str) -> int:
        number = self._number("I")
        if number > min(_TABLE_LIMIT, self._size_bytes):
            raise broken(self._path, f"it claims {number} {what}")
        return number

    def _number(self, form: str) -> int:
        (number,) = struct.unpack("<" + form, self._read(struct.calcsize("<" + form)))
        return int(number)

    def _text(self) -> str:
        return self._read(self._number("H")).split(b"\0")[0].decode("utf-8", "replace")

    def _read(self, size_bytes: int) -> bytes:
        raw = self._file.read(size_bytes)
        if len(raw) < size_bytes:
            raise broken(self._path, "it ends inside its table")
        return raw
