"""From a CT to its scores: candidates, reviewed lesions, warnings, categories."""

from dataclasses import replace

import kernel_scans
import numpy as np
import pytest
import SimpleITK as sitk
from noisy_hearts import noisy_heart

from CACScoringLib import api
from CACScoringLib.core.acquisition import Acquisition
from CACScoringLib.core.ct import scan_from_image
from CACScoringLib.core.errors import CTError, MaskError, NoHeartError
from CACScoringLib.core.grid import Grid
from CACScoringLib.core.labels import Artery
from CACScoringLib.pipeline import ScoreSettings, score_scan
from CACScoringLib.quality.normalisation import normalised
from CACScoringLib.record.rules import ScoringRules
from CACScoringLib.scoring.scores import score_of

ACQUISITION = Acquisition("test", kvp=120.0, slice_thickness_mm=3.0)


def image_like(labels, image):
    return Grid.of(image).image(labels.astype(np.uint8))


@pytest.fixture
def heart_with_two_lesions():
    """Scan, heart mask and reader's labels: an LAD lesion of 16 mm² at 250 HU, an RCA lesion of 4 mm² at 500 HU."""
    lesions = [(np.s_[5, 20:24, 20:24], 250), (np.s_[7, 40:42, 40:42], 500)]
    scan, heart = noisy_heart((12, 60, 60), lesions, slice_thickness_mm=3.0)
    labels = np.zeros(scan.hu.shape, np.uint8)
    labels[5, 18:26, 18:26] = Artery.LAD
    labels[7, 38:44, 38:44] = Artery.RCA
    return scan, heart, image_like(labels, heart)


def codes(result):
    return {w.code for w in result.warnings}


def test_reviewed_lesions_are_scored_per_artery(heart_with_two_lesions):
    scan, heart, labels = heart_with_two_lesions
    result = score_scan(scan, heart=heart, lesions=labels).methods["threshold"]
    assert result.reviewed
    assert result.arteries[Artery.LAD].agatston == pytest.approx(16 * 2)
    assert result.arteries[Artery.RCA].agatston == pytest.approx(4 * 4)
    assert result.total.agatston == pytest.approx(48)
    assert result.total.mass_mg == sum(lesion.integrated_mass_mg for lesion in result.lesions) > 0


def test_without_labels_candidates_are_unassigned_and_unreviewed(heart_with_two_lesions):
    scan, heart, _ = heart_with_two_lesions
    result = score_scan(scan, heart=heart)
    method = result.methods["threshold"]
    assert not method.reviewed
    assert method.arteries[Artery.UNASSIGNED].agatston == pytest.approx(48)
    assert all(score.lesions == 0 for artery, score in method.arteries.items() if artery != Artery.UNASSIGNED)
    assert result.record.categories is None
    assert "unreviewed" in codes(result)


def test_labels_left_unassigned_are_left_out_with_a_warning(heart_with_two_lesions):
    scan, heart, labels = heart_with_two_lesions
    relabelled = sitk.ChangeLabel(labels, {float(Artery.RCA): float(Artery.UNASSIGNED)})
    result = score_scan(scan, heart=heart, lesions=relabelled)
    assert result.methods["threshold"].total.agatston == pytest.approx(32)
    assert "unassigned-left-out" in codes(result)


def test_labels_outside_the_heart_count_with_a_warning(heart_with_two_lesions):
    scan, heart, labels = heart_with_two_lesions
    cut = sitk.GetArrayFromImage(heart)
    cut[6:] = 0
    result = score_scan(scan, heart=image_like(cut, heart), lesions=labels)
    assert result.methods["threshold"].total.agatston == pytest.approx(48)
    assert "label-outside-heart" in codes(result)


def test_an_empty_label_map_is_a_reviewed_score_of_0(heart_with_two_lesions):
    scan, heart, labels = heart_with_two_lesions
    result = score_scan(scan, heart=heart, lesions=labels * 0)
    method = result.methods["threshold"]
    assert (method.reviewed, method.no_calcium, method.total) == (True, True, score_of((), has_masses=True))
    assert (result.record.categories.risk_class, result.record.categories.cac_drs) == ("0", "A0")
    assert result.record.categories.arterial_age_years == pytest.approx(39.1)
    assert "labels-empty" in [warning.code for warning in result.warnings if warning.severe]
    assert "unreviewed" not in codes(result)


def test_labels_that_are_all_unassigned_are_no_review(heart_with_two_lesions):
    scan, heart, labels = heart_with_two_lesions
    unassigned = sitk.Cast(labels > 0, sitk.sitkUInt8) * int(Artery.UNASSIGNED)
    with pytest.raises(MaskError, match="not been reviewed"):
        score_scan(scan, heart=heart, lesions=unassigned)


def test_a_phantom_without_lungs_is_scored_by_a_readers_labels(heart_with_two_lesions):
    scan, _, labels = heart_with_two_lesions
    result = score_scan(scan, lesions=labels)
    assert result.methods["threshold"].total.agatston == pytest.approx(48)
    assert {"heart-not-found", "blood-unmeasured"} <= codes(result)
    for lesions in (None, labels * 0):
        with pytest.raises(NoHeartError, match="No lungs"):
            score_scan(scan, lesions=lesions)


@pytest.mark.parametrize(("blank", "expected"), [(0, True), (11, True), (None, False)])
def test_a_heart_that_reaches_blank_slices_is_cut(heart_with_two_lesions, blank, expected):
    scan, heart, labels = heart_with_two_lesions
    hu = scan.hu.copy()
    if blank is not None:
        hu[blank] = -1024
    changed = scan_from_image(Grid.of(scan.image).image(hu), ACQUISITION)
    assert ("heart-cut" in codes(score_scan(changed, heart=heart, lesions=labels))) == expected


def test_possible_metal_counts_with_a_severe_warning(heart_with_two_lesions):
    scan, heart, labels = heart_with_two_lesions
    image = sitk.Image(scan.image)
    image[40, 40, 7] = 2500
    scan = scan_from_image(image, ACQUISITION)
    for reader_labels in (None, labels):
        result = score_scan(scan, heart=heart, lesions=reader_labels)
        assert result.methods["threshold"].total.agatston == pytest.approx(48)
        assert "possible-metal" in [warning.code for warning in result.warnings if warning.severe]


def test_percentiles_need_sex_and_age(heart_with_two_lesions, tmp_path):
    scan, heart, labels = heart_with_two_lesions
    table = tmp_path / "table.csv"
    table.write_text("sex,age_from,age_to,p25,p50,p75\nF,45,54,0,10,100\n", encoding="utf-8")
    with pytest.raises(CTError, match="sex and age_years"):
        score_scan(scan, ScoreSettings(percentile_table=table), heart, labels)
    settings = ScoreSettings(percentile_table=table, sex="F", age_years=50)
    assert score_scan(scan, settings, heart, labels).record.categories.percentile.at_least == 50


def test_thresholds_follow_the_tube_voltage_unless_switched_off(heart_with_two_lesions):
    scan, heart, labels = heart_with_two_lesions
    low = scan_from_image(scan.image, Acquisition("test", kvp=80.0))
    adapted = score_scan(low, heart=heart, lesions=labels)
    plain = score_scan(low, ScoreSettings(adapt_to_tube_voltage=False), heart, labels).methods["threshold"]
    by_api = api.score(low, rules=ScoringRules(), heart=heart, lesions=labels, threshold_only=True)
    assert plain.total.agatston == by_api.total.agatston == pytest.approx(48)
    assert adapted.methods["threshold"].rules.threshold_hu == 177
    assert adapted.methods["threshold"].total.agatston == pytest.approx(16 * 1 + 4 * 3)
    assert "not-120-kvp" in codes(adapted)


def test_a_sharp_scan_is_scored_filtered_and_shown_unfiltered():
    scan = kernel_scans.scan_with(kernel_scans.BONE, calcium=True)
    heart = np.zeros(scan.hu.shape, np.uint8)
    heart[:, 90:190, 90:190] = 1
    heart = image_like(heart, scan.image)
    result = score_scan(scan, heart=heart)
    by_hand = score_scan(normalised(scan, result.record.normalisation), ScoreSettings(normalisation="off"), heart)
    as_it_is = score_scan(scan, ScoreSettings(normalisation="off"), heart)
    assert result.scan is scan
    assert result.methods["threshold"].total == by_hand.methods["threshold"].total
    assert result.methods["threshold"].total != as_it_is.methods["threshold"].total
    assert result.record.normalisation.noise_hu == as_it_is.record.measured.noise_hu > result.record.measured.noise_hu
    assert "kernel-normalised" in codes(result)
    assert "kernel-sharp" in codes(as_it_is)


def test_masses_without_a_threshold_need_no_calibration_of_the_scanner(heart_with_two_lesions):
    """Published values calibrate them, or a factor of the scanner; the mass of a score is no other."""
    scan, heart, labels = heart_with_two_lesions
    published = score_scan(scan, heart=heart, lesions=labels)
    method = published.methods["threshold"]
    calibration = published.record.mass_calibration
    assert calibration.source == "published"
    assert method.total.mass_mg > method.arteries[Artery.LAD].mass_mg > 0
    assert method.arteries[Artery.LCX].mass_mg == 0
    stated = replace(scan, acquisition=replace(ACQUISITION, mass_factor_patient=0.8))
    by_scanner = score_scan(stated, heart=heart, lesions=labels).methods["threshold"]
    ratio = by_scanner.total.mass_mg / method.total.mass_mg
    assert ratio == pytest.approx(0.8 / calibration.mg_per_cm3_per_hu)
