"""Pages generated from the code, and the built site."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import automatic_patient
import heart_with_territories
import pytest
from whole_records import whole_record

from CACScoringLib.core.warning_codes import ADVICE, SEVERE
from CACScoringLib.models.cards import list_models

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "docs" / "hooks"))  # as MkDocs does

import model_tables  # noqa: E402
import pages  # noqa: E402
import result_schema  # noqa: E402
import result_tables  # noqa: E402
import warning_tables  # noqa: E402

PAGES = sorted((ROOT / "docs").rglob("*.md"))


@pytest.mark.long
def test_every_warning_has_its_messages():
    messages = warning_tables.messages_by_code()
    assert set(messages) == set(ADVICE) >= SEVERE
    assert messages["thick-slices"] == [
        "The slices are {value} mm thick, more than {high} mm, so small lesions may be missed."
    ]
    assert len(messages["geometry-unknown"]) == 2
    page = warning_tables.warnings_as_markdown()
    assert re.search(r"^\| `heart-cut` \| severe \| The heart region reaches .+ \| Check .+ \|$", page, re.MULTILINE)
    assert page.count("\n") == len(ADVICE) + 1


def test_parts_of_pages_are_written_once_and_again():
    page = "# A\n\n<!-- schema -->\n<!-- end -->\n\nText\n\n<!-- people short -->\nold\n<!-- end -->\n"
    written = pages.filled(page)
    assert "old" not in written
    assert "\n\nText\n\n" in written
    assert written.count("\n| ") == 2  # a head and a figure
    assert pages.filled(written) == written
    with pytest.raises(ValueError, match="no <!-- end -->"):
        pages.filled(page.replace("<!-- end -->", "", 1))


def test_a_figure_of_other_tables_is_stale(monkeypatch, tmp_path):
    monkeypatch.setattr(pages.figures, "DOCS", tmp_path)
    for name in ("results", "pictures"):
        (tmp_path / name).mkdir()
    people = (ROOT / "docs" / "results" / "people.csv").read_bytes()
    (tmp_path / "results" / "people.csv").write_bytes(people)
    drawn = (ROOT / "docs" / "pictures" / "people.svg").read_text(encoding="utf-8")
    (tmp_path / "pictures" / "people.svg").write_text(drawn, encoding="utf-8")
    assert "pictures/people.svg" not in pages.figures.stale()
    (tmp_path / "results" / "people.csv").write_bytes(people.replace(b"235", b"236"))
    assert "pictures/people.svg" in pages.figures.stale()


def test_a_picture_of_other_scores_of_the_sample_is_stale(monkeypatch, tmp_path):
    sample = pages.sample_picture
    assert not sample.is_stale()
    scores = json.loads(sample.SCORES.read_text(encoding="utf-8"))
    scores["sample"]["0/scores.json"]["methods"]["threshold"]["total"]["clinical_agatston"] += 1
    (tmp_path / "regression.json").write_text(json.dumps(scores), encoding="utf-8")
    monkeypatch.setattr(sample, "SCORES", tmp_path / "regression.json")
    assert sample.is_stale()


def test_every_shipped_model_stands_beside_a_trivial_answer():
    table = model_tables.models_as_markdown()
    shipped = [model.card for model in list_models() if model.origin != "user"]
    assert table.count("\n") == len(shipped) + 1
    assert all(f"| {card.name}" in table for card in shipped)
    assert {card.network for card in shipped} == set(model_tables.STATEMENTS)
    assert "NAME" not in table
    assert "MAP" not in table


STORED = """quantity,part,map,map low,map high,note
κ,all,0.8,0.72499,0.8625,a
… gated (24 pairs),all,-0.12345,,,"b, {results/t.csv: κ | map}"
area,all,1.0,1.0,1.0,
area,LM,2.5,,,
"""


@pytest.fixture
def docs(tmp_path):
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "t.csv").write_text(STORED, encoding="utf-8")
    return tmp_path


def test_rows_are_named_and_figures_rounded(docs):
    rows = "κ = kappa\nκ … gated\narea / LM = left main"
    written = result_tables.table_as_markdown(f"results/t.csv: map = the map | note\n{rows}", docs)
    assert written.splitlines() == [
        "|  | the map | note |",
        "| --- | --- | --- |",
        "| kappa | .800\N{NO-BREAK SPACE}[.725,\N{NO-BREAK SPACE}.863] | a |",
        "| κ … gated (24 pairs) | -.123 | b, .800 [.725, .863] |",
        "| left main | 2.5 |  |",
    ]


def test_all_rows_of_a_first_cell_are_shown_by_their_second(docs):
    written = result_tables.table_as_markdown("results/t.csv: map\narea / *", docs)
    assert written.splitlines()[2:] == [
        "| all | 1.000\N{NO-BREAK SPACE}[1.000,\N{NO-BREAK SPACE}1.000] |",
        "| LM | 2.5 |",
    ]


@pytest.mark.parametrize("columns_and_rows", ["map\narea", "map\nno row", "map\nvolume / *", "no column"])
def test_an_unknown_row_or_column_of_a_table_is_an_error(docs, columns_and_rows):
    with pytest.raises(ValueError, match=r"t\.csv has no"):
        result_tables.table_as_markdown(f"results/t.csv: {columns_and_rows}", docs)


def test_figures_are_of_tables_and_cards(docs):
    card = {"validation": {"area": {"estimate": 0.754, "low": 0.61, "high": 1.0}, "patients": 48, "highest": 1237.7}}
    (docs / "any.json").write_text(json.dumps(card), encoding="utf-8")
    figures = ["results/t.csv: κ … gated | n", "results/t.csv: area / LM | map"]
    figures += [f"models/any: validation / {name}" for name in ("area", "patients", "highest")]
    texts = [result_tables.figure_as_text(figure, docs, docs) for figure in figures]
    assert texts == ["24 pairs", "2.5", ".75 [.61, 1.00]", "48", "1238"]
    for unknown in (
        "results/t.csv: κ | no column",
        "results/t.csv: no row | map",
        "models/any: no / key",
        "models/no: n",
    ):
        with pytest.raises(ValueError, match="no"):
            result_tables.figure_as_text(unknown, docs, docs)


def test_a_figure_in_a_sentence_is_written_and_needs_an_end():
    page = "Of <!-- figure models/map-compact: validation / whole_method / patients -->old<!-- end --> patients.\n"
    assert (written := pages.filled(page)) == page.replace("old", "150")
    assert pages.filled(written) == written
    for broken in (page.replace("<!-- end -->", ""), page.removeprefix("Of ")):
        with pytest.raises(ValueError, match="begins a line, or has no"):
            pages.filled(broken)


TYPES = {"object": dict, "array": list, "string": str, "number": (int, float), "integer": int, "boolean": bool}


def assert_described(value, schema, kinds):
    """Assert that the schema of a value names its type, and all its keys."""
    schema = kinds.get(schema.get("$ref", "").rpartition("/")[2], schema)
    if "anyOf" in schema:
        (part,) = (part for part in schema["anyOf"] if (part == {"type": "null"}) == (value is None))
        return assert_described(value, part, kinds)
    assert value in schema["enum"] if "enum" in schema else isinstance(value, TYPES.get(schema.get("type"), object))
    if "properties" in schema:
        assert set(schema["required"]) <= set(value) <= set(schema["properties"])
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in items:
        further = schema.get("additionalProperties") or schema.get("items") or schema.get("prefixItems", [{}])[0]
        assert_described(part, schema.get("properties", {}).get(key, further), kinds)
    return None


def test_the_schema_describes_results():
    schema = json.loads(result_schema.schema_as_json())
    kinds = schema["$defs"]
    assert set(kinds["ScoreRecord"]["required"]) <= set(whole_record()) <= set(kinds["ScoreRecord"]["properties"])
    assert kinds["SumScore"]["properties"]["agatston"] == {"type": "number"}
    automatic, outside_heart = automatic_patient.scored(), heart_with_territories.score()
    for result in (automatic, outside_heart):
        assert_described(json.loads(json.dumps(result.record.as_json())), schema, kinds)
    assert automatic.methods["threshold"].left_out
    assert outside_heart.record.outside


@pytest.mark.long
def test_the_site_loads_nothing_from_other_hosts(tmp_path):
    pytest.importorskip("mkdocs")
    command = [sys.executable, "-m", "CACTrainingLib.cli", "docs", "--output", str(tmp_path / "site")]
    path = os.pathsep.join(str(ROOT / name) for name in ("CACScoring", "CACTraining"))
    built = subprocess.run(command, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    pages = list((tmp_path / "site").rglob("*.html"))
    assert len(pages) > len(PAGES)
    loads = re.compile(r"<(?:script|img|iframe|source)[^>]+src=\"?(?:https?:)?//|<link[^>]+href=\"?https?://")
    for page in pages:
        text = page.read_text(encoding="utf-8")
        loaded = loads.findall(text)
        assert (page.name, loaded) == (page.name, [])
        assert 'data-md-component="source"' not in text  # would request the number of stars from GitHub
    styles = "".join(file.read_text(encoding="utf-8") for file in (tmp_path / "site").rglob("*.css"))
    assert not re.search(r"(?:url\(|@import )[\"']?(?:https?:)?//", styles)
    for page in ("reference/commands", "reference/warnings", "results"):
        assert "<table>" in (tmp_path / "site" / f"{page}.html").read_text(encoding="utf-8")
    schema = (tmp_path / "site" / "reference" / "scores.schema.json").read_text(encoding="utf-8")
    assert schema == result_schema.schema_as_json()
