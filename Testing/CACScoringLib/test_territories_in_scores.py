"""Scores of a heart whose territories are known: what counts as coronary calcium, by both methods and by a reader."""

from dataclasses import asdict, replace

import numpy as np
import pytest
import SimpleITK as sitk
from calcified_heart import BLOOD_HU
from handmade_networks import AboveBlood, AllSlices, LooksAsBright, LooksLike, loaded, scan_of
from known_territories import label_of, territories_of

from CACScoringLib.anatomy import heart_search
from CACScoringLib.core.ct import scan_from_image
from CACScoringLib.core.grid import Grid
from CACScoringLib.core.labels import Artery, NonCoronary
from CACScoringLib.models.choice import Networks
from CACScoringLib.networks.configs import GeneratorConfig, LesionNetConfig, SliceClassifierConfig
from CACScoringLib.pipeline import ScoreSettings, score_scan
from CACScoringLib.report.files import lesions_as_csv, write_images
from CACScoringLib.scoring.judge import STENT_PROBABILITY
from CACScoringLib.scoring.uncertainty import COUNTS_FROM, LesionCalibration

SPACING_MM = (1.0, 1.0, 3.0)
SHAPE = (24, 80, 80)
FORK = 40
"""Columns below belong to the aortic root, the others to the RCA."""
MUSCLE = 56
"""Rows from here on are muscle, far from arteries and valves."""
FAINT = (slice(16, 18), slice(50, 53), slice(60, 63))
"""A candidate in the RCA."""
PLAQUE = (slice(10, 13), slice(38, 42), slice(FORK - 8, FORK + 6))
"""Across both: 8 columns of the annulus touch 6 of the ostium."""


@pytest.fixture(scope="module")
def scan_and_heart():
    k, j, i = np.indices(SHAPE)
    heart = ((k - 12) * 3 / 33) ** 2 + ((j - 40) / 34) ** 2 + ((i - 40) / 34) ** 2 < 1
    hu = np.random.default_rng(0).normal(BLOOD_HU, 8, SHAPE)
    hu[PLAQUE] = 450
    hu[:, 0], hu[0, 0, 0] = -1000, 1200
    return scan_of(np.rint(hu).astype(np.int16), SPACING_MM, heart)


@pytest.fixture
def networks(scan_and_heart, monkeypatch):
    heart = scan_and_heart[1]
    names = np.where(np.arange(SHAPE[2]) < FORK, label_of("aortic valve and root"), label_of("RCA"))
    names = np.where(np.arange(SHAPE[1])[:, None] < MUSCLE, names, label_of("other"))
    names = names * (sitk.GetArrayViewFromImage(heart) > 0)
    monkeypatch.setattr(heart_search, "find_territories", lambda scan, *_: territories_of(names))
    slices, generator = loaded(AllSlices(), SliceClassifierConfig()), loaded(AboveBlood(), GeneratorConfig())
    lesions = loaded(LooksAsBright(), LesionNetConfig())
    return Networks(slices, generator, loaded(None, SliceClassifierConfig()), lesions)


def columns(image):
    return np.flatnonzero(sitk.GetArrayFromImage(image).any((0, 1)))


def test_an_annulus_that_touches_an_ostium_is_not_coronary(scan_and_heart, networks):
    scan, heart = scan_and_heart
    result = score_scan(scan, heart=heart, networks=networks)
    clinical, elsewhere = result.methods["threshold"], result.record.non_coronary
    assert [lesion.site for lesion in clinical.lesions] == [Artery.RCA]
    assert clinical.arteries[Artery.RCA].volume_mm3 == 3 * 4 * 6 * 3
    assert elsewhere.scores[NonCoronary.AORTIC_VALVE].volume_mm3 == 3 * 4 * 8 * 3
    assert not clinical.reviewed
    assert not elsewhere.reviewed
    assert columns(clinical.lesion_set.label_image(scan.image))[0] == FORK
    mapped = result.methods["decomposition"]
    assert [lesion.site for lesion in mapped.lesions] == [Artery.RCA]
    assert columns(result.decomposition.image())[0] == FORK
    assert {lesion.verdict.artery for lesion in mapped.lesions} == {Artery.RCA}


def with_box(scan, box, hu):
    """A scan whose voxels in a box, [k, j, i], are all as bright."""
    values = sitk.GetArrayFromImage(scan.image)
    values[box] = hu
    image = Grid.of(scan.image).image(values)
    return scan_from_image(image, scan.acquisition)


@pytest.fixture
def with_a_faint_one(scan_and_heart, networks):
    """A dense and a faint candidate in the RCA, both far from that of the annulus, and networks that judge them."""
    scan, heart = scan_and_heart
    k, j, _ = PLAQUE
    apart = with_box(with_box(scan, (k, j, slice(FORK, FORK + 6)), BLOOD_HU), (k, j, slice(FORK + 10, FORK + 16)), 450)
    return with_box(apart, FAINT, 150), heart, judging(networks)


def judging(networks):
    """The networks with a calibration of lesions."""
    generator = networks.decomposition
    card = replace(generator.card, calibration={"candidates": asdict(LesionCalibration())})
    return replace(networks, decomposition=replace(generator, card=card))


def test_a_possible_stent_counts_and_is_named_and_a_faint_stent_is_noise(with_a_faint_one):
    scan, heart, networks = with_a_faint_one
    cases = (0.99 - COUNTS_FROM, False, 2), (STENT_PROBABILITY - 0.01, False, 1), (STENT_PROBABILITY + 0.01, True, 1)
    for probability, named, lesions in cases:
        unsure = loaded(LooksLike("RCA", 1 - probability, "stent"), LesionNetConfig())
        result = score_scan(scan, heart=heart, networks=replace(calibrated(networks, 100.0), lesions=unsure))
        clinical = result.methods["threshold"]
        assert clinical.total.lesions == lesions
        assert (result.record.categories is None) == named  # without the stent another class
        assert (clinical.total.interval_90 is None) == named
        assert clinical.withheld == named
        if not named:
            low, high = clinical.total.interval_90
            assert low <= clinical.total.agatston <= high
        assert ("possible-stent" in [warning.code for warning in result.warnings]) == named


def test_an_automatic_score_counts_evident_candidates_and_keeps_the_rest(with_a_faint_one, tmp_path):
    scan, heart, networks = with_a_faint_one
    result = score_scan(scan, heart=heart, networks=networks)
    clinical = result.methods["threshold"]
    assert (clinical.status, clinical.reviewed, clinical.total.lesions) == ("automatic", False, 1)
    assert clinical.total.agatston == clinical.arteries[Artery.RCA].agatston == 3 * 4 * 6 * 4
    assert result.record.categories.status == "automatic"
    codes = [warning.code for warning in result.warnings]
    assert "automatic" in codes
    assert "unreviewed" not in codes
    document = result.record.as_json()
    assert document["candidate_evidence"] == {**asdict(LesionCalibration()), "counts_from": COUNTS_FROM}
    content = document["methods"]["threshold"]
    assert (content["status"], content["reviewed"]) == ("automatic", False)
    (excluded,) = content["left_out"]
    assert (excluded["artery"], excluded["suggested_artery"], excluded["peak_hu"]) == ("RCA", "RCA", 150.0)
    assert excluded["reason"] == "looks like noise or bright tissue"
    assert excluded["kinds"]["noise"] > 0.5
    assert excluded["probability"] < 0.5
    write_images(tmp_path, result)
    labels = sitk.GetArrayFromImage(sitk.ReadImage(tmp_path / "lesions.nii.gz"))
    assert set(np.unique(labels[FAINT])) == {Artery.UNASSIGNED}
    assert set(np.unique(labels)) == {0, Artery.RCA, Artery.UNASSIGNED, NonCoronary.AORTIC_VALVE}
    assert "threshold_left_out" in lesions_as_csv(result.record)
    # As it is, the label map is a reader's review of the same score.
    again = score_scan(scan, heart=heart, lesions=sitk.ReadImage(tmp_path / "lesions.nii.gz"), networks=networks)
    assert again.methods["threshold"].total == clinical.total
    assert again.record.as_json()["candidate_evidence"] is None
    assert again.record.categories.status == "reviewed"


def errors(spread):
    score_errors = {"spread": spread, "level": 0.9}
    return {kind: {"total": score_errors, "artery": score_errors} for kind in ("automatic", "decomposition")}


def calibrated(networks, noise_known_to):
    """The networks with errors of their scores, known for scans with noise up to this."""
    calibration_range = {"ranges": {"noise_hu": [0.0, noise_known_to, 5.0]}, "limit": 1.0}
    card = networks.decomposition.card
    certain = asdict(LesionCalibration(network=5.0))
    further = {"candidates": certain, "uncertainty": errors(0.1), "known": calibration_range}
    card = replace(card, calibration={**card.calibration, **further})
    return replace(networks, decomposition=replace(networks.decomposition, card=card))


@pytest.mark.parametrize("noise_known_to", [100.0, 5.0, 1.0])
def test_a_scan_unlike_the_calibration_has_wider_intervals_then_none(with_a_faint_one, noise_known_to):
    """The noise of the scan is 8 HU."""
    scan, heart, networks = with_a_faint_one
    networks = calibrated(networks, noise_known_to)
    result = score_scan(scan, heart=heart, networks=networks)
    codes = {warning.code for warning in result.warnings}
    clinical, distance = result.methods["threshold"], max(0.0, (result.record.measured.noise_hu - noise_known_to) / 5)
    assert result.record.measured.noise_hu == pytest.approx(8, abs=1)
    assert result.record.familiarity.distance == pytest.approx(distance)
    assert (clinical.status, clinical.total.agatston) == ("automatic", 3 * 4 * 6 * 4)
    if noise_known_to == 1.0:
        assert (result.record.categories, clinical.has_intervals, clinical.category_probabilities) == (None, False, {})
        assert not result.methods["decomposition"].has_intervals
        assert "beyond-calibration" in codes
        reviewed = score_scan(scan, heart=heart, lesions=sitk.Cast(heart, sitk.sitkUInt8) * 0, networks=networks)
        assert reviewed.record.categories.status == "reviewed", "what a person has reviewed is never withheld"
        assert "beyond-calibration" in {w.code for w in reviewed.warnings}, "what is unusual about the scan stays"
    else:
        spread = 1.645 * 0.1 * (1 + distance)
        ends = np.log1p(288) - spread, np.log1p(288) + spread
        assert np.log1p(clinical.total.interval_90) == pytest.approx(ends, abs=2e-3)
        assert ("unlike-calibration" in codes) == (distance > 0)


def test_metal_in_the_heart_withholds_automatic_categories(with_a_faint_one):
    scan, heart, networks = with_a_faint_one
    with_metal = with_box(scan, (slice(15, 18), slice(50, 54), slice(66, 70)), 2600)
    result = score_scan(with_metal, heart=heart, networks=calibrated(networks, 100.0))
    assert {"metal", "beyond-calibration"} <= {warning.code for warning in result.warnings}
    assert result.record.familiarity.causes == ("metal among the arteries",)
    assert (result.record.categories, result.methods["threshold"].has_intervals) == (None, False)


def test_candidates_are_all_listed_when_that_is_asked_for(with_a_faint_one):
    scan, heart, networks = with_a_faint_one
    result = score_scan(scan, ScoreSettings(candidates=True), heart=heart, networks=networks)
    clinical = result.methods["threshold"]
    assert (clinical.status, clinical.total.lesions, clinical.left_out) == ("candidates", 2, ())
    assert result.record.categories is None
    assert "unreviewed" in [warning.code for warning in result.warnings]


def test_a_reader_decides_for_himself(scan_and_heart, networks):
    scan, heart = scan_and_heart
    labels = np.zeros(SHAPE, np.uint8)
    labels[PLAQUE] = NonCoronary.MITRAL_ANNULUS
    labels[PLAQUE][:, :, 10:] = Artery.LM
    image = Grid.of(heart).image(labels)
    result = score_scan(scan, heart=heart, lesions=image, networks=networks)
    assert result.methods["threshold"].arteries[Artery.LM].volume_mm3 == 3 * 4 * 4 * 3
    assert result.record.non_coronary.reviewed
    assert result.record.non_coronary.scores[NonCoronary.MITRAL_ANNULUS].volume_mm3 == 3 * 4 * 10 * 3
    assert result.record.non_coronary.scores[NonCoronary.AORTIC_VALVE].lesions == 0


def test_a_reader_of_arteries_alone_leaves_the_rest_to_the_territories(scan_and_heart, networks):
    scan, heart = scan_and_heart
    labels = np.zeros(SHAPE, np.uint8)
    labels[PLAQUE][:, :, 4:] = Artery.RCA
    image = Grid.of(heart).image(labels)
    result = score_scan(scan, heart=heart, lesions=image, networks=networks)
    assert not result.record.non_coronary.reviewed
    assert result.record.non_coronary.scores[NonCoronary.AORTIC_VALVE].volume_mm3 == 3 * 4 * 4 * 3


def test_metal_counts_in_neither_method_and_has_a_single_warning(scan_and_heart, networks):
    scan, heart = scan_and_heart
    metal = slice(15, 18), slice(50, 54), slice(60, 64)
    result = score_scan(with_box(scan, metal, 2600), heart=heart, networks=judging(networks))
    assert [warning.code for warning in result.warnings].count("metal") == 1
    for method in result.methods.values():
        assert not method.lesion_set.id_map[metal].any()
        assert len(method.lesions) == 1
    assert not result.decomposition.hu[metal].any()


def test_the_map_without_completion_is_that_of_its_network(scan_and_heart, networks):
    """The network's map is empty; the clinical rule counts the plaque without doubt."""
    scan, heart = scan_and_heart
    certain = loaded(LooksLike("RCA", 0.99, "stent"), LesionNetConfig())
    empty = judging(replace(networks, decomposition=loaded(AboveBlood(1000), GeneratorConfig()), lesions=certain))
    completed, plain = (
        score_scan(scan, heart=heart, networks=empty, settings=ScoreSettings(without_completion=without)).record
        for without in (False, True)
    )
    assert completed.methods["decomposition"].total.agatston > 100
    assert plain.methods["decomposition"].total.agatston == 0
    assert plain.methods["threshold"].total == completed.methods["threshold"].total
    assert "map-completed" in {warning.code for warning in completed.warnings}
    assert "map-completed" not in {warning.code for warning in plain.warnings}
    written = [record.as_json()["decomposition_settings"] for record in (completed, plain)]
    assert [settings.get("without_completion") for settings in written] == [None, True]
