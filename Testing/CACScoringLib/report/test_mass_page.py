"""Masses without a threshold in report, JSON and CSV."""

import csv
import io

import pytest
from made_results import make_result

from CACScoringLib.record.findings import MassCalibration
from CACScoringLib.report import files as report
from CACScoringLib.report.page import SOURCES, calibration_text, result_as_html
from CACScoringLib.scoring.methods import mass_of


@pytest.fixture(scope="module")
def result():
    return make_result()


def test_masses_stand_with_their_error_and_calibration(result):
    html = result_as_html(result)
    total = mass_of(result.methods["threshold"])
    assert f"{total.integrated_mass_mg:.1f} ± {total.mass_standard_error_mg:.1f}" in html
    assert calibration_text(result.mass_calibration) in html
    assert html.count("Mass mg") == 2, "of arteries and of lesions"


@pytest.mark.parametrize("source", SOURCES)
def test_calibration_names_its_source_and_uncertainty(source):
    text = calibration_text(MassCalibration(source, 0.7221, 5.0, 36.4))
    assert all(part in text for part in (SOURCES[source], "0.722", "5 %", "36 cm"))
    assert "unknown uncertainty" in calibration_text(MassCalibration(source, 0.7))


def test_lesions_add_up_to_the_total(result):
    content = report.result_as_json(result, {})["methods"]["threshold"]
    rows = [
        row
        for row in csv.DictReader(io.StringIO(report.lesions_as_csv(report.record_of(result))))
        if row["method"] == "threshold"
    ]
    total = content["total"]["integrated_mass_mg"]
    assert sum(lesion["integrated_mass_mg"] for lesion in content["lesions"]) == pytest.approx(total)
    assert sum(float(row["integrated_mass_mg"]) for row in rows) == pytest.approx(total, abs=0.01)
    assert sum(artery["integrated_mass_mg"] for artery in content["arteries"].values()) == pytest.approx(total)
