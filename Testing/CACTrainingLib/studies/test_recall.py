"""Recall by segment: true lesions on analytic scans, answers of a patient of known score, tables and resumption."""

from dataclasses import replace

import automatic_patient
import numpy as np
import phantoms
import pytest
from in_this_process import InThisProcess
from study_tables import tables_of

from CACScoringLib.core.ct import Acquisition, scan_from_image
from CACScoringLib.core.errors import CTError
from CACScoringLib.core.labels import Artery
from CACTrainingLib.evaluation import jobs
from CACTrainingLib.phantom.cohort.segment_scans import SegmentPlaque, SegmentScan
from CACTrainingLib.studies import recall
from CACTrainingLib.studies.recall import Answers, RecallSettings, evaluate_recall, true_lesion

RCA = SegmentPlaque(2, 3, "RCA", 12.0, 400.0)


def test_a_plaque_is_a_lesion_from_1_mm2_at_130_hu():
    """Pixels of 0.6 mm have 0.36 mm², so that three of them make a lesion and two do not."""
    labels = np.zeros((8, 40, 40), np.uint8)
    phantom = phantoms.tissue((40, 40, 8), (0.6, 0.6, 3.0))
    for place, hu in (((3, 20, slice(10, 13)), 250), ((4, 20, slice(10, 12)), 600), ((5, 20, slice(10, 13)), 129)):
        inside = np.zeros(labels.shape, bool)
        inside[place] = True
        phantoms.paint(phantom, inside, hu, Artery.RCA)
        labels[inside] = RCA.id
    labels[3, 20, 13] = 1  # another plaque, right beside it
    scan = SegmentScan(scan_from_image(phantom.image, Acquisition("test")), labels, (RCA,))
    flat, score = true_lesion(scan, RCA)
    assert np.transpose(np.unravel_index(flat, labels.shape)).tolist() == [[3, 20, i] for i in (10, 11, 12)]
    assert score == {"agatston": pytest.approx(3 * 0.36 * 2), "peak_hu": 250}
    for plaque in (1, 3):
        assert true_lesion(scan, replace(RCA, id=plaque)) is None, "too small, or not in the scan"


def voxels(k, j, i):
    """Flat indices of a candidate of `automatic_patient`."""
    inside = np.zeros(automatic_patient.image().GetSize()[::-1], bool)
    inside[k : k + 2, j : j + 3, i : i + 3] = True
    return np.flatnonzero(inside)


def test_answers_name_the_artery_or_the_reason():
    result = automatic_patient.scored()
    answers = Answers(result)
    arteries = {lesion.site.key for lesion in result.methods["threshold"].lesions}
    for number, (k, j, i) in enumerate(automatic_patient.places()):
        # Territories are slabs along the table.
        artery = "LAD" if k < 7 else "LCX" if k < 11 else "RCA"
        row = answers.row(replace(RCA, artery=artery), voxels(k, j, i), {"agatston": 5.0})
        counts = number < 9
        assert (row["counted"], row["right"], row["share_right"]) == (counts, counts, float(counts)), number
        assert row["assigned"] == (artery if counts else None)
        assert (row["outcome"] == recall.COUNTED) == counts
        assert (row["probability"] >= 0.5) == counts
        assert row["agatston"] == 5.0
    assert arteries == {"LAD", "LCX", "RCA"}
    assert row["outcome"] == "looks like noise or bright tissue", "all evidence is the looks"
    (k, j, i), shifted = automatic_patient.places()[0], (0, 0, 2)
    flat = voxels(k + shifted[0], j + shifted[1], i + shifted[2])
    row = answers.row(replace(RCA, artery="LM"), flat, {})
    assert (row["counted"], row["right"]) == (True, False), "one column is enough"
    row = answers.row(RCA, np.arange(5), {})
    assert (row["counted"], row["map"], row["probability"], row["outcome"]) == (False, False, None, recall.NO_CANDIDATE)


def rows_of(number, protocol, counted):
    """Six lesions of a patient in two segments."""
    found = {"counted": counted, "right": counted, "map": True}
    outcome = recall.COUNTED if counted else "faint or absent in the calcium map"
    facts = {"mass_mg": 9.0, "density_mg_cm3": 400, "peak_hu": 300.0, "share_right": 1.0, "probability": 0.4}
    return [
        {"patient": number, "protocol": protocol, "plaque": plaque, "segment": 1 + plaque % 2, "artery": "RCA"}
        | {
            "agatston": 2.0 * plaque,
            "outcome": outcome,
            "assigned": ("LM" if plaque == 3 else "RCA") if counted else None,
        }
        | found
        | facts
        for plaque in range(1, 7)
    ]


@pytest.fixture
def scored(monkeypatch):
    """Jobs that were done; patient 970000 loses its lesions in gated scans, and 970003 cannot be scored."""
    done = []

    def answers(job):
        number, protocol, *_ = job
        done.append(job)
        if number == 970003:
            raise ValueError("no heart")
        return {"lesions": rows_of(number, protocol, counted=(number, protocol) != (970000, "cardiac"))}

    monkeypatch.setattr(jobs, "Workers", InThisProcess)
    monkeypatch.setattr(recall, "scoring_models", lambda _: {})
    monkeypatch.setattr(recall, "with_networks", lambda *_: answers)
    return done


def test_tables_of_known_answers(scored, tmp_path, monkeypatch):
    settings = RecallSettings(tmp_path / "out", patients=4)
    sections = []
    monkeypatch.setattr(recall, "write_study", lambda *given: sections.extend(given[2]) or given[0] / "study.html")
    evaluate_recall(settings)
    tables = tables_of(sections)
    gated, other = ({row[0]: row[1:] for row in tables[f"recall_{name}"].rows} for name in ("cardiac", "radiotherapy"))
    assert (gated["All"][0].value, gated["All"][0].n) == (pytest.approx(2 / 3), 18)
    assert (gated["2 RCA mid"][0].value, gated["2 RCA mid"][0].n) == (pytest.approx(2 / 3), 9)
    assert "3 RCA distal" not in gated
    assert gated["Agatston 3 to 10"][2].value == 1, "the map touches all"
    assert other["All"][0].value == 1
    arteries = [row for row in tables["recall_arteries"].rows if row[1] != ""]
    assert arteries == [("  RCA", 12, 0.143, 0.0, 0.0, 0.857), ("  RCA", 18, 0.143, 0.0, 0.0, 0.857)]
    losses = [row for row in tables["recall_losses"].rows if row[1] != ""]
    assert losses == [("  faint or absent in the calcium map", 6, 42.0, "2: 3, 1: 3")]
    assert any("2 scans failed" in text for text in sections[0].text)
    assert len((tmp_path / "out" / recall.LESIONS).read_text(encoding="utf-8").splitlines()) == 1 + 2 * 18


def test_only_what_failed_is_done_again(scored, tmp_path):
    settings = RecallSettings(tmp_path / "out", patients=4)
    page = evaluate_recall(settings)
    assert len(scored) == 8
    scored.clear()
    assert evaluate_recall(settings) == page
    assert {job[0] for job in scored} == {970003}


def test_refusals(scored, tmp_path):
    with pytest.raises(CTError, match="protocol 'angiography'"):
        evaluate_recall(RecallSettings(tmp_path / "out", protocols=("angiography",)))
    evaluate_recall(RecallSettings(tmp_path / "out", patients=2))
    with pytest.raises(CTError, match="another share"):
        evaluate_recall(RecallSettings(tmp_path / "out", patients=2, share=0.5))
    with pytest.raises(CTError, match="no heart"):
        evaluate_recall(RecallSettings(tmp_path / "none", patients=1, first_number=970003))
