"""Tables explain themselves: a meaning for each column."""

from CACScoringLib.cohort.dictionary import HEAD, all_tables, dictionary, dictionary_text

TABLES = all_tables()


def test_every_column_has_a_meaning_and_numbers_have_units():
    lines = [dict(zip(HEAD, line, strict=True)) for line in dictionary(TABLES)]
    assert len(lines) == sum(map(len, TABLES.values()))
    assert all(line["meaning"] for line in lines)
    by_name = {(line["table"], line["column"]): line for line in lines}
    assert by_name["cohort.csv", "threshold_interval_low"]["meaning"].startswith("lower end of the 90 % interval (")
    assert by_name["features.csv", "ostium_mm"]["unit"] == "mm"
    assert by_name["features.csv", "mass_share"]["scale"] == "0 to 1"
    assert by_name["cohort.csv", "state"]["empty"] == "never"
    assert "left anterior descending" in by_name["cohort.csv", "decomposition_agatston_LAD"]["meaning"]
    assert dictionary_text(TABLES).count("\n") == len(lines) + 1
