"""Tables of scans with scores by artery."""

import json

import pytest

from CACScoringLib.core.errors import TableError
from CACScoringLib.core.labels import ARTERIES
from CACTrainingLib.data.scan_table import read_cts

HEAD = "name,patient,ct,agatston_LM,agatston_LAD,agatston_LCX,agatston_RCA\n"


@pytest.fixture
def table(tmp_path):
    (tmp_path / "a.nii.gz").touch()
    (tmp_path / "b.nii.gz").touch()

    def write(text):
        path = tmp_path / "own.csv"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_own_scans(table):
    text = HEAD.strip() + ",heart,sex,age_years,series,contrast\nx,7,a.nii.gz,1,2,3,4,b.nii.gz,F,61,12,1\n"
    path = table(text)
    (scan,) = read_cts(path)
    assert (scan.name, scan.patient, scan.series, scan.sex, scan.age_years) == ("x", "7", "12", "F", 61.0)
    assert (scan.ct, scan.heart) == (path.parent / "a.nii.gz", path.parent / "b.nii.gz")
    assert scan.scores == dict(zip(ARTERIES, (1.0, 2.0, 3.0, 4.0), strict=True))
    assert (scan.total, scan.bmi_kg_m2, scan.contrast) == (10.0, None, True)


@pytest.mark.parametrize(("contrast", "enhanced"), [(None, False), (False, False), (True, True)])
def test_digital_cohort(tmp_path, contrast, enhanced):
    """Five times the true mass; contrast from the cohort's settings."""
    place = tmp_path / "patient_00003" / "scan_1"
    place.mkdir(parents=True)
    (place / "ct.nii.gz").touch()
    head = "patient,folder,sex,age_years,bmi_kg_m2,mass_mg_LM,mass_mg_LAD,mass_mg_LCX,mass_mg_RCA\n"
    (tmp_path / "cohort.csv").write_text(head + "3,patient_00003/scan_1,M,60,25,0,2,0,0.5\n", encoding="utf-8")
    settings = {} if contrast is None else {"contrast": contrast}
    (tmp_path / "cohort.json").write_text(json.dumps({"settings": settings}), encoding="utf-8")
    (scan,) = read_cts(tmp_path)
    assert scan.scores == {"LM": 0.0, "LAD": 10.0, "LCX": 0.0, "RCA": 2.5}
    assert (scan.ct, scan.contrast) == (place / "ct.nii.gz", enhanced)
    (place / "ct.nii.gz").unlink()
    with pytest.raises(TableError, match=r"line 2 .* holds no ct\.nii\.gz"):
        read_cts(tmp_path)
