"""Features of a result as a sentence, as strips of its arteries, and as a table."""

import csv
import io
import re
from dataclasses import replace

import pytest
from made_results import make_result

from CACScoringLib.record.scores import LesionSet
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
    return made.stating(methods={"threshold": replace(method, features=features)})


def test_sentence_and_strips_have_shares_and_places(result):
    method = result.methods["threshold"]
    sentence, strips = features_sentence(method), artery_strips(method)
    assert "67 %" in sentence
    assert "35 mm from the ostium, 10 mm long" in strips
    html = page.result_as_html(result)
    assert sentence in html
    assert strips in html
    assert artery_strips(make_result().methods["threshold"]) == "", "without territories"
    for made in (make_result(reviewed=False), make_result(no_calcium=True)):
        assert features_sentence(made.methods["threshold"]) == ""


def test_the_number_is_that_of_the_largest_lesion_at_its_place(result):
    method = result.methods["threshold"]
    (small,), (lesion,) = method.lesions, method.features.lesions
    large = replace(small, id=2, agatston=521.0, clinical_agatston=521.0)
    adjacent, distant = replace(lesion, id=2, ostium_mm=36.0), replace(lesion, id=3, ostium_mm=90.0)
    features = replace(method.features, lesions=(lesion, adjacent, distant))
    crowded = replace(method, table=LesionSet.of((small, large, replace(small, id=3))), features=features)
    assert re.findall(r'text-anchor="middle" fill="currentColor">(\d+)</text>', artery_strips(crowded))[:2] == [
        "2",
        "3",
    ]


def test_the_table_has_rows_of_lesions_arteries_and_patient(result):
    lesion, artery, total = csv.DictReader(io.StringIO(report.features_as_csv(result.record)))
    assert (lesion["lesion"], artery["lesion"], total["lesion"]) == ("1", "", "")
    assert [row["artery"] for row in (lesion, artery, total)] == ["LAD", "LAD", "total"]
    assert lesion["ostium_mm"] == "35.000"
    assert artery["last_mm"] == "110.000"
    assert {row["volume_200_299_mm3"] for row in (lesion, artery, total)} == {"96.000"}
    assert (total["diseased_arteries"], total["diffusivity"], total["left_main"]) == ("1", "0.000", "False")
    assert float(total["agatston"]) == pytest.approx(64)
