"""Tables explain themselves: a meaning for each column, and names that SQL takes."""

import sqlite3

import pytest

from CACScoringLib.cohort.parquet import HEAD, all_tables, dictionary, dictionary_text

TABLES = all_tables()
RESERVED = {"group", "groups", "order", "rows", "row", "rank", "system", "function", "lateral", "array", "condition"}
"""Words that a common database reserves and SQLite takes."""


def test_every_column_has_a_meaning_and_numbers_have_units():
    lines = [dict(zip(HEAD, line, strict=True)) for line in dictionary(TABLES)]
    assert len(lines) == sum(map(len, TABLES.values()))
    assert all(line["meaning"] for line in lines)
    by_name = {(line["table"], line["column"]): line for line in lines}
    assert by_name["cohort.csv", "threshold_interval_low"]["meaning"].startswith("lower end of the 90 % interval (")
    assert by_name["lesions.parquet", "ostium_mm"]["unit"] == "mm"
    assert by_name["scores.parquet", "mass_share"]["scale"] == "0 to 1"
    assert by_name["scans.parquet", "state"]["empty"] == "never"
    assert "left anterior descending" in by_name["cohort.csv", "decomposition_agatston_LAD"]["meaning"]
    assert dictionary_text(TABLES).count("\n") == len(lines) + 1


@pytest.mark.parametrize("table", TABLES)
def test_no_column_is_a_keyword_of_sql(table):
    names = TABLES[table]
    assert not RESERVED & {name.lower() for name in names}
    sqlite3.connect(":memory:").execute(f"CREATE TABLE t ({', '.join(names)})")
    duckdb = pytest.importorskip("duckdb")
    duckdb.connect().execute(f"CREATE TABLE t ({', '.join(f'{name} INT' for name in names)})")
