"""Features of a result as a sentence, as strips of its arteries, and as a table."""

import csv
import io
from dataclasses import replace

import pytest
from made_results import make_result

from CACScoringLib.core.labels import Artery
from CACScoringLib.report import files as report
from CACScoringLib.report import page
from CACScoringLib.report.headline import features_sentence
from CACScoringLib.report.page import artery_strips


@pytest.fixture(scope="module")
def result():
    """A reviewed lesion of the LAD, 30 to 40 mm from the ostium, two thirds of it proximal."""
    made = make_result()
    method = made.methods["threshold"]
    lesion = replace(method.features.lesions[0], ostium_mm=35.0, length_mm=10.0, in_proximal_third=2 / 3)
    artery = replace(method.features.arteries["LAD"], proximal_share=2 / 3, first_mm=10.0, last_mm=110.0)
    features = replace(method.features, arteries={"LAD": artery}, lesions=(lesion,))
    return replace(made, methods={"threshold": replace(method, features=features)})


def test_the_sentence_names_the_part_with_most_of_the_mass(result):
    method = result.methods["threshold"]
    sentence = "1 lesion in 1 artery, 67 % of the mass in the proximal LAD"
    assert features_sentence(method) == sentence
    assert sentence in page.result_as_html(result)
    assert sentence in report.result_as_text(result)
    assert features_sentence(make_result().methods["threshold"]) == "1 lesion in 1 artery"


def test_candidates_and_empty_scores_have_no_sentence():
    for made in (make_result(reviewed=False), make_result(no_calcium=True)):
        assert features_sentence(made.methods["threshold"]) == ""


def test_strips_show_lesions_in_their_places(result):
    svg = artery_strips(result.methods["threshold"])
    assert "Lesion 1: 35 mm from the ostium, 10 mm long" in svg
    assert ">LAD<" in svg
    assert svg in page.result_as_html(result)


def test_the_page_counts_lesions_that_are_not_drawn(result):
    assert "Not drawn" not in page.result_as_html(result)
    method = result.methods["threshold"]
    lesion = replace(method.features.lesions[0], ostium_mm=None, length_mm=None)
    features = replace(method.features, lesions=(lesion,))
    elsewhere = replace(result, methods={"threshold": replace(method, features=features)})
    assert "beyond their artery's territory: 1." in page.result_as_html(elsewhere)


def test_without_territories_the_page_says_that_places_are_unknown():
    made = make_result()
    assert artery_strips(made.methods["threshold"]) == ""
    assert "Places along the arteries are unknown" in page.result_as_html(made)


def test_the_table_has_rows_of_lesions_arteries_and_patient(result):
    lesion, artery, total = csv.DictReader(io.StringIO(report.features_as_csv(report.record_of(result))))
    assert (lesion["lesion"], artery["lesion"], total["lesion"]) == ("1", "", "")
    assert [row["artery"] for row in (lesion, artery, total)] == ["LAD", "LAD", "total"]
    assert lesion["ostium_mm"] == "35.000"
    assert artery["last_mm"] == "110.000"
    assert {row["volume_200_299_mm3"] for row in (lesion, artery, total)} == {"96.000"}
    assert (total["diseased_arteries"], total["diffusivity"], total["left_main"]) == ("1", "0.000", "False")
    assert float(total["agatston"]) == pytest.approx(64)


def test_the_record_holds_the_features(result):
    record = report.record_of(result).methods["threshold"]
    assert record.features == result.methods["threshold"].features
    assert record.features.patient["largest_lesion_mm3"] == 96
    assert record.arteries[Artery.LAD.key].lesions == 1
