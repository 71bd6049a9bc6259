"""A reader's overrides of slices: `score --slice K=on|off`."""

import numpy as np
import pytest
import SimpleITK as sitk
from handmade_networks import AboveBlood, AllSlices, loaded, scan_of

from CACScoringLib.calcium_map.decomposition import DecompositionSettings, decompose_heart, healthy_image
from CACScoringLib.core.errors import CTError
from CACScoringLib.models.choice import Networks
from CACScoringLib.networks.configs import GeneratorConfig, SliceClassifierConfig
from CACScoringLib.pipeline import ScoreSettings, score_scan

BLOOD_HU = 40
LESIONS = {6: (20, 24), 14: (30, 34), 15: (30, 34)}
"""First and last row and column of a lesion, by slice."""
HEART = range(3, 21)


def lesion_scan(slice_mm):
    """Return the scan and its heart."""
    hu = np.full((24, 60, 60), BLOOD_HU, np.int16)
    hu[:, 0] = -1000
    for k, (low, high) in LESIONS.items():
        hu[k, low:high, low:high] = 300
    heart = np.zeros(hu.shape, np.uint8)
    heart[HEART.start : HEART.stop, 10:50, 10:50] = 1
    return scan_of(hu, (1.0, 1.0, slice_mm), heart)


def networks_of(shows):
    """Return a classifier that sees calcium in all slices or in none, and a generator."""
    classifier, generator = loaded(AllSlices(shows), SliceClassifierConfig()), loaded(AboveBlood(50), GeneratorConfig())
    return Networks(classifier, generator)


def scored(slice_mm=3.0, shows=True, **switched):
    scan, mask = lesion_scan(slice_mm)
    # Nothing is left out as improbable: what is tested is which slices count.
    limits = DecompositionSettings(min_healthy_hu=None)
    settings = ScoreSettings(decomposition=limits, slices={int(k[1:]): word == "on" for k, word in switched.items()})
    return score_scan(scan, settings, mask, networks=networks_of(shows))


def map_of(result):
    return result.decomposition.hu


def slices_with_calcium(result):
    return np.nonzero(map_of(result).any((1, 2)))[0].tolist()


@pytest.mark.parametrize("slice_mm", [1.5, 3.0])
def test_off_empties_the_slice_and_changes_no_other(slice_mm):
    before, after = map_of(scored(slice_mm)), scored(slice_mm, k14="off")
    is_on = np.arange(24) != 14
    assert before[14].any()
    assert not map_of(after)[14].any()
    np.testing.assert_array_equal(map_of(after)[is_on], before[is_on])
    healthy = sitk.GetArrayFromImage(healthy_image(after.scan.image, after.decomposition.image()))
    np.testing.assert_array_equal(healthy[14], sitk.GetArrayFromImage(after.scan.image)[14])


@pytest.mark.parametrize("slice_mm", [1.5, 3.0])
def test_on_scores_the_slice_as_if_the_network_agreed(slice_mm):
    everywhere, after = map_of(scored(slice_mm)), scored(slice_mm, shows=False, k6="on")
    np.testing.assert_array_equal(map_of(after)[6], everywhere[6])
    assert 6 in slices_with_calcium(after)
    assert not {14, 15} & set(slices_with_calcium(after))


@pytest.mark.parametrize(("by_reader", "expected"), [({14: False}, []), ({6: True}, [6, 14])])
def test_slices_of_coronary_candidates_are_decomposed(by_reader, expected):
    """They need no classifier; a reader may still switch them off."""
    scan, mask = lesion_scan(1.0)
    settings = DecompositionSettings(min_healthy_hu=None)
    heart = sitk.GetArrayFromImage(mask) > 0
    parts = decompose_heart(scan, heart, networks_of(shows=False), settings, by_reader, coronary_slices=(14,)).parts
    has_calcium = parts.hu.any((1, 2))
    assert [k for k in LESIONS if has_calcium[k] and k != 15] == expected  # slice 15 touches those of 14


def test_switched_slices_are_recorded():
    result = scored(k15="off", k14="off", k6="on")
    data = result.record.as_json()
    assert data["slices_by_reader"] == {"6": "on", "14": "off", "15": "off"}
    assert data["slices_decomposed"][6]
    assert not data["slices_decomposed"][14]
    [note] = [w.message for w in result.warnings if w.code == "slices-by-reader"]
    assert "slices 6 on and 14 to 15 off" in note
    untouched = scored()
    assert untouched.record.as_json()["slices_by_reader"] == {}
    assert not [w for w in untouched.warnings if w.code == "slices-by-reader"]


@pytest.mark.parametrize(("k", "message"), [("k24", "0 to 23"), ("k2", "2 shows no heart.*3 to 20")])
def test_slices_outside_the_scan_are_refused(k, message):
    with pytest.raises(CTError, match=message):
        scored(**{k: "on"})
