"""An interval is told in words that a reader can use, and drawn where it lies."""

import re
from dataclasses import replace

import automatic_patient
import pytest
from made_results import make_result

from CACScoringLib.core.categories import CATEGORIES
from CACScoringLib.core.ct import ScanWarning
from CACScoringLib.core.labels import Artery, SiteMap
from CACScoringLib.record.scores import LesionSet
from CACScoringLib.report.files import result_as_text
from CACScoringLib.report.headline import category_text, headline, interval_text, range_text, score_table, warning_lines
from CACScoringLib.report.page import largest_pictures, result_as_html
from CACScoringLib.scoring.scores import method_score

PROBABILITIES = dict(zip(CATEGORIES, (0.02, 0.78, 0.2, 0.0), strict=True))


def with_intervals(method):
    total = replace(method.total, interval_90=(40.2, 130.4), mass_interval_90=(8.04, 26.0))
    lad = replace(method.arteries["LAD"], interval_90=(12.0, 40.0))
    return replace(method, total=total, arteries=SiteMap({**method.arteries, Artery.LAD: lad}))


def interval_as_html(method):
    return result_as_html(make_result().stating(methods={"threshold": method}, categories=None))


@pytest.fixture
def method():
    clinical = make_result().methods["threshold"]
    return replace(with_intervals(clinical), status="automatic", category_probabilities=PROBABILITIES)


def test_headline_and_table_state_score_interval_and_category(method):
    warnings = (
        ScanWarning("automatic", "The clinical score is automatic. Nobody has reviewed it."),
        ScanWarning("thick-slices", "Slices are 5 mm thick. Small lesions may be missed."),
        ScanWarning("contrast-enhanced", "The scan has contrast. Do not use the score."),
    )
    head = headline({"threshold": method}, None, warnings)
    assert "64" in head.score
    assert "40–130" in head.interval == interval_text(method)
    assert head.warning.code == "contrast-enhanced"
    codes = [line.code for line in warning_lines(warnings, {"threshold": method})]
    assert codes == ["contrast-enhanced", "thick-slices", "automatic"]
    total, *arteries = score_table({"threshold": method}).rows
    assert (total.cells[0], total.cells[-1]) == ("64.0", "40–130")
    assert [(row.name, row.cells[-1]) for row in arteries] == [("LM", ""), ("LAD", "12–40"), ("LCX", ""), ("RCA", "")]
    lad = replace(method.arteries["LAD"], interval_90=(12.0, 150.0))
    cut = replace(method, arteries=SiteMap({**method.arteries, Artery.LAD: lad}))
    assert score_table({"threshold": cut}).rows[2].cells[-1] == "12–130", "the total's end"
    assert re.findall(r"[\d–]+ \(\d+ %\)", category_text(method)) == ["1–99 (78 %)", "100–399 (20 %)"]
    assert "(99 %)" in category_text(replace(method, category_probabilities={"0": 1.0}))
    assert range_text(0.0, 0.3) == "0"


def test_doubtful_lesions_are_marked_in_table_picture_and_row():
    result = automatic_patient.scored()
    method = result.methods["threshold"]
    chances = [0.1, *[0.11] * (len(method.lesions) - 1)]
    lesions = tuple(
        replace(lesion, verdict=replace(lesion.verdict, not_coronary_probability=chance))
        for lesion, chance in zip(method.lesions, chances, strict=True)
    )
    method = replace(method, table=LesionSet.of(lesions, method.table.every))
    result = result.stating(methods={**result.methods, "threshold": method})
    ids = [lesion.id for lesion in lesions[1:]]
    count = f"{len(ids)} of {len(chances)} doubtful"
    assert score_table(result.methods).rows[0].note == count
    text = result_as_text(result)
    assert count in text
    assert f"{result.methods['decomposition'].total.clinical_agatston:.1f}" in text.replace(",", "")
    captions = [picture.caption.split()[0] for picture in largest_pictures(result)]
    assert all(caption.endswith("*") == (int(caption.rstrip("*")) in ids) for caption in captions)
    reviewed = replace(method, status="reviewed")
    assert score_table({"threshold": reviewed}).rows[0].note == ""
    assert interval_text(reviewed).endswith(" for the score of a second scan")


def test_confirmed_score_has_its_own_advice(method):
    warning = ScanWarning("beyond-calibration", "The scan is unlike others.")
    for methods, advice in (
        ({"threshold": method}, "Review the lesions"),
        (make_result().methods, "reviewed score holds"),
    ):
        (line,) = warning_lines((warning,), methods)
        assert advice in line.why
        assert not line.severe


def test_the_maps_score_is_drawn_at_its_interval(method):
    """Draw the score on the clinical scale, not the adjusted score."""
    total = replace(method.total, agatston=2000.0, clinical_agatston=80.0)
    html = interval_as_html(replace(method, total=total))
    x, width = map(float, re.search(r'<rect x="([\d.]+)" width="([\d.]+)" y="13"', html).groups())
    assert x < float(re.search(r'<circle cx="([\d.]+)"', html).group(1)) < x + width


def test_all_files_hold_the_interval(method):
    result = make_result().stating(methods={"threshold": method})
    assert "40–130" in result_as_html(result)
    assert "40–130" in result_as_text(result)
    content = result.record.as_json()["methods"]["threshold"]
    assert content["total"]["interval_90"] == [40.2, 130.4]
    assert content["total"]["mass_interval_90"] == [8.04, 26.0]
    assert content["arteries"]["LAD"]["interval_90"] == [12.0, 40.0]
    assert content["arteries"]["RCA"]["interval_90"] is None


def test_an_automatic_score_of_0_has_a_row_for_each_artery(method):
    unknown = method_score("automatic", method.rules, method.table.part([]))
    for empty, has_arteries in ((with_intervals(unknown), True), (unknown, False)):
        html = result_as_html(make_result().stating(methods={"threshold": empty}))
        assert ("left anterior descending" in html) == has_arteries
