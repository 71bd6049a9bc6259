"""Scores as tables of OMOP: every required column, links that hold, and nothing of a person but the site's own keys."""

import csv
import json

import pytest
from made_cohorts import cohort, content

from CACScoringLib.cli import main as cli
from CACScoringLib.cohort import omop
from CACScoringLib.cohort.omop import write_omop
from CACScoringLib.core.output import OutputError
from CACScoringLib.core.tables import TableError

KEYS = "folder,person_id,procedure_occurrence_id,image_occurrence_date,image_study_uid,image_series_uid"


def keys(folder, *lines):
    (folder / "keys.csv").write_text("\n".join([f"{KEYS},visit_occurrence_id", *lines]) + "\n")
    return folder / "keys.csv"


def rows(folder, name):
    with (folder / "omop" / f"{name}.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.fixture
def made(tmp_path):
    """Scans of 40 and 0, one that failed, and one that nobody asked for."""
    cohort(tmp_path, 40.0, None, 0.0, 7.0)
    record = json.loads((tmp_path / "cohort.json").read_text())
    record["made_with"] = {"models": {"heart": "compact 1a2b'); --"}}
    (tmp_path / "cohort.json").write_text(json.dumps(record))
    lines = [
        "Doe_Jane_2,12,500,20240131,st-2,se-2,",
        "Doe_Jane_0,11,501,2023-02-28,st-0,se-0,77",
        "Doe_Jane_1,11,502,2023-02-28,st-1,se-1,",
        "Doe_Jane_3,,,,,,",
    ]
    assert write_omop(tmp_path, keys(tmp_path, *lines)) == tmp_path / "omop"
    return tmp_path


def test_images_are_those_that_were_scored_and_asked_for(made):
    images = rows(made, "image_occurrence")
    assert [(i["image_occurrence_id"], i["person_id"], i["image_series_uid"]) for i in images] == [
        ("1", "12", "se-2"),
        ("2", "11", "se-0"),
    ]
    assert [(i["image_occurrence_date"], i["visit_occurrence_id"]) for i in images] == [
        ("2024-01-31", ""),
        ("2023-02-28", "77"),
    ]
    needed = ("procedure_occurrence_id", "image_study_uid", "modality_concept_id")
    assert all(image[name] for image in images for name in needed)


def test_each_measurement_is_a_feature_of_its_image(made):
    features, measured = rows(made, "image_feature"), rows(made, "measurement")
    assert [f["image_feature_event_id"] for f in features] == [m["measurement_id"] for m in measured]
    assert len({m["measurement_id"] for m in measured}) == len(measured)
    owner = {image["image_occurrence_id"]: image["person_id"] for image in rows(made, "image_occurrence")}
    assert all(
        owner[f["image_occurrence_id"]] == f["person_id"] == m["person_id"]
        for f, m in zip(features, measured, strict=True)
    )
    values = {(m["person_id"], m["measurement_source_value"]): m["value_as_number"] for m in measured}
    assert float(values["11", "cac/threshold/total/agatston"]) == 40.0
    assert float(values["11", "cac/threshold/LAD/volume"]) == 20.0
    assert float(values["12", "cac/threshold/total/agatston"]) == 0.0
    assert not any("decomposition" in name for _, name in values), "on the map's own scale only"
    assert not any("mass" in name for _, name in values), "no mass is known"
    assert {m["value_source_value"] for m in measured} == {"automatic"}
    assert {f["alg_system"] for f in features} == {"CAC: heart compact 1a2b --"}
    assert all(len(m["measurement_source_value"]) <= 50 for m in measured)


def test_nothing_else_of_a_person_is_written(made):
    written = "".join(file.read_text() for file in (made / "omop").iterdir())
    assert not any(secret in written for secret in ("Doe", "Jane", "/data", str(made)))


def test_candidates_are_no_score_and_a_map_has_its_clinical_scale(tmp_path, monkeypatch):
    def changed(agatston):
        known = content(agatston)
        known["methods"]["threshold"]["status"] = "candidates"
        known["methods"]["decomposition"]["total"] |= {"clinical_agatston": 33.0, "mass_mg": 2.5}
        return known

    monkeypatch.setattr("made_cohorts.content", changed)
    cohort(tmp_path, 40.0)
    write_omop(tmp_path, keys(tmp_path, "Doe_Jane_0,11,501,2023-02-28,st-0,se-0,"))
    found = {m["measurement_source_value"]: float(m["value_as_number"]) for m in rows(tmp_path, "measurement")}
    assert found == {"cac/decomposition/total/agatston": 33.0, "cac/decomposition/total/mass": 2.5}
    units = {m["measurement_source_value"]: m["unit_source_value"] for m in rows(tmp_path, "measurement")}
    assert units["cac/decomposition/total/mass"] == "mg"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("Doe_Jane_9,1,1,20240101,a,b,", "is none of"),
        ("Doe_Jane_0,x,1,20240101,a,b,", "a whole number"),
        ("Doe_Jane_0,4294967296,1,20240101,a,b,", "a whole number"),
        ("Doe_Jane_0,1,1,2024-13-01,a,b,", "no date"),
        ("Doe_Jane_0,1,1,20240101,,b,", "no image_study_uid"),
        (f"Doe_Jane_0,1,1,20240101,a,{'1' * 251},", "250 characters"),
        ("Doe_Jane_0,,,,,,", "no line with a person_id"),
        ("Doe_Jane_0,1,1,20240101,a,b,\nDoe_Jane_0,2,1,20240101,a,b,", "twice"),
    ],
)
def test_keys_that_are_refused(tmp_path, line, words):
    cohort(tmp_path, 40.0)
    with pytest.raises(TableError, match=words):
        write_omop(tmp_path, keys(tmp_path, line))
    assert not (tmp_path / "omop").exists()


def test_a_column_that_is_missing(tmp_path):
    cohort(tmp_path, 40.0)
    (tmp_path / "keys.csv").write_text("folder,person_id\nDoe_Jane_0,1\n")
    with pytest.raises(TableError, match="no column procedure_occurrence_id"):
        write_omop(tmp_path, tmp_path / "keys.csv")


def test_the_command(tmp_path, capsys):
    cohort(tmp_path, 40.0)
    assert cli.main(["cohort", "omop", str(tmp_path)]) == cli.BAD_USAGE
    assert "--keys" in capsys.readouterr().err
    line = "Doe_Jane_0,11,501,2023-02-28,st-0,se-0,"
    assert cli.main(["cohort", "omop", str(tmp_path), "--keys", str(keys(tmp_path, line))]) == 0
    assert str(tmp_path / "omop") in capsys.readouterr().out
    assert sorted(file.stem for file in (tmp_path / "omop").iterdir()) == sorted(omop.TABLES)
    with pytest.raises(OutputError, match=r"no scans\.parquet"):
        write_omop(tmp_path / "omop", tmp_path / "keys.csv")
