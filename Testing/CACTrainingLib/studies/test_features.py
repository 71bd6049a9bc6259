"""Repeatability of features in handmade results whose agreement is known on paper."""

import json
from dataclasses import replace
from pathlib import Path

import digital_pairs
import numpy as np
import pytest
import SimpleITK as sitk
from study_tables import tables_of
from whole_records import whole_record

from CACScoringLib.core.grid import Grid
from CACTrainingLib.evaluation.measures import long_table
from CACTrainingLib.phantom.anatomy.coronaries import CoronaryTree, Vessel
from CACTrainingLib.phantom.anatomy.hearts.territories import territories
from CACTrainingLib.studies.features import DETECTABLE_FACTOR, _course_rows, _course_table, sections, true_features
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
    fat = {"volume_cm3": 100 * (1 + (diffusivity or 0)), "mean_hu": None}
    fat |= {"indexed_cm3_per_m2": None, "source": "territories-compact"}
    content = whole_record() | {"methods": {"threshold": method}, "epicardial_fat": fat}
    (folder / "scores.json").write_text(json.dumps(content), encoding="utf-8")
    return folder


def study_scan(patient, number):
    return StudyScan(f"{patient}-{number}", patient, Path("ct.nii.gz"), number=number)


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
    return {
        name: {row[0]: row[1:] for row in table.rows} for name, table in tables_of(sections(scans, folders, g)).items()
    }


def test_variation_and_detectable_change_are_those_of_the_differences(tables):
    agreement, variation, change = tables["features_threshold"]["diffusivity"]
    assert agreement.value > 0.98
    assert change.value == pytest.approx(DETECTABLE_FACTOR * 0.02 / np.sqrt(2))
    assert (variation.low < variation.value < variation.high, variation.n) == (True, 40)
    fat_agreement, _, fat_change = tables["features_threshold"]["epicardial_fat_cm3"]
    assert fat_agreement.value == pytest.approx(agreement.value)
    assert fat_change.value == pytest.approx(100 * change.value)


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


def vessel(name, artery, first_mm, last_mm):
    """Vessel along a straight line between two places, which lie whole millimetres apart along one axis."""
    steps = round(2 * np.abs(np.subtract(last_mm, first_mm)).sum()) + 1
    return Vessel(name, artery, np.linspace(first_mm, last_mm, steps), np.ones(steps))


TREE = CoronaryTree(
    (
        vessel("LM", "LM", (0, 0, 0), (10, 0, 0)),
        vessel("LAD", "LAD", (10, 0, 0), (100, 0, 0)),  # 90 mm long, its first third ends after 30 mm
        vessel("D1", "LAD", (30, 0, 0), (30, 40, 0)),  # 20 mm along the LAD
    ),
    "right",
)


def truth_of(*plaques):
    """Truth of plaques (vessel, middle in mm, mass in mg)."""
    artery = {vessel.name: vessel.artery for vessel in TREE.vessels}
    lesions = [
        {"artery": artery[name], "vessel": name, "middle_mm": middle, "mass_mg": mass, "volume_mm3": 2 * mass}
        for name, middle, mass in plaques
    ]
    by_artery = {key: sum(p["mass_mg"] for p in lesions if p["artery"] == key) for key in ("LM", "LAD", "LCX", "RCA")}
    return {"lesions": lesions, "mass_mg_by_artery": by_artery}


def test_true_features_are_those_of_the_plaques():
    truth = truth_of(("LM", 9, 4), ("LAD", 29, 3), ("LAD", 31, 6), ("D1", 9, 2), ("D1", 11, 5))
    patient = {"lesions": 5, "diseased_arteries": 2, "left_main": True, "largest_lesion_mm3": 12}
    shares = {"diffusivity": 1 - 16 / 20, "proximal_share": (4 + 3 + 2) / 20}
    assert true_features(truth, TREE) == pytest.approx(patient | shares)
    assert "proximal_share" not in true_features(truth, None)
    assert true_features(truth_of(), TREE) == {"lesions": 0, "diseased_arteries": 0, "left_main": False}


def test_first_scans_are_compared_with_the_truth(tmp_path):
    scans, folders = [], []
    for n, masses in enumerate(((3, 1), (2, 2), (9, 1))):  # true diffusivity 0.25, 0.5, 0.1
        truth = tmp_path / f"truth-{n}" / "truth.json"
        truth.parent.mkdir()
        content = truth_of(("LM", 5, masses[0]), ("LAD", 5, masses[1]))
        truth.write_text(json.dumps(content), encoding="utf-8")
        for number, diffusivity in ((1, (0.35, 0.3, 0.4)[n]), (2, 0.9)):
            folders.append(write(tmp_path / f"{n}-{number}", 20, diffusivity, None))
            scans.append(replace(study_scan(f"p{n}", number), truth=truth))
    table = tables_of(sections(scans, folders, np.random.default_rng(0)))["features_truth_threshold"]
    rows = {row[0]: row[1:] for row in table.rows}
    _, bias, error = rows["diffusivity"]
    assert (bias.value, error.value) == pytest.approx(((0.1 - 0.2 + 0.3) / 3, (0.1 + 0.2 + 0.3) / 3))
    assert bias.n == 3
    assert rows["left_main"][1].value == -1  # none of the results has calcium there
    assert rows["largest_lesion_mm3"][1].value == pytest.approx(9 - (6 + 4 + 18) / 3)


@pytest.mark.long
def test_courses_are_compared_with_true_centre_lines(tmp_path):
    folder = tmp_path / "scan"
    patient, _ = digital_pairs.write_coarse(digital_pairs.CALCIFIED, folder)
    image = sitk.ReadImage(str(folder / "ct.nii.gz"))
    labels = territories(patient, digital_pairs.POSES[0], Grid.of(image))
    sitk.WriteImage(Grid.of(image).image(labels), str(folder / "territories.nii.gz"))
    scan = StudyScan("a", "p0", folder / "ct.nii.gz", truth=folder / "truth.json")
    rows = _course_rows(scan, folder, scan.read_truth(), patient)
    for artery, error_mm in (("LAD", 8), ("RCA", 8), ("LCX", 12)):
        part = [row for row in rows if (row["method"], row["item"]) == (artery, "distance")]
        errors = [abs(row["value"] - row["truth"]) for row in part]
        assert len(errors) > 10
        assert np.mean(errors) < error_mm
    assert _course_table(long_table(rows), np.random.default_rng(0)).rows
