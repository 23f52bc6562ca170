"""What a database path means: a DuckDB file, a SQLite file, or files that become tables.

Databases are told by their content (a wrong suffix does not matter), table files by their suffix.
`find_source` never opens a file: on POSIX a process loses its locks on a file when it closes any
handle of it, so a glance at a database that the user has open here would unlock it. The worker
process looks inside.
"""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from workbench.errors import InvalidDatabase

Dialect = Literal["duckdb", "sqlite"]
Kind = Literal["duckdb", "sqlite", "files"]
Format = Literal["csv", "parquet", "excel", "json"]

FORMATS: dict[str, Format] = {
    ".csv": "csv",
    ".tsv": "csv",
    ".csv.gz": "csv",
    ".parquet": "parquet",
    ".xlsx": "excel",
    ".xlsm": "excel",
    ".json": "json",
    ".jsonl": "json",
    ".ndjson": "json",
}
_ACCEPTED = "DuckDB, SQLite, CSV, Parquet, Excel (.xlsx) or JSON file, or a folder of such files"
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://")
# https://duckdb.org/docs/stable/internals/storage: 8 bytes of checksum, then the magic bytes
_DUCKDB_MAGIC, _DUCKDB_MAGIC_AT = b"DUCK", 8
# https://sqlite.org/fileformat2.html#the_database_header
_SQLITE_MAGIC = b"SQLite format 3\x00"


@dataclass(frozen=True)
class TableFile:
    """A file that is loaded as the table ``table`` (an Excel file: as one table a sheet)."""

    table: str
    path: str
    format: Format


@dataclass(frozen=True)
class Source:
    """A path that can be a database. ``fingerprint`` changes when a file of it changes.

    ``files`` is empty where the suffix is not that of a table file.
    """

    path: str
    fingerprint: str
    files: tuple[TableFile, ...] = ()

    @property
    def name(self) -> str:
        """What messages call it."""
        return Path(self.path).name

    def read_kind(self) -> Kind:
        """Look inside. Only for the worker process. Raises InvalidDatabase."""
        path = Path(self.path)
        if path.is_file():
            with path.open("rb") as file:
                head = file.read(16)
            if head == _SQLITE_MAGIC:
                return "sqlite"
            if head[_DUCKDB_MAGIC_AT:].startswith(_DUCKDB_MAGIC):
                return "duckdb"
        if not self.files:
            raise InvalidDatabase(f"{self.name} is not a database.", f"Give a {_ACCEPTED}.")
        return "files"


def find_source(database: str | os.PathLike[str]) -> Source:
    """The source at ``database``, which must exist.

    Raises InvalidDatabase for a URL, a missing or empty file, and a folder without table files.
    """
    text = os.fspath(database)
    if url := _URL.match(text):
        raise InvalidDatabase(
            f"A database at a {url[1]}:// address cannot be opened.", f"Give a {_ACCEPTED}."
        )
    path = Path(text).expanduser().absolute()
    try:
        if path.is_dir():
            return _folder(path)
        if not path.is_file():
            raise InvalidDatabase(f"There is no file {text!r}.", "Check the path.")
        return _file(path)
    except OSError as error:
        raise InvalidDatabase(
            f"{text!r} cannot be read: {error.strerror or error}.", "Check its permissions."
        ) from None


def _file(path: Path) -> Source:
    if not path.stat().st_size:
        raise InvalidDatabase(f"{path.name} is empty (0 bytes).", f"Give a {_ACCEPTED}.")
    form = _format(path)
    files = (TableFile(table_name(_stem(path)), str(path), form),) if form else ()
    return Source(str(path), _fingerprint(path, [path]), files)


def _folder(path: Path) -> Source:
    members = sorted(p for p in path.iterdir() if p.is_file() and not p.name.startswith((".", "~")))
    tables: dict[str, TableFile] = {}
    for member in members:
        form = _format(member)
        if form is None or not member.stat().st_size:
            continue
        name = table_name(_stem(member))
        if name.casefold() in tables:  # sales.csv beside sales.parquet
            name = table_name(member.name)
        tables[name.casefold()] = TableFile(name, str(member), form)
    if not tables:
        raise InvalidDatabase(
            f"The folder {path.name} has no table files.", f"Accepted are: {', '.join(FORMATS)}."
        )
    files = tuple(tables.values())
    return Source(str(path), _fingerprint(path, [Path(f.path) for f in files]), files)


def _format(path: Path) -> Format | None:
    name = path.name.lower()
    return next((form for suffix, form in FORMATS.items() if name.endswith(suffix)), None)


def _stem(path: Path) -> str:
    suffix = next(s for s in FORMATS if path.name.lower().endswith(s))
    return path.name[: -len(suffix)]


def table_name(text: str) -> str:
    """A table name that needs no quotes where that is possible; letters of any script stay.

    >>> table_name("Doanh thu 2024")
    'Doanh_thu_2024'
    """
    name = re.sub(r"\W+", "_", text).strip("_") or "data"
    return f"t_{name}" if name[0].isdigit() else name


def _fingerprint(database: Path, paths: list[Path]) -> str:
    digest = hashlib.sha256(os.fsencode(database))
    for path in paths:
        for part in (path, Path(f"{path}.wal"), Path(f"{path}-wal")):
            # a database's own journal holds changes that its main file lacks
            if part == path or part.is_file():
                found = part.stat()
                digest.update(os.fsencode(part))
                digest.update(f"|{found.st_mtime_ns}|{found.st_size}\n".encode())
    return digest.hexdigest()
