"""From a CT to its scores: candidates, reviewed lesions, warnings, categories."""

from dataclasses import replace

import kernel_scans
import numpy as np
import phantoms
import pytest
import SimpleITK as sitk

from CACScoringLib.core.ct import Acquisition, CTError, MaskError, scan_from_image
from CACScoringLib.core.labels import Artery
from CACScoringLib.pipeline import ScoreSettings, score_scan
from CACScoringLib.report.files import result_as_text
from CACScoringLib.scoring.scores import Score

ACQUISITION = Acquisition("test", kvp=120.0, slice_thickness_mm=3.0)


def image_like(labels, image):
    result = sitk.GetImageFromArray(labels.astype(np.uint8))
    result.CopyInformation(image)
    return result


@pytest.fixture
def heart_with_two_lesions():
    """Scan, heart mask and reader's labels: an LAD lesion of 16 mm² at 250 HU, an RCA lesion of 4 mm² at 500 HU."""
    phantom = phantoms.tissue((60, 60, 12), (1.0, 1.0, 3.0))
    noise = np.random.default_rng(0).normal(0, 8, phantom.labels.shape).round()
    hu = sitk.GetArrayFromImage(phantom.image) + noise
    hu[5, 20:24, 20:24] = 250
    hu[7, 40:42, 40:42] = 500
    image = image_like(np.zeros(hu.shape), phantom.image)
    image = sitk.GetImageFromArray(hu.astype(np.int16))
    image.CopyInformation(phantom.image)
    labels = np.zeros(hu.shape, np.uint8)
    labels[5, 18:26, 18:26] = Artery.LAD
    labels[7, 38:44, 38:44] = Artery.RCA
    heart = np.zeros(hu.shape, np.uint8)
    heart[1:11, 8:52, 8:52] = 1
    return scan_from_image(image, ACQUISITION), image_like(heart, image), image_like(labels, image)


def codes(result):
    return {w.code for w in result.warnings}


def test_reviewed_lesions_are_scored_per_artery(heart_with_two_lesions):
    scan, heart, labels = heart_with_two_lesions
    result = score_scan(scan, heart=heart, lesions=labels).methods["threshold"]
    assert result.reviewed
    assert result.arteries[Artery.LAD].agatston == pytest.approx(16 * 2)
    assert result.arteries[Artery.RCA].agatston == pytest.approx(4 * 4)
    assert result.total.agatston == pytest.approx(48)
    assert result.total.mass_mg is None


def test_without_labels_candidates_are_unassigned_and_unreviewed(heart_with_two_lesions):
    scan, heart, _ = heart_with_two_lesions
    result = score_scan(scan, heart=heart)
    method = result.methods["threshold"]
    assert not method.reviewed
    assert method.arteries[Artery.UNASSIGNED].agatston == pytest.approx(48)
    assert all(score.lesions == 0 for artery, score in method.arteries.items() if artery != Artery.UNASSIGNED)
    assert result.categories is None
    assert "unreviewed" in codes(result)


def test_candidates_outside_the_heart_do_not_count(heart_with_two_lesions):
    scan, heart, _ = heart_with_two_lesions
    cut = sitk.GetArrayFromImage(heart)
    cut[6:] = 0
    result = score_scan(scan, heart=image_like(cut, heart))
    assert result.methods["threshold"].total.agatston == pytest.approx(32)


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
    assert (method.reviewed, method.no_calcium, method.total) == (True, True, Score())
    assert (result.categories.risk_class, result.categories.cac_drs) == ("0", "A0")
    assert result.categories.arterial_age_years == pytest.approx(39.1)
    assert "reviewed-empty" in codes(result)
    assert "unreviewed" not in codes(result)


def test_labels_that_are_all_unassigned_are_no_review(heart_with_two_lesions):
    scan, heart, labels = heart_with_two_lesions
    unassigned = sitk.Cast(labels > 0, sitk.sitkUInt8) * int(Artery.UNASSIGNED)
    with pytest.raises(MaskError, match="not been reviewed"):
        score_scan(scan, heart=heart, lesions=unassigned)


def test_a_label_without_meaning_is_refused(heart_with_two_lesions):
    scan, heart, labels = heart_with_two_lesions
    with pytest.raises(MaskError, match=r"label 7; valid labels are 1 LM, 2 LAD"):
        score_scan(scan, heart=heart, lesions=sitk.ChangeLabel(labels, {4.0: 7.0}))


def test_metal_is_no_candidate_but_a_readers_label_stands(heart_with_two_lesions):
    scan, heart, labels = heart_with_two_lesions
    image = sitk.Image(scan.image)
    image[40, 40, 7] = 2500
    scan = scan_from_image(image, ACQUISITION)
    unreviewed = score_scan(scan, heart=heart)
    assert unreviewed.methods["threshold"].total.agatston == pytest.approx(32)
    assert not (unreviewed.methods["threshold"].lesions.artery_map()[7]).any()
    assert "metal" in codes(unreviewed)
    reviewed = score_scan(scan, heart=heart, lesions=labels)
    assert reviewed.methods["threshold"].total.agatston == pytest.approx(48)
    assert "metal" in codes(reviewed)


def test_categories_come_from_the_reviewed_total(heart_with_two_lesions):
    scan, heart, labels = heart_with_two_lesions
    categories = score_scan(scan, heart=heart, lesions=labels).categories
    assert (categories.risk_class, categories.cac_drs) == ("11–100", "A1/N2")
    assert categories.arterial_age_years == pytest.approx(39.1 + 7.25 * np.log(49))


def test_percentiles_need_sex_and_age(heart_with_two_lesions, tmp_path):
    scan, heart, labels = heart_with_two_lesions
    table = tmp_path / "table.csv"
    table.write_text("sex,age_from,age_to,p25,p50,p75\nF,45,54,0,10,100\n")
    with pytest.raises(CTError, match="sex and age_years"):
        score_scan(scan, ScoreSettings(percentile_table=table), heart, labels)
    known = ScoreSettings(percentile_table=table, sex="F", age_years=50)
    assert score_scan(scan, known, heart, labels).categories.percentile.at_least == 50


def test_thresholds_follow_the_tube_voltage_only_when_asked(heart_with_two_lesions):
    scan, heart, labels = heart_with_two_lesions
    low = scan_from_image(scan.image, Acquisition("test", kvp=80.0))
    plain = score_scan(low, heart=heart, lesions=labels).methods["threshold"]
    adapted = score_scan(low, ScoreSettings(adapt_to_tube_voltage=True), heart, labels).methods["threshold"]
    assert plain.total.agatston == pytest.approx(48)
    assert adapted.rules.threshold_hu == 177
    assert adapted.total.agatston == pytest.approx(16 * 1 + 4 * 3)


@pytest.mark.parametrize(
    ("name", "thickness_mm"),
    [
        ("tcga_thca/TCGA-DE-A4MA_petct_B30f_5mm_sp2p5.nii.gz", 5.0),  # every 2.5 mm
        ("acrin_flt_breast/013_petct_B10f_5mm.nii.gz", 5.0),  # every 4 mm
        ("lung_pet_ct_dx/A0001_philips_B_5mm.nii.gz", 5.0),  # every 5 mm
    ],
)
def test_overlapping_slices_of_real_scans_do_not_count_an_object_twice(real_ct, name, thickness_mm):
    """A cylinder of 300 HU, 40 mm tall, put into the heart scores area × weight 3 × 40 mm / 3 mm in any spacing."""
    original = scan_from_image(sitk.ReadImage(real_ct(name)), ACQUISITION)
    height, diameter = 40.0, 10.0
    hu = sitk.GetArrayFromImage(original.image).astype(float)
    spacing = original.image.GetSpacing()
    k0, j0, i0 = (n // 2 for n in hu.shape)
    _, rows, columns = np.ogrid[: hu.shape[0], : hu.shape[1], : hu.shape[2]]
    round_ = np.hypot((rows - j0) * spacing[1], (columns - i0) * spacing[0]) <= diameter / 2
    z = (np.arange(hu.shape[0]) - k0) * spacing[2]
    # How much of each slice's thickness the cylinder fills.
    share = np.clip(
        np.minimum(z + thickness_mm / 2, height / 2) - np.maximum(z - thickness_mm / 2, -height / 2), 0, None
    )
    share = (share / thickness_mm)[:, None, None] * round_
    image = sitk.GetImageFromArray(np.round(hu * (1 - share) + 350 * share).astype(np.int16))
    image.CopyInformation(original.image)
    labels = image_like((share > 0) * int(Artery.LAD), image)
    heart = image_like(np.broadcast_to(np.hypot(rows - j0, columns - i0) < 40, hu.shape), image)
    area = float(round_.sum()) * spacing[0] * spacing[1]
    scan = scan_from_image(image, ACQUISITION)
    measured = score_scan(scan, ScoreSettings(allow_contrast=True), heart, labels).methods["threshold"].total.agatston
    # Slices that the ends fill only half may weigh less: one slice at each end is the tolerance.
    assert measured == pytest.approx(area * 3 * height / 3, abs=area * 3 * spacing[2] / 3)


def test_a_sharp_scan_is_scored_as_its_filtered_self_and_shown_as_it_is():
    scan = kernel_scans.scan_with(kernel_scans.BONE, calcium=True)
    heart = np.zeros(scan.hu.shape, np.uint8)
    heart[:, 90:190, 90:190] = 1
    heart = image_like(heart, scan.image)
    result = score_scan(scan, heart=heart)
    by_hand = score_scan(result.normalisation.of(scan), ScoreSettings(normalisation="off"), heart)
    as_it_is = score_scan(scan, ScoreSettings(normalisation="off"), heart)
    assert result.scan is scan
    assert result.methods["threshold"].total == by_hand.methods["threshold"].total
    assert result.methods["threshold"].total != as_it_is.methods["threshold"].total
    assert result.normalisation.noise_hu == as_it_is.blood.noise_hu > result.blood.noise_hu
    assert "kernel-normalised" in codes(result)
    assert "brought to a soft kernel" in result_as_text(result)
    assert "normalised" not in result_as_text(as_it_is)
    assert "kernel-sharp" in codes(as_it_is)


def test_masses_without_a_threshold_need_no_calibration_of_the_scanner(heart_with_two_lesions):
    """Published values calibrate them, and leave the clinical mass unknown; a factor of the scanner gives both."""
    scan, heart, labels = heart_with_two_lesions
    published = score_scan(scan, heart=heart, lesions=labels)
    own = published.methods["threshold"]
    assert (published.mass_calibration.source, own.total.mass_mg) == ("published", None)
    assert own.mass_of().integrated_mass_mg > own.mass_of(Artery.LAD).integrated_mass_mg > 0
    assert own.mass_of(Artery.LCX).integrated_mass_mg == 0
    stated = replace(scan, acquisition=replace(ACQUISITION, mass_factor_patient=0.8))
    by_scanner = score_scan(stated, heart=heart, lesions=labels).methods["threshold"]
    assert by_scanner.total.mass_mg == pytest.approx(0.0008 * by_scanner.total.pseudo_mass_hu_mm3)
    ratio = by_scanner.mass_of().integrated_mass_mg / own.mass_of().integrated_mass_mg
    assert ratio == pytest.approx(0.8 / published.mass_calibration.mg_per_cm3_per_hu)


def test_so_many_candidates_that_they_are_noise_have_no_masses(heart_with_two_lesions, monkeypatch):
    monkeypatch.setattr("CACScoringLib.results.MOST_MEASURED", 1)
    scan, heart, labels = heart_with_two_lesions
    method = score_scan(scan, heart=heart, lesions=labels).methods["threshold"]
    assert (method.masses, method.mass_of().integrated_mass_mg) == (None, None)
