"""Every clean run's predicted and measured memory, and what is learned from them.

The store is ``WORKBENCH_HOME/memory.db`` (SQLite, write-ahead log), shared by all processes of a
user. It keeps rows for ever; a correction uses the newest of a family that the present versions
of the libraries made.
"""

from __future__ import annotations

import json
import os
import sqlite3
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from filelock import FileLock

from workbench.errors import Unavailable, WorkbenchError
from workbench.memory.correction import Correction, Parts, Sample, apply, fit
from workbench.memory.terms import Estimate
from workbench.settings import get_settings

_VERSION = 1
_LOCKED_SECONDS = 10.0
#: A correction is fitted to the newest runs of its family: what is older may be another driver.
_FITTED_RUNS = 64
_JSON_COLUMNS = frozenset({"options", "size", "terms", "versions"})
_SCHEMA = """
CREATE TABLE observations (
    id INTEGER PRIMARY KEY, at REAL NOT NULL, model TEXT NOT NULL, family TEXT NOT NULL,
    device TEXT NOT NULL, options TEXT NOT NULL, size TEXT NOT NULL, terms TEXT NOT NULL,
    predicted_bytes INTEGER NOT NULL, upper_bytes INTEGER NOT NULL,
    measured_bytes INTEGER NOT NULL, method TEXT NOT NULL, versions TEXT NOT NULL
);
CREATE INDEX observations_by_family ON observations (family, device, id);
"""


@dataclass(frozen=True)
class Observation:
    """One run that had the process to itself, in bytes.

    ``terms`` are ``context``, ``weights`` and ``dynamic`` of the estimate *before* any
    correction; ``predicted_bytes`` and ``upper_bytes`` are what was planned with.
    ``measured_bytes`` is a peak on the same ground as the terms: with the context in it.
    """

    model: str
    family: str
    device: str
    options: dict[str, Any]
    size: dict[str, Any]
    terms: dict[str, int]
    predicted_bytes: int
    upper_bytes: int
    measured_bytes: int
    method: str
    versions: dict[str, str] = field(default_factory=dict)
    at: float = field(default_factory=time.time)

    @property
    def sample(self) -> Sample:
        """What a correction is fitted to."""
        parts = Parts(self.terms["context"], self.terms["weights"], self.terms["dynamic"])
        return Sample(parts, self.measured_bytes)


class _KeptConnection:
    """The last connection of this process: opening and closing one costs 20 ms, since the last
    to close moves the log into the file and waits for the disk."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self._key: tuple[Path, int, int] | None = None
        self._connection: sqlite3.Connection | None = None

    def get(self, path: Path) -> sqlite3.Connection | None:
        """The connection, if it is to the file that is at ``path`` now and not a parent's."""
        return self._connection if self._key == self._key_of(path) else None

    def put(self, path: Path, connection: sqlite3.Connection) -> sqlite3.Connection:
        """Keep this one, close the one before it."""
        self.close()
        self._key, self._connection = self._key_of(path), connection
        return connection

    def close(self) -> None:
        """Close what is kept, unless a parent process opened it."""
        if self._connection is not None and self._key is not None and self._key[1] == os.getpid():
            self._connection.close()
        self._key = self._connection = None

    def _key_of(self, path: Path) -> tuple[Path, int, int] | None:
        try:
            return path, os.getpid(), path.stat().st_ino
        except OSError:
            return None


_kept = _KeptConnection()


def _connect(path: Path) -> sqlite3.Connection:
    # the kept connection is used under its lock, by whichever thread
    return sqlite3.connect(path, timeout=_LOCKED_SECONDS, check_same_thread=False)


def _is_usable(connection: sqlite3.Connection) -> bool:
    """Whether it is a sound file of this version. Raises sqlite3.Error where that is not known
    (locked, no right) and for a file of a newer version, which is not ours to move."""
    try:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        connection.execute("SELECT 1 FROM observations LIMIT 1").fetchone()
    except sqlite3.OperationalError as error:
        if "no such table" in str(error):
            return False
        raise
    except sqlite3.DatabaseError:  # not a database, or a torn page
        return False
    if version > _VERSION:
        raise sqlite3.OperationalError("a newer workbench wrote it")
    return bool(version == _VERSION)


_COLUMNS = tuple(column.name for column in fields(Observation))


class History:
    """The observations of one file. Safe from several threads and processes."""

    def __init__(self, path: Path | None = None) -> None:
        self.path = path or get_settings().home / "memory.db"

    def add(self, observation: Observation) -> None:
        """Keep one run. Raises Unavailable when the file cannot be written."""
        values = [_to_sql(name, getattr(observation, name)) for name in _COLUMNS]
        marks = ", ".join("?" * len(_COLUMNS))
        with self._open() as connection:
            connection.execute(
                f"INSERT INTO observations ({', '.join(_COLUMNS)}) VALUES ({marks})",  # noqa: S608
                values,
            )

    def observations(
        self, family: str | None = None, device: str | None = None, limit: int = 1000
    ) -> list[Observation]:
        """The newest runs, newest first. Raises Unavailable."""
        if not self.path.is_file():
            return []
        with self._open() as connection:
            rows = connection.execute(
                f"SELECT {', '.join(_COLUMNS)} FROM observations "  # noqa: S608
                "WHERE (?1 IS NULL OR family = ?1) AND (?2 IS NULL OR device = ?2) "
                "ORDER BY id DESC LIMIT ?3",
                (family, device, limit),
            ).fetchall()
        return [
            Observation(**{n: _from_sql(n, v) for n, v in zip(_COLUMNS, row, strict=True)})
            for row in rows
        ]

    def correction(self, family: str, device: str = "cpu") -> Correction | None:
        """What the runs of a family say; None: there are none. Raises Unavailable."""
        found = self.observations(family, device, _FITTED_RUNS)
        # another version of a runtime may need other buffers
        same = [seen for seen in found if seen.versions == found[0].versions]
        return fit([seen.sample for seen in same]) if same else None

    def stamp(self) -> tuple[int, ...]:
        """Changes whenever a row was added, by any process."""
        stamps = []
        for path in (self.path, self.path.with_name(self.path.name + "-wal")):
            try:
                found = path.stat()
            except OSError:
                continue
            stamps += [found.st_mtime_ns, found.st_size]
        return tuple(stamps)

    # -- inside ------------------------------------------------------------------------------

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """The connection of this process, inside one transaction."""
        try:
            with _kept.lock:
                connection = _kept.get(self.path)
                if connection is None or not _is_usable(connection):
                    connection = _kept.put(self.path, self._connect())
                try:
                    with connection:
                        yield connection
                except BaseException:
                    _kept.close()
                    raise
        except (OSError, sqlite3.Error) as error:
            raise Unavailable(
                f"The memory history {self.path} cannot be used: {error}.",
                "Check that WORKBENCH_HOME can be written; plans go on without what was learned.",
            ) from None

    def _connect(self) -> sqlite3.Connection:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        connection = self._try_connect()
        if connection is None:
            # one process makes or replaces the file, the others find it done
            _kept.close()
            with FileLock(self.path.with_suffix(".lock")):
                connection = self._try_connect()
                if connection is None:
                    self._set_aside()
                    connection = _connect(self.path)
                    connection.execute("PRAGMA journal_mode = WAL")
                    connection.executescript(
                        f"BEGIN; {_SCHEMA} PRAGMA user_version = {_VERSION}; COMMIT;"
                    )
        connection.execute("PRAGMA synchronous = NORMAL")  # a power cut may lose the last rows
        return connection

    def _try_connect(self) -> sqlite3.Connection | None:
        """None: there is no file that this version can use."""
        if not self.path.is_file():
            return None
        connection = _connect(self.path)
        try:
            if _is_usable(connection):
                return connection
        except sqlite3.Error:
            connection.close()
            raise
        connection.close()
        return None

    def _set_aside(self) -> None:
        """Rename a file that cannot be used, with its log, and say so."""
        if not self.path.exists():
            return
        aside = self.path.with_name(f"{self.path.name}.unusable-{time.time_ns()}")
        for suffix in ("", "-wal", "-shm"):
            part = self.path.with_name(self.path.name + suffix)
            if part.exists():
                part.rename(aside.with_name(aside.name + suffix))
        warnings.warn(
            f"The memory history {self.path} is broken or of an older version. It is kept as "
            f"{aside.name}, and learning begins anew.",
            RuntimeWarning,
            stacklevel=2,
        )


def corrected(estimate: Estimate, device: str = "cpu") -> Estimate:
    """``estimate`` with what runs of its family on ``device`` taught; unchanged without any.

    A history that cannot be used never stops a plan: it warns, and the estimate stays as it is.
    """
    history = History()
    key = (history.path, history.stamp())
    if _cache.get("key") != key:
        _cache.clear()
        _cache["key"] = key
    fitted: dict[tuple[str, str], Correction | None] = _cache.setdefault("fitted", {})
    if (estimate.family, device) not in fitted:
        try:
            fitted[estimate.family, device] = history.correction(estimate.family, device)
        except WorkbenchError as error:
            warnings.warn(str(error), RuntimeWarning, stacklevel=2)
            fitted[estimate.family, device] = None
    correction = fitted[estimate.family, device]
    return estimate if correction is None else apply(correction, estimate)


#: Fits of the file as it is now: a plan asks for many options of few families.
_cache: dict[str, Any] = {}


def _to_sql(name: str, value: Any) -> Any:
    return json.dumps(value, sort_keys=True) if name in _JSON_COLUMNS else value


def _from_sql(name: str, value: Any) -> Any:
    return json.loads(value) if name in _JSON_COLUMNS else value
