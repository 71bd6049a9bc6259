"""Repeatability of features in handmade results whose agreement is known on paper."""

import json
from pathlib import Path

import digital_pairs
import numpy as np
import pytest
import SimpleITK as sitk
from whole_records import whole_record

from CACScoringLib.core.grid import Grid
from CACTrainingLib.evaluation.measures import long_table
from CACTrainingLib.phantom.anatomy.hearts.territories import territories
from CACTrainingLib.phantom.anatomy.patient import draw_patient
from CACTrainingLib.studies.features import DETECTABLE_FACTOR, _course_rows, _course_table, sections
from CACTrainingLib.studies.scans import StudyScan

DENSITY = dict.fromkeys(("sd_hu", "p10_hu", "median_hu", "p90_hu"), 100.0) | {
    f"volume_{name}_mm3": 1.0 for name in ("130_199", "200_299", "300_399", "400_999", "from_1000")
}


def write(folder, agatston, diffusivity, proximal_share):
    total = {**DENSITY, "mean_weight": 2.0, "mass_share": 1.0, "largest_lesion_mm3": 9.0}
    features = {
        "diseased_arteries": 2,
        "diffusivity": diffusivity,
        "left_main": False,
        "total": {**total, "proximal_share": proximal_share},
    }
    score = {"agatston": agatston, "clinical_agatston": agatston, "pseudo_mass_hu_mm3": 9.0, "lesions": 1}
    method = {"status": "automatic", "reviewed": False, "total": score, "arteries": {}, "features": features}
    folder.mkdir()
    content = whole_record() | {"methods": {"threshold": method}}
    (folder / "scores.json").write_text(json.dumps(content), encoding="utf-8")
    return folder


def study_scan(patient, number):
    return StudyScan(f"{patient}-{number}", patient, number, Path("ct.nii.gz"))


@pytest.fixture
def tables(tmp_path):
    """Tables of 40 pairs whose diffusivity repeats to ± 0.01; the proximal share repeats only from Agatston 100 on."""
    g = np.random.default_rng(0)
    scans, folders = [], []
    for n in range(40):
        high, diffusivity = n % 2, g.uniform(0, 0.6)
        for number in (1, 2):
            share = diffusivity if high else g.uniform()
            change = 0.01 if number == 1 else -0.01
            folders.append(write(tmp_path / f"{n}-{number}", 200 if high else 20, diffusivity + change, share))
            scans.append(study_scan(f"p{n}", number))
    (section,) = sections(scans, folders, g)
    return {table.name: {row[0]: row[1:] for row in table.rows} for table in section.tables}


def test_variation_and_detectable_change_are_those_of_the_differences(tables):
    agreement, variation, change = tables["features_threshold"]["diffusivity"]
    assert agreement.value > 0.98
    assert change.value == pytest.approx(DETECTABLE_FACTOR * 0.02 / np.sqrt(2))
    assert (variation.low < variation.value < variation.high, variation.n) == (True, 40)


def test_a_feature_may_be_used_from_the_score_at_which_it_repeats(tables):
    by_score = tables["features_by_score_threshold"]
    assert by_score["diffusivity"][-1] == "1"
    assert by_score["proximal_share"][-1] == "100"
    assert by_score["largest_lesion_mm3"][-1] == "not shown"  # it is the same in all, so that nothing can agree


def test_features_that_a_scan_lacks_are_in_no_pair(tmp_path):
    folders = [write(tmp_path / str(n), 20, 0.1 if n else None, None) for n in range(2)]
    scans = [study_scan("p0", 1), study_scan("p0", 2), study_scan("p1", 1)]
    (section,) = sections(scans, [*folders, "It could not be scored."], np.random.default_rng(0))
    names = {row[0] for row in section.tables[0].rows}
    assert "diseased_arteries" in names
    assert names.isdisjoint({"diffusivity", "proximal_share"})


@pytest.mark.long
def test_courses_are_compared_with_true_centre_lines(tmp_path):
    folder = tmp_path / "scan"
    digital_pairs.write_coarse(digital_pairs.CALCIFIED, folder)
    image = sitk.ReadImage(str(folder / "ct.nii.gz"))
    labels = territories(draw_patient(digital_pairs.CALCIFIED), digital_pairs.POSES[0], Grid.of(image))
    sitk.WriteImage(Grid.of(image).image(labels), str(folder / "territories.nii.gz"))
    rows = _course_rows(StudyScan("a", "p0", 1, folder / "ct.nii.gz", truth=folder), folder)
    for artery, error_mm in (("LAD", 8), ("RCA", 8), ("LCX", 12)):
        part = [row for row in rows if (row["method"], row["item"]) == (artery, "distance")]
        errors = [abs(row["value"] - row["truth"]) for row in part]
        assert len(errors) > 10
        assert np.mean(errors) < error_mm
    assert _course_table(long_table(rows), np.random.default_rng(0)).rows
