"""CSV, Parquet, Excel and JSON files as tables."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import duckdb
import openpyxl
import pytest

import workbench as wb
from workbench.errors import InvalidDatabase, UnsafeSQL

CSV = "Tên khách,Giá,Ngày\nAn,1.5,2026-01-02\nBình,2,2026-02-03\n"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_csv_with_vietnamese_columns(encoding: str, tmp_path: Path):
    path = tmp_path / "Khách hàng.csv"
    path.write_text(CSV, encoding=encoding)
    schema = wb.sql.schema(path)
    assert schema.table_names == ("Khách_hàng",)
    assert [(c.name, c.type) for c in schema.tables[0].columns] == [
        ("Tên khách", "VARCHAR"),
        ("Giá", "DOUBLE"),
        ("Ngày", "DATE"),
    ]
    rows = wb.sql.execute(path, 'SELECT "Tên khách", Ngày FROM Khách_hàng WHERE Giá < 2')
    assert rows.rows == (("An", dt.date(2026, 1, 2)),)
    assert path.read_text(encoding=encoding) == CSV


def test_a_late_value_of_another_type_does_not_break_the_load(tmp_path: Path):
    path = tmp_path / "late.csv"
    path.write_text("a\n" + "1\n" * 30_000 + "x\n", encoding="utf-8")
    assert wb.sql.execute(path, "SELECT max(a) FROM late").rows == (("x",),)


def test_lines_that_are_left_out_are_said(tmp_path: Path):
    path = tmp_path / "report.csv"
    path.write_text("Report of June\n\na,b\n1,2\n3,4\n", encoding="utf-8")
    (table,) = wb.sql.schema(path).tables
    assert table.comment is not None and "first 2 lines" in table.comment
    assert table.row_count == 2


def test_a_folder_is_a_database(tmp_path: Path):
    (tmp_path / "a.csv").write_text("id,x\n1,2\n", encoding="utf-8")
    (tmp_path / "b.jsonl").write_text('{"id": 1, "y": [1, 2]}\n', encoding="utf-8")
    (tmp_path / "readme.txt").write_text("not a table", encoding="utf-8")
    (tmp_path / ".hidden.csv").write_text("id\n1\n", encoding="utf-8")
    duckdb.sql("SELECT 1 AS id, 'é' AS z").write_parquet(str(tmp_path / "a.parquet"))
    assert wb.sql.schema(tmp_path).table_names == ("a", "a_parquet", "b")
    sql = "SELECT x, y, z FROM a JOIN b USING (id) JOIN a_parquet USING (id)"
    assert wb.sql.execute(tmp_path, sql).rows == ((2, [1, 2], "é"),)


def test_a_changed_file_is_read_again(tmp_path: Path):
    path = tmp_path / "t.csv"
    path.write_text("a\n1\n", encoding="utf-8")
    assert wb.sql.execute(path, "SELECT a FROM t").rows == ((1,),)
    path.write_text("a,b\n1,2\n3,4\n", encoding="utf-8")
    assert wb.sql.execute(path, "SELECT sum(b) FROM t").rows == ((6,),)


def test_the_file_itself_cannot_be_read_by_a_query(tmp_path: Path):
    path = tmp_path / "t.csv"
    path.write_text("a\n1\n", encoding="utf-8")
    with pytest.raises(UnsafeSQL):
        wb.sql.execute(path, f"SELECT * FROM '{path}'")


def test_excel_sheets_become_typed_tables(tmp_path: Path):
    book = openpyxl.Workbook()
    sheet = book.active
    assert sheet is not None
    sheet.title = "Đơn hàng"
    sheet.append(["Mã", "Giá", None, "Ngày", "Mã", "Giờ", "Ghi chú"])
    sheet.append([1, 1.5, True, dt.datetime(2026, 1, 2), 7, dt.datetime(2026, 1, 2, 8, 30), "a"])
    sheet.append([])
    sheet.append([2, 3, None, dt.datetime(2026, 1, 3), None, dt.datetime(2026, 1, 3), 5])
    book.create_sheet("empty")
    path = tmp_path / "sales.xlsx"
    book.save(path)
    (table,) = wb.sql.schema(path).tables
    assert table.name == "sales"
    assert [(c.name, c.type) for c in table.columns] == [
        ("Mã", "BIGINT"),
        ("Giá", "DOUBLE"),
        ("column_3", "BOOLEAN"),
        ("Ngày", "DATE"),
        ("Mã_2", "BIGINT"),
        ("Giờ", "TIMESTAMP"),
        ("Ghi chú", "VARCHAR"),
    ]
    assert wb.sql.execute(path, 'SELECT sum(Giá), max("Ghi chú") FROM sales').rows == ((4.5, "a"),)


def test_several_sheets_are_named_as_the_sheets(tmp_path: Path):
    book = openpyxl.Workbook()
    book.remove(book.worksheets[0])
    for title in ("Tháng 1", "Tháng 2"):
        book.create_sheet(title).append(["a"])
        book[title].append([1])
    book.save(tmp_path / "sales.xlsx")
    assert wb.sql.schema(tmp_path / "sales.xlsx").table_names == ("Tháng_1", "Tháng_2")
    assert wb.sql.schema(tmp_path).table_names == ("sales_Tháng_1", "sales_Tháng_2")


def test_an_empty_workbook_is_refused(tmp_path: Path):
    openpyxl.Workbook().save(tmp_path / "none.xlsx")
    with pytest.raises(InvalidDatabase, match="no cells"):
        wb.sql.schema(tmp_path / "none.xlsx")
