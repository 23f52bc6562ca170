"""The sample data is what its README says, and the shop can be made again."""

import hashlib
import importlib.util
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import av
import duckdb
import pytest

DATA = Path(__file__).resolve().parents[2] / "data"
SHOP = DATA / "shop.duckdb"
README = (DATA / "README.md").read_text(encoding="utf-8")
LISTED = dict(re.findall(r"^\| `([^`]+)` \|.*\| `([0-9a-f]{64})` \|$", README, re.MULTILINE))
QUESTIONS = [
    json.loads(line)
    for line in (DATA / "shop_questions.jsonl").read_text(encoding="utf-8").splitlines()
]
CLIPS = [
    json.loads(line)
    for line in (DATA / "speech" / "manifest.jsonl").read_text(encoding="utf-8").splitlines()
]


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def make_shop() -> Iterator[ModuleType]:
    name = "sample_make_shop"
    spec = importlib.util.spec_from_file_location(name, DATA / "make_shop.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # NamedTuple and dataclass look their module up by name
    spec.loader.exec_module(module)
    yield module
    del sys.modules[name]


@pytest.fixture(scope="module")
def regenerated(make_shop: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shop")
    make_shop.main(["--output", str(folder / "shop.duckdb")])
    return folder


@pytest.fixture(scope="module")
def shop() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect(str(SHOP), read_only=True) as connection:
        yield connection


def one(shop: duckdb.DuckDBPyConnection, sql: str) -> Any:
    row = shop.execute(sql).fetchone()
    assert row is not None
    return row[0]


def test_readme_lists_every_file():
    present = {
        str(path.relative_to(DATA))
        for path in DATA.rglob("*")
        if path.is_file() and path.parts[len(DATA.parts)] not in ("models", "__pycache__")
    }
    assert set(LISTED) == present - {"README.md"}


@pytest.mark.parametrize("name", sorted(LISTED))
def test_readme_hash(name: str):
    assert sha256(DATA / name) == LISTED[name]


def test_same_seed_gives_the_committed_shop(make_shop: ModuleType, regenerated: Path):
    committed = make_shop.content_hash(SHOP)
    assert committed in README
    assert make_shop.content_hash(regenerated / "shop.duckdb") == committed


@pytest.mark.parametrize("name", ["customers.csv", "orders.csv", "products.csv"])
def test_same_seed_gives_the_committed_csv(regenerated: Path, name: str):
    fresh = (regenerated / "shop_small" / name).read_text(encoding="utf-8")
    assert fresh == (DATA / "shop_small" / name).read_text(encoding="utf-8")
    assert len(fresh.splitlines()) == 51


def test_another_seed_gives_another_shop(make_shop: ModuleType):
    draws = [make_shop.Dice(seed).whole(0, 10**9) for seed in (1, 1, 2)]
    assert draws[0] == draws[1] != draws[2]


def test_size(shop: duckdb.DuckDBPyConnection):
    tables = [row[0] for row in shop.execute("SELECT table_name FROM duckdb_tables()").fetchall()]
    counts = {table: one(shop, f"SELECT count(*) FROM {table}") for table in tables}
    assert len(tables) == 15
    assert min(counts.values()) > 0
    assert f"15 tables, {sum(counts.values()):,} rows" in README
    assert SHOP.stat().st_size <= 8_000_000


def test_every_table_has_a_key_and_a_comment(shop: duckdb.DuckDBPyConnection):
    keyed = one(
        shop,
        "SELECT count(*) FROM duckdb_constraints() WHERE constraint_type = 'PRIMARY KEY'",
    )
    commented = one(shop, "SELECT count(comment) FROM duckdb_tables()")
    assert (keyed, commented) == (15, 15)
    assert one(shop, "SELECT count(comment) FROM duckdb_columns()") > 30


def test_foreign_keys_hold(shop: duckdb.DuckDBPyConnection):
    keys = shop.execute(
        "SELECT table_name, constraint_column_names, referenced_table, referenced_column_names"
        " FROM duckdb_constraints() WHERE constraint_type = 'FOREIGN KEY'"
    ).fetchall()
    assert len(keys) >= 20
    for table, columns, parent, parent_columns in keys:
        pairs = list(zip(columns, parent_columns, strict=True))
        match = " AND ".join(f"child.{column} = parent.{other}" for column, other in pairs)
        given = " AND ".join(f"child.{column} IS NOT NULL" for column, _ in pairs)
        orphans = one(
            shop,
            f"SELECT count(*) FROM {table} child ANTI JOIN {parent} parent ON {match}"
            f" WHERE {given}",
        )
        assert orphans == 0, (table, columns)


@pytest.mark.parametrize(
    "broken",
    [
        "orders JOIN customers USING (customer_id) WHERE ordered_at::DATE < registered_on",
        "order_items JOIN orders USING (order_id) JOIN products USING (product_id)"
        " WHERE ordered_at::DATE < launched_on OR ordered_at::DATE > discontinued_on",
        "orders JOIN employees USING (employee_id)"
        " WHERE ordered_at::DATE < hired_on OR ordered_at::DATE > left_on",
        "orders WHERE ordered_at < DATE '2024-01-01' OR ordered_at >= DATE '2026-10-01'",
        "orders WHERE (channel = 'store') <> (store_id IS NOT NULL)",
        "order_items WHERE line_total_vnd"
        " <> round(quantity * unit_price_vnd * (100 - discount_percent) / 100)",
        "returns JOIN orders USING (order_id)"
        " WHERE returned_on - ordered_at::DATE NOT BETWEEN 0 AND 30",
        "web_events WHERE (event_type = 'purchase') <> (order_id IS NOT NULL)",
    ],
)
def test_rows_make_sense(shop: duckdb.DuckDBPyConnection, broken: str):
    assert one(shop, f"SELECT count(*) FROM {broken}") == 0


def test_values_are_vietnamese_and_english(shop: duckdb.DuckDBPyConnection):
    assert one(shop, "SELECT name_en FROM cities WHERE name_vi = 'Đà Nẵng'") == "Da Nang"
    assert one(shop, "SELECT count(*) FROM products WHERE name_vi LIKE 'Cà phê%'") > 5
    languages = "SELECT list(DISTINCT language ORDER BY language) FROM reviews WHERE body <> ''"
    assert one(shop, languages) == ["en", "vi"]
    assert "Đà Nẵng" in (DATA / "shop_small" / "customers.csv").read_text(encoding="utf-8")


def test_questions_are_two_dozen_in_two_languages():
    assert len({question["id"] for question in QUESTIONS}) == 24
    languages = [question["language"] for question in QUESTIONS]
    assert languages.count("en") == languages.count("vi") == 12
    for question in QUESTIONS:
        assert set(question) == {"id", "question", "sql", "language", "ordered"}


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda question: question["id"])
def test_gold_sql_runs(shop: duckdb.DuckDBPyConnection, question: dict[str, Any]):
    rows = shop.execute(question["sql"]).fetchall()
    assert rows
    assert question["ordered"] is False or "ORDER BY" in question["sql"]
    # The same rows again: a LIMIT among ties, for one, would make the gold answer a matter of luck.
    assert sorted(map(str, shop.execute(question["sql"]).fetchall())) == sorted(map(str, rows))


def test_meeting_notes_agree_with_the_shop(shop: duckdb.DuckDBPyConnection):
    notes = (DATA / "documents" / "meeting-notes-en.txt").read_text(encoding="utf-8")
    kept = "status NOT IN ('cancelled', 'returned')"
    since = "ordered_at >= DATE '2026-09-01'"
    orders = one(shop, f"SELECT count(*) FROM orders WHERE {since}")
    goods = one(
        shop,
        "SELECT sum(line_total_vnd) FROM orders JOIN order_items USING (order_id)"
        f" WHERE {since} AND {kept}",
    )
    boxes = one(
        shop,
        "SELECT sum(quantity) FROM orders JOIN order_items USING (order_id)"
        " JOIN products USING (product_id)"
        f" WHERE {since} AND {kept} AND name_en = 'Mung Bean Mooncake, box of four'",
    )
    returns = one(shop, "SELECT count(*) FROM returns WHERE returned_on >= DATE '2026-09-01'")
    assert f"{orders} orders:" in notes
    assert f"{goods / 1e6:.1f} million VND" in notes
    assert f"{boxes} boxes of four" in notes
    assert f"{returns} returned lines" in notes


def test_clips_cover_both_languages_and_silence():
    spoken = [clip["language"] for clip in CLIPS if clip["kind"] == "speech"]
    assert spoken.count("en") >= 4
    assert spoken.count("vi") >= 1
    assert [clip["duration_seconds"] for clip in CLIPS if clip["kind"] == "silence"] == [3.0]


@pytest.mark.parametrize("clip", CLIPS, ids=lambda clip: clip["file"])
def test_clip_matches_the_manifest(clip: dict[str, Any]):
    path = DATA / "speech" / clip["file"]
    assert sha256(path) == clip["sha256"]
    assert clip["source"]
    assert clip["licence"] in ("BSD-2-Clause", "CC0-1.0")
    assert bool(clip["text"]) == (clip["kind"] == "speech")
    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        samples = sum(frame.samples for frame in container.decode(stream))
        assert (stream.codec_context.name, stream.rate, stream.channels) == ("flac", 16_000, 1)
    assert samples / 16_000 == pytest.approx(clip["duration_seconds"], abs=0.001)
    assert 3.0 <= clip["duration_seconds"] <= 12.0
