"""Scores of a heart whose territories are known: what counts as coronary calcium, by both methods and by a reader."""

import numpy as np
import pytest
import SimpleITK as sitk
from calcified_heart import BLOOD_HU, AboveBlood, AllSlices
from handmade_networks import loaded, scan_of
from known_territories import label_of, territories_of

from CACScoringLib.anatomy import heart_search
from CACScoringLib.core.ct import scan_from_image
from CACScoringLib.core.labels import Artery, NonCoronary
from CACScoringLib.networks.van_velzen import GeneratorConfig, SliceClassifierConfig
from CACScoringLib.pipeline import score_scan
from CACScoringLib.results import Networks

SPACING_MM = (1.0, 1.0, 3.0)
SHAPE = (24, 80, 80)
FORK = 40
"""Columns below belong to the aortic root, the others to the RCA."""
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
    names = names * (sitk.GetArrayViewFromImage(heart) > 0)
    monkeypatch.setattr(heart_search, "find_territories", lambda scan, model: territories_of(scan.image, names))
    slices, generator = loaded(AllSlices(), SliceClassifierConfig()), loaded(AboveBlood(), GeneratorConfig())
    return Networks(None, slices, generator, loaded(None, SliceClassifierConfig()))


def columns(image):
    return np.flatnonzero(sitk.GetArrayFromImage(image).any((0, 1)))


def test_an_annulus_that_touches_an_ostium_is_not_coronary(scan_and_heart, networks):
    scan, heart = scan_and_heart
    result = score_scan(scan, heart=heart, networks=networks)
    clinical, elsewhere = result.methods["threshold"], result.non_coronary
    assert [lesion.artery for lesion in clinical.lesions.lesions] == [Artery.RCA]
    assert clinical.arteries[Artery.RCA].volume_mm3 == 3 * 4 * 6 * 3
    assert elsewhere.scores[NonCoronary.AORTIC_VALVE].volume_mm3 == 3 * 4 * 8 * 3
    assert not clinical.reviewed
    assert not elsewhere.reviewed
    assert columns(clinical.lesions.label_image(scan.image))[0] == FORK
    mapped = result.methods["decomposition"]
    assert [lesion.artery for lesion in mapped.lesions.lesions] == [Artery.RCA]
    assert columns(result.decomposition.calcium_map)[0] == FORK
    assert {suggestion.artery for suggestion in mapped.suggestions} == {Artery.RCA}


def test_a_reader_decides_for_himself(scan_and_heart, networks):
    scan, heart = scan_and_heart
    labels = np.zeros(SHAPE, np.uint8)
    labels[PLAQUE] = NonCoronary.MITRAL_ANNULUS
    labels[PLAQUE][:, :, 10:] = Artery.LM
    image = sitk.GetImageFromArray(labels)
    image.CopyInformation(heart)
    result = score_scan(scan, heart=heart, lesions=image, networks=networks)
    assert result.methods["threshold"].arteries[Artery.LM].volume_mm3 == 3 * 4 * 4 * 3
    assert result.non_coronary.reviewed
    assert result.non_coronary.scores[NonCoronary.MITRAL_ANNULUS].volume_mm3 == 3 * 4 * 10 * 3
    assert result.non_coronary.scores[NonCoronary.AORTIC_VALVE].lesions == 0
    assert columns(result.decomposition.calcium_map)[0] < FORK, "what a reader labels as LM is in the map, too"


def test_a_reader_of_arteries_alone_leaves_the_rest_to_the_territories(scan_and_heart, networks):
    scan, heart = scan_and_heart
    labels = np.zeros(SHAPE, np.uint8)
    labels[PLAQUE][:, :, 4:] = Artery.RCA
    image = sitk.GetImageFromArray(labels)
    image.CopyInformation(heart)
    result = score_scan(scan, heart=heart, lesions=image, networks=networks)
    assert not result.non_coronary.reviewed
    assert result.non_coronary.scores[NonCoronary.AORTIC_VALVE].volume_mm3 == 3 * 4 * 4 * 3


def test_a_reader_of_other_sites_alone_found_no_coronary_calcium(scan_and_heart, networks):
    scan, heart = scan_and_heart
    labels = np.zeros(SHAPE, np.uint8)
    labels[PLAQUE] = NonCoronary.AORTIC_VALVE
    image = sitk.GetImageFromArray(labels)
    image.CopyInformation(heart)
    result = score_scan(scan, heart=heart, lesions=image)
    assert result.methods["threshold"].no_calcium
    assert result.categories.risk_class == "0"
    assert "reviewed-empty" in [warning.code for warning in result.warnings]
    assert result.non_coronary.reviewed


def test_without_territories_nothing_is_said_of_other_sites(scan_and_heart):
    scan, heart = scan_and_heart
    result = score_scan(scan, heart=heart)
    assert result.territories is None
    assert result.non_coronary is None
    assert {lesion.artery for lesion in result.methods["threshold"].lesions.lesions} == {Artery.UNASSIGNED}


def test_metal_counts_in_neither_method_and_is_told_once(scan_and_heart, networks):
    scan, heart = scan_and_heart
    hu = sitk.GetArrayFromImage(scan.image)
    hu[15:18, 50:54, 60:64] = 2600
    image = sitk.GetImageFromArray(hu)
    image.CopyInformation(scan.image)
    result = score_scan(scan_from_image(image, scan.acquisition), heart=heart, networks=networks)
    assert [warning.code for warning in result.warnings].count("metal") == 1
    for method in result.methods.values():
        assert not method.lesions.id_map[15:18, 50:54, 60:64].any()
        assert len(method.lesions.lesions) == 1
    assert not sitk.GetArrayViewFromImage(result.decomposition.calcium_map)[15:18, 50:54, 60:64].any()
