"""Masses without a threshold in report, JSON and CSV."""

import csv
import io
from dataclasses import replace

import pytest
from made_results import make_result

from CACScoringLib.report import files as report
from CACScoringLib.report import page
from CACScoringLib.report.mass_page import SOURCES, calibration_text, masses_as_html
from CACScoringLib.scoring.mass import MassCalibration


@pytest.fixture(scope="module")
def result():
    return make_result()


def test_the_report_tells_masses_and_their_calibration(result):
    html = page.result_as_html(result)
    total = result.methods["threshold"].mass_of()
    assert f"{total.integrated_mass_mg:.2f} ± {total.mass_standard_error_mg:.2f}" in html
    assert html.count("Calcium mass without a threshold") == 1
    assert masses_as_html(replace(result, mass_calibration=None)) is None


def test_no_error_is_told_of_a_mass_where_nothing_was_found(result):
    method = result.methods["threshold"]
    none = replace(method, lesions=replace(method.lesions, lesions=()))
    text = str(masses_as_html(replace(result, methods={"threshold": none})))
    assert "0.00" in text
    assert "±" not in text


@pytest.mark.parametrize("source", SOURCES)
def test_every_source_is_told(source):
    text = calibration_text(MassCalibration(source, 0.7221, 5.0, 36.4))
    assert SOURCES[source] in text
    assert all(part in text for part in ("0.722", "5 %", "36 cm"))
    assert "unknown uncertainty" in calibration_text(MassCalibration(source, 0.7))


def test_lesions_add_up_to_the_total(result):
    content = report.result_as_json(result, {})["methods"]["threshold"]
    rows = [row for row in csv.DictReader(io.StringIO(report.lesions_as_csv(result))) if row["method"] == "threshold"]
    total = content["total"]["integrated_mass_mg"]
    assert sum(lesion["integrated_mass_mg"] for lesion in content["lesions"]) == pytest.approx(total)
    assert sum(float(row["integrated_mass_mg"]) for row in rows) == pytest.approx(total, abs=0.01)
    assert sum(artery["integrated_mass_mg"] for artery in content["arteries"].values()) == pytest.approx(total)
