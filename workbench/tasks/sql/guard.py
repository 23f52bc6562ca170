"""Decides whether a statement only reads the tables of its database: an allow-list over its tree.

Every node of the parsed statement must be of a known kind, every function a listed one, every
table one of the schema or a CTE in scope. What cannot be parsed cannot be proved to only read.
The worker process holds a second line of defence (a locked, read-only connection that may not
open other files), so an error here does not write by itself.
"""

from __future__ import annotations

import difflib
import logging
import threading
from collections.abc import Collection
from typing import Any

from sqlglot import exp
from sqlglot.dialects.dialect import Dialect as Grammar
from sqlglot.errors import ParseError
from sqlglot.tokens import Token, TokenType

from workbench.errors import QueryFailed, UnsafeSQL
from workbench.tasks.sql import functions
from workbench.tasks.sql.sources import Dialect

MAX_CHARACTERS = 100_000
MAX_BRANCHES = 500
_REMEDY = "Write one SELECT that reads the tables of the database."
_NAME_KEY = "written_name"
_THREAD = "sql-guard"
# what sqlglot would warn of is refused here, with a reason
logging.getLogger("sqlglot").addFilter(lambda record: record.threadName != _THREAD)

#: Words that a statement may begin with; anything else is refused before it is parsed.
_FIRST_WORDS: dict[Dialect, frozenset[str]] = {
    "duckdb": frozenset(
        {"SELECT", "WITH", "FROM", "VALUES", "TABLE", "(", "DESCRIBE", "DESC", "SHOW", "SUMMARIZE"}
    ),
    "sqlite": frozenset({"SELECT", "WITH", "VALUES"}),
}
_ROOTS = (exp.Query, exp.Values, exp.Describe, exp.Summarize, exp.Show)

#: Families whose members only compute a value. Functions are checked by name as well.
_FAMILIES = (exp.Func, exp.Binary, exp.Unary, exp.Predicate)
_KINDS = frozenset(
    {
        # statements and clauses
        *(exp.Select, exp.Subquery, exp.Union, exp.Intersect, exp.Except, exp.Values),
        *(exp.With, exp.CTE, exp.From, exp.Join, exp.Lateral, exp.Table, exp.TableAlias),
        *(exp.Where, exp.Group, exp.Having, exp.Qualify, exp.Order, exp.Ordered),
        *(exp.Limit, exp.LimitOptions, exp.Offset, exp.Fetch, exp.Distinct, exp.TableSample),
        *(exp.Cube, exp.Rollup, exp.GroupingSets, exp.Pivot, exp.PivotAlias, exp.PivotAny),
        *(exp.UnpivotColumns, exp.Describe, exp.Summarize, exp.Show),
        # values
        *(exp.Alias, exp.Aliases, exp.Column, exp.Identifier, exp.Star, exp.PositionalColumn),
        *(exp.Literal, exp.National, exp.RawString, exp.HexString, exp.ByteString, exp.Boolean),
        *(exp.Null, exp.Tuple, exp.Interval, exp.IntervalSpan, exp.Var, exp.Bracket, exp.Lambda),
        *(exp.Comprehension, exp.AtTimeZone, exp.DataType, exp.DataTypeParam, exp.ColumnDef),
        *(exp.Window, exp.WindowSpec, exp.Filter, exp.WithinGroup, exp.IgnoreNulls),
        *(exp.RespectNulls, exp.Any, exp.All, exp.HavingMax),
        # paths of -> and ->>
        *(exp.JSONPath, exp.JSONPathRoot, exp.JSONPathKey, exp.JSONPathSubscript),
        *(exp.JSONPathWildcard, exp.JSONPathSlice, exp.JSONPathRecursive, exp.JSONPathUnion),
        *(exp.JSONKeyValue, exp.Slice),
    }
)
#: The database's own catalogue: no data of the user's, and a map for attacks.
_SYSTEM = ("sqlite_", "pragma_", "duckdb_", "information_schema", "pg_", "dbstat")


def check(sql: str, dialect: Dialect, tables: Collection[str]) -> str:
    """The statement of ``sql`` if it is one that only reads ``tables``, without what follows it
    (semicolons, comments). The case of names does not matter.

    Raises UnsafeSQL for anything else, and QueryFailed for a table that does not exist.
    """
    root, statement = _parse(sql, dialect)
    if not isinstance(root, _ROOTS):
        raise UnsafeSQL(f"{_describe(root)} is not a question to the data.", _REMEDY)
    known = {name.casefold(): name for name in tables}
    stack: list[tuple[exp.Expr, frozenset[str]]] = [(root, frozenset())]
    while stack:
        node, ctes = stack.pop()
        _check_kind(node)
        with_ = node.args.get("with_")
        if isinstance(with_, exp.With):
            _check_kind(with_)
            if with_.args.get("search"):
                raise UnsafeSQL("WITH ... SEARCH is not allowed here.", _REMEDY)
            for cte in with_.expressions:
                named = ctes | {cte.alias.casefold()}
                stack.append((cte, named if with_.args.get("recursive") else ctes))
                ctes = named
        children = [child for child in node.iter_expressions() if child is not with_]
        if isinstance(node, exp.Table | exp.Lateral) and isinstance(node.this, exp.Func):
            _check_function(node.this, functions.TABLE[dialect], "in FROM")
            children.remove(node.this)
            children += node.this.iter_expressions()
        elif isinstance(node, exp.Table):
            _check_table(node, ctes, known)
        elif isinstance(node, exp.Describe | exp.Summarize):
            _check_described(node)
        elif isinstance(node, exp.Func) or _NAME_KEY in node.meta:
            _check_function(node, functions.SCALAR[dialect], "")
        stack += [(child, ctes) for child in children]
    return statement


def _parse(sql: str, dialect: Dialect) -> tuple[exp.Expr, str]:
    """The one statement of ``sql`` as a tree and as text.

    Raises UnsafeSQL when it is too large, more than one, or not SQL.
    """
    if len(sql) > MAX_CHARACTERS:
        raise UnsafeSQL(
            f"The SQL has {len(sql):,} characters; at most {MAX_CHARACTERS:,} are read.", _REMEDY
        )
    if "\x00" in sql or any("\ud800" <= character <= "\udfff" for character in sql):
        raise UnsafeSQL("The SQL holds characters that are not text.", _REMEDY)
    grammar = Grammar.get_or_raise(dialect)
    grammar.ORIGINAL_NAME_META_KEY = _NAME_KEY
    try:
        tokens = grammar.tokenize(sql)
        _check_tokens(tokens, dialect)
        return _with_fresh_stack(grammar, tokens, sql), sql[: tokens[-1].end + 1]
    except UnsafeSQL:
        raise
    except RecursionError:
        raise UnsafeSQL("The SQL is nested too deeply to be checked.", _REMEDY) from None
    except Exception as error:  # broken text makes the parser fail in many ways
        errors = error.errors if isinstance(error, ParseError) else []
        reason = errors[0]["description"] if errors else str(error)
        raise UnsafeSQL(
            f"The SQL cannot be read: {' '.join(str(reason).split())[:200]}.", _REMEDY
        ) from None


def _check_tokens(tokens: list[Token], dialect: Dialect) -> None:
    while tokens and tokens[-1].token_type == TokenType.SEMICOLON:
        tokens.pop()
    if not tokens:
        raise UnsafeSQL("There is no SQL.", _REMEDY)
    if any(token.token_type == TokenType.SEMICOLON for token in tokens):
        raise UnsafeSQL("There is more than one statement.", _REMEDY)
    first = tokens[0].text.upper()
    if first not in _FIRST_WORDS[dialect]:
        raise UnsafeSQL(f"A statement that begins with {first[:40]} is not allowed.", _REMEDY)
    if first == "SHOW" and [token.text.upper() for token in tokens] != ["SHOW", "TABLES"]:
        raise UnsafeSQL("Of SHOW only SHOW TABLES is allowed.", "Use DESCRIBE for a table.")
    branches = sum(token.token_type == TokenType.SELECT for token in tokens)
    if branches > MAX_BRANCHES:
        raise UnsafeSQL(
            f"The SQL has {branches:,} SELECTs; at most {MAX_BRANCHES} are allowed.", _REMEDY
        )


def _with_fresh_stack(grammar: Grammar, tokens: list[Token], sql: str) -> exp.Expr:
    """Parse in a thread of its own, so that the depth allowed (about 40 levels) does not depend
    on how deep the caller is. Python's recursion limit counts frames per thread."""
    outcome: list[exp.Expr | Exception] = []

    def parse() -> None:
        try:
            (statement,) = grammar.parser().parse(tokens, sql)
            assert statement is not None
            outcome.append(statement)
        except Exception as error:  # raised again where somebody waits for it
            outcome.append(error)

    thread = threading.Thread(target=parse, name=_THREAD)
    thread.start()
    thread.join()
    (result,) = outcome
    if isinstance(result, Exception):
        raise result
    return result


def _check_kind(node: exp.Expr) -> None:
    if type(node) not in _KINDS and not isinstance(node, _FAMILIES):
        raise UnsafeSQL(f"{_describe(node)} is not allowed here.", _REMEDY)


def _check_function(node: exp.Expr, allowed: frozenset[str], where: str) -> None:
    """``node`` was written as a function or stands for one. What has no written name comes from
    grammar of its own (CASE, CAST, EXTRACT, ...), which reaches nothing outside the row."""
    name = node.name if isinstance(node, exp.Anonymous) else node.meta.get(_NAME_KEY)
    if name is None and not where:
        return
    if name is None or str(name).lower() not in allowed:
        name = str(name or node.key)[:60]
        raise UnsafeSQL(f"The function {name}() is not allowed{' ' * bool(where)}{where}.", _REMEDY)


def _check_described(node: exp.Expr) -> None:
    """DuckDB also describes a file whose name stands in quotes."""
    if not isinstance(node.this, exp.Table | exp.Query):
        raise UnsafeSQL("Only a table or a query can be described.", _REMEDY)


def _check_table(node: exp.Table, ctes: frozenset[str], known: dict[str, str]) -> None:
    parts = [part.name for part in node.parts]
    if len(parts) == 1 and parts[0].casefold() in ctes:
        return
    if len(parts) > 1 and parts[0].casefold() == "main":
        parts = parts[1:]
    name = ".".join(parts)
    if name.casefold() in known:
        return
    if name.casefold().startswith(_SYSTEM):
        raise UnsafeSQL(f"{name} is the database's own catalogue.", _REMEDY)
    if any(not (c.isalnum() or c in "_ .-") for c in name) or (len(parts) == 1 and "." in name):
        raise UnsafeSQL(f"{name[:80]!r} is not a table of the database.", _REMEDY)
    near = difflib.get_close_matches(name.casefold(), known, n=1)
    hint = f"Did you mean {known[near[0]]}?" if near else f"There are: {_some(known.values())}."
    raise QueryFailed(f"There is no table {name[:80]}.", hint)


def _some(names: Collection[str]) -> str:
    shown = list(names)[:12]
    return ", ".join(shown) + (f" and {len(names) - 12} more" if len(names) > 12 else "")


def _describe(node: Any) -> str:
    """How a person calls the node: ``Insert`` -> ``INSERT``."""
    if isinstance(node, exp.Command):
        return str(node.this).upper()
    if isinstance(node, exp.Placeholder | exp.Parameter):
        return "A parameter (? or $1)"
    return type(node).__name__.upper()
