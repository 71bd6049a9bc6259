"""An interval is told in words that a reader can use, and drawn where it lies."""

import re
from dataclasses import replace

import automatic_patient
import pytest
from made_results import make_result

from CACScoringLib.core.ct import ScanWarning
from CACScoringLib.report.files import result_as_json, result_as_text
from CACScoringLib.report.first_pictures import largest_pictures
from CACScoringLib.report.headline import category_text, headline, interval_text, range_text, score_table, warning_lines
from CACScoringLib.report.page import result_as_html
from CACScoringLib.scoring.evidence import LeftOut
from CACScoringLib.scoring.uncertainty import CATEGORIES, TOTAL, Intervals

PROBABILITIES = dict(zip(CATEGORIES, (0.02, 0.78, 0.2, 0.0), strict=True))
INTERVALS = {TOTAL: Intervals((40.2, 130.4), (8.04, 26.0)), "LAD": Intervals((12.0, 40.0))}


def interval_as_html(method):
    return result_as_html(replace(make_result(), methods={"threshold": method}, categories=None))


@pytest.fixture
def method():
    clinical = make_result().methods["threshold"]
    automatic = replace(clinical, status="automatic", left_out=LeftOut(clinical.lesions.of(()), (), ()))
    return replace(automatic, intervals=INTERVALS, category_probabilities=PROBABILITIES)


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
    assert [row.name for row in arteries] == ["LM", "LAD", "LCX", "RCA"]
    assert re.findall(r"[\d–]+ \(\d+ %\)", category_text(method)) == ["1–99 (78 %)", "100–399 (20 %)"]
    assert "(99 %)" in category_text(replace(method, category_probabilities={"0": 1.0}))
    assert range_text(0.0, 0.3) == "0"


def test_doubtful_lesions_are_marked_in_table_picture_and_row():
    result = automatic_patient.scored()
    method = result.methods["threshold"]
    sure, *doubtful = method.suggestions
    chances = [replace(sure, not_coronary_probability=0.1)]
    chances += [replace(s, not_coronary_probability=0.11) for s in doubtful]
    method = replace(method, suggestions=tuple(chances))
    result = replace(result, methods={**result.methods, "threshold": method})
    ids = [s.lesion_id for s in doubtful]
    count = f"{len(ids)} of {len(chances)} doubtful"
    assert score_table(result.methods).rows[0].note == count
    assert count in result_as_text(result)
    captions = [picture.caption.split()[0] for picture in largest_pictures(result)]
    assert all(caption.endswith("?") == (int(caption.rstrip("?")) in ids) for caption in captions)
    reviewed = replace(method, status="reviewed", suggestions=())
    assert score_table({"threshold": reviewed}).rows[0].note == ""


def test_a_confirmed_score_has_not_the_doubt_of_an_automatic_score(method):
    warnings = (ScanWarning("beyond-calibration", "The scan is unlike others."), ScanWarning("noise", "It is noisy."))
    for methods, severe in (({"threshold": method}, [True, False]), (make_result().methods, [False, False])):
        assert [line.severe for line in warning_lines(warnings, methods)] == severe


def test_the_maps_score_is_drawn_at_its_interval(method):
    """Draw the score on the clinical scale, not the adjusted score."""
    total = replace(method.total, agatston=2000.0, clinical_agatston=80.0)
    html = interval_as_html(replace(method, total=total))
    x, width = map(float, re.search(r'<rect x="([\d.]+)" width="([\d.]+)" y="13"', html).groups())
    assert x < float(re.search(r'<circle cx="([\d.]+)"', html).group(1)) < x + width


def test_all_files_hold_the_interval(method):
    result = replace(make_result(), methods={"threshold": method})
    assert "40–130" in result_as_html(result)
    assert "40–130" in result_as_text(result)
    content = result_as_json(result, {})["methods"]["threshold"]
    assert content["total"]["interval_90"] == [40.2, 130.4]
    assert content["total"]["mass_interval_90"] == [8.04, 26.0]
    assert content["arteries"]["LAD"]["interval_90"] == [12.0, 40.0]
    assert content["arteries"]["RCA"]["interval_90"] is None


def test_an_automatic_score_of_0_has_a_row_for_each_artery(method):
    none = method.lesions.of(())
    empty = replace(method, lesions=none, status="automatic", left_out=LeftOut(none, (), ()))
    for intervals, has_arteries in ((INTERVALS, True), ({}, False)):
        html = result_as_html(replace(make_result(), methods={"threshold": replace(empty, intervals=intervals)}))
        assert ("left anterior descending" in html) == has_arteries
