"""One small shop as a DuckDB and as a SQLite file."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import duckdb
import pytest

TABLES = """
CREATE TABLE customers (id INTEGER PRIMARY KEY, name TEXT NOT NULL, city TEXT);
CREATE TABLE orders (
    id INTEGER PRIMARY KEY, customer_id INTEGER REFERENCES customers (id),
    amount DECIMAL(10, 2), ordered_on DATE
);
CREATE TABLE "Bảng giá" ("Mã" TEXT, "Giá" INTEGER);
CREATE TABLE "order" ("select" INTEGER);
INSERT INTO customers VALUES (1, 'An', 'Huế'), (2, 'Bình', 'Đà Nẵng'), (3, 'Ann', NULL);
INSERT INTO orders VALUES (1, 1, 9.50, '2026-01-05'), (2, 1, 20, '2026-02-01'),
    (3, 2, 100.25, '2026-02-03');
INSERT INTO "Bảng giá" VALUES ('áo', 100), ('mũ', 50);
INSERT INTO "order" VALUES (7);
"""


@pytest.fixture(scope="session")
def duckdb_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("duckdb") / "shop.duckdb"
    with duckdb.connect(str(path)) as connection:
        connection.execute(TABLES)
        connection.execute("COMMENT ON TABLE customers IS 'Khách hàng'")
        connection.execute("COMMENT ON COLUMN customers.city IS 'Thành phố'")
    return path


@pytest.fixture(scope="session")
def sqlite_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sqlite") / "shop.sqlite"
    connection = sqlite3.connect(path)
    connection.executescript(TABLES)
    connection.close()
    return path


@pytest.fixture(params=["duckdb", "sqlite"])
def database(request: pytest.FixtureRequest) -> Path:
    """Each of the two in turn. No test may change them."""
    path: Path = request.getfixturevalue(f"{request.param}_file")
    return path
