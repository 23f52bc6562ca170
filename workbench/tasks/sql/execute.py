"""The guarded way to run SQL: source, schema, guard, worker process, rows."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict

from workbench.engines.base import StopCheck, never_stop
from workbench.tasks.sql import guard, process
from workbench.tasks.sql.rows import Rows
from workbench.tasks.sql.schema import Schema
from workbench.tasks.sql.sources import Source, find_source

_CACHED_SCHEMAS = 32
_cache: OrderedDict[str, Schema] = OrderedDict()
_lock = threading.Lock()


def run_checked(
    database: str | os.PathLike[str], sql: str, limit: int, timeout_seconds: float
) -> Rows:
    """`workbench.sql.execute` without its checks of the limits."""
    source = find_source(database)
    schema = schema_of(source)
    statement = guard.check(sql, schema.dialect, schema.table_names)
    return run_guarded(source, statement, limit, timeout_seconds)


def run_guarded(
    source: Source,
    sql: str,
    limit: int,
    timeout_seconds: float,
    should_stop: StopCheck = never_stop,
) -> Rows:
    """Run ``sql``, which must come from `guard.check`.

    Raises QueryFailed, QueryTimeout, UnsafeSQL, Cancelled.
    """
    fetched = process.query(source, sql, limit, timeout_seconds, should_stop)
    return Rows(fetched.columns, fetched.rows, fetched.truncated, fetched.seconds, sql)


def load_schema(database: str | os.PathLike[str]) -> Schema:
    """The schema of a database. Raises InvalidDatabase."""
    return schema_of(find_source(database))


def schema_of(source: Source, should_stop: StopCheck = never_stop) -> Schema:
    """The schema of ``source``, read again only when one of its files has changed."""
    with _lock:
        found = _cache.get(source.fingerprint)
        if found is not None:
            _cache.move_to_end(source.fingerprint)
            return found
    schema = process.read_schema(source, should_stop)
    with _lock:
        _cache[source.fingerprint] = schema
        while len(_cache) > _CACHED_SCHEMAS:
            _cache.popitem(last=False)
    return schema
