"""Lesions on objects whose answer is known on paper. Names of guarded faults: "Faults in existing tools"."""

import math

import numpy as np
import phantoms
import pytest
import SimpleITK as sitk

from CACScoringLib.core.ct import Acquisition
from CACScoringLib.core.decoding import content_of, restore
from CACScoringLib.core.errors import CTError, MaskError
from CACScoringLib.core.labels import Artery
from CACScoringLib.record.rules import TUBE_VOLTAGE_BOUNDS_HU, ScoringRules, rules_for_tube_voltage
from CACScoringLib.scoring.lesions import find_lesions

NO_MINIMUM = ScoringRules(minimum_area_mm2=0.0)


def lesions_of(voxels, hu=250.0, artery=Artery.LAD, rules=NO_MINIMUM, size=(8, 8, 5), spacing_mm=(1.0, 1.0, 3.0)):
    """Lesions of one object made of single voxels (k, j, i)."""
    phantom = phantoms.tissue(size, spacing_mm, pixel_type=sitk.sitkFloat64)
    phantoms.paint_voxels(phantom, voxels, hu, artery)
    return find_lesions(phantom.image, phantom.labels, rules).lesions


# --- threshold and weights


@pytest.mark.parametrize(
    ("peak_hu", "weight"), [(130, 1), (199.5, 1), (200, 2), (299.5, 2), (300, 3), (399.5, 3), (400, 4)]
)
def test_weight_of_a_component_by_its_peak(peak_hu, weight):
    """Guards: > 130 instead of >=; cut-offs 199/299/399; 199.5 HU falling between integer bins."""
    (lesion,) = lesions_of([(2, 3, 3)], peak_hu)
    (component,) = lesion.components
    assert component.weight == weight
    assert component.peak_hu == peak_hu


def test_facts_of_a_component_and_a_lesion():
    phantom = phantoms.tissue((8, 8, 5), (0.5, 2.0, 3.0))
    phantoms.paint_voxels(phantom, [(1, 3, 3), (1, 3, 4)], 150, Artery.LM)
    phantoms.paint_voxels(phantom, [(1, 3, 5), (2, 3, 5)], 330, Artery.LM)
    (lesion,) = find_lesions(phantom.image, phantom.labels, ScoringRules()).lesions
    low, high = lesion.components
    assert (low.voxels, low.area_mm2, low.peak_hu, low.weight, low.agatston) == (3, 3.0, 330, 3, 9)
    assert (high.voxels, high.area_mm2, high.peak_hu, high.weight, high.agatston) == (1, 1.0, 330, 3, 3)
    assert (lesion.voxels, lesion.peak_hu, lesion.mean_hu, lesion.agatston) == (4, 330, 240, 12)


# --- size


@pytest.mark.parametrize(
    ("spacing_mm", "pixels", "expected_count"),
    [
        ((1.0, 1.0, 3.0), 1, True),
        ((0.999, 1.0, 3.0), 1, False),
        ((0.9999999, 1.0, 3.0), 1, True),  # 1 mm as a file in single precision may give it
        ((0.5, 0.5, 3.0), 4, True),
        ((0.5, 0.5, 3.0), 3, False),
        ((0.5, 2.0, 3.0), 1, True),  # square pixels assumed: 0.25 mm²
        ((2.0, 0.49, 3.0), 1, False),  # square pixels assumed: 4 mm²
        ((0.99, 1.0, 9.0), 1, False),  # not a volume
    ],
)
def test_components_below_a_square_millimetre_are_dropped(spacing_mm, pixels, expected_count):
    """Guards: square pixels assumed; the minimum taken as more than 1 mm² instead of at least."""
    lesions = lesions_of([(2, 3, 2 + n) for n in range(pixels)], rules=ScoringRules(), spacing_mm=spacing_mm)
    assert len(lesions) == expected_count


# --- the lesion map


def test_ids_run_by_artery_then_from_head_to_feet():
    phantom = phantoms.tissue((8, 8, 7), (1.0, 1.0, 3.0))
    blocks = [(Artery.RCA, 6), (Artery.LAD, 1), (Artery.LAD, 5), (Artery.LM, 0), (Artery.LAD, 3)]
    for artery, k in blocks:
        phantoms.paint_voxels(phantom, [(k, 3, 3 if artery == Artery.LAD else 6)], 300, artery)
    lesions = find_lesions(phantom.image, phantom.labels, ScoringRules())
    expected = [(1, Artery.LM, 0), (2, Artery.LAD, 5), (3, Artery.LAD, 3), (4, Artery.LAD, 1), (5, Artery.RCA, 6)]
    assert [(x.id, x.site, x.slices[0]) for x in lesions.lesions] == expected
    assert lesions.id_map.dtype == np.uint16
    for number, artery, k in expected:
        (at,) = np.argwhere(lesions.id_map == number)
        assert tuple(at) == (k, 3, 3 if artery == Artery.LAD else 6)
    assert np.array_equal(lesions.site_map(), phantom.labels)
    assert lesions.site_map().dtype == np.uint8


def test_lesions_taken_out_leave_the_map_as_a_look_up_of_every_voxel_does():
    phantom = phantoms.tissue((8, 8, 7), (1.0, 1.0, 3.0))
    for artery, k in [(Artery.LM, 1), (Artery.LAD, 3), (Artery.RCA, 5)]:
        phantoms.paint_voxels(phantom, [(k, 3, 3), (k, 3, 4)], 300, artery)
    lesions = find_lesions(phantom.image, phantom.labels, ScoringRules())
    selected = lesions.with_ids([1, 3])
    assert [lesion.site for lesion in selected.lesions] == [Artery.LM, Artery.RCA]
    np.testing.assert_array_equal(selected.id_map, np.array([0, 1, 0, 3], np.uint16)[lesions.id_map])
    assert np.array_equal(selected.voxels.flat, np.flatnonzero(selected.id_map))
    assert not lesions.with_ids([]).id_map.any()


def test_centroid_in_ras_with_turned_axes_and_origin():
    """i runs posterior by 1 mm, j right by 2 mm, k superior by 3 mm, from LPS (10, 20, 30)."""
    turned = (0.0, -1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0)
    phantom = phantoms.tissue((8, 8, 5), (1.0, 2.0, 3.0), turned, (10.0, 20.0, 30.0))
    phantoms.paint_voxels(phantom, [(2, 1, 3), (2, 1, 4), (3, 1, 3), (3, 1, 4)], 300, Artery.LAD)
    (lesion,) = find_lesions(phantom.image, phantom.labels, ScoringRules()).lesions
    # LPS of index (3.5, 1, 2.5): (10 - 2, 20 + 3.5, 30 + 7.5)
    assert lesion.centroid_ras_mm == pytest.approx((-8.0, -23.5, 37.5))


def specks(count):
    """Return an image with that many single dense voxels, none touching another."""
    hu = np.full((2, 512, 514), 40, np.int16)
    places = hu[0, ::2, ::2].copy()
    places.reshape(-1)[:count] = 150
    hu[0, ::2, ::2] = places
    return sitk.GetImageFromArray(hu), np.full(hu.shape, Artery.UNASSIGNED, np.uint8)


def test_more_lesions_than_the_map_can_number_is_an_error():
    with pytest.raises(CTError, match="65536 separate lesions"):
        find_lesions(*specks(65536), NO_MINIMUM)


@pytest.mark.parametrize(
    "labels",
    [
        np.ones((5, 8, 8), np.int16),
        np.ones((8, 8, 5), np.uint8),
        np.full((5, 8, 8), 7, np.uint8),
    ],
    ids=["int16", "other axis order", "label 7"],
)
def test_labels_that_are_no_artery_map_are_refused(labels):
    with pytest.raises(MaskError, match="labels"):
        find_lesions(phantoms.tissue((8, 8, 5), (1.0, 1.0, 3.0)).image, labels, ScoringRules())


# --- rules


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"threshold_hu": 200.0}, "must rise: 200, 200, 300, 400"),
        ({"threshold_hu": math.nan}, "threshold and three weight bounds"),
        ({"threshold_hu": 0.0}, "above 0 HU"),
        ({"weight_bounds_hu": (200.0, 300.0)}, "three weight bounds"),
        ({"connectivity": 6}, "4 or 8, not 6"),
        ({"minimum_area_mm2": -1.0}, "minimum_area_mm2 .* -1"),
        ({"minimum_pixels": -1}, "minimum_pixels"),
        ({"reference_spacing_mm": 0.0}, "reference spacing"),
        ({"calibration_mg_per_mm3_hu": 0.0}, "calibration"),
    ],
)
def test_impossible_rules_are_refused(wrong, message):
    with pytest.raises(CTError, match=message):
        ScoringRules(**wrong)


@pytest.mark.parametrize(("kvp", "bounds_hu"), [(70, (207, 318, 477, 636)), (100.0, (145, 222, 334, 446))])
def test_rules_by_tube_voltage(kvp, bounds_hu):
    mesa = ScoringRules(minimum_area_mm2=0.0, minimum_pixels=3, calibration_mg_per_mm3_hu=0.0008)
    rules = rules_for_tube_voltage(Acquisition("test", kvp=kvp, kernel="Qr36f"), mesa)
    assert (rules.threshold_hu, *rules.weight_bounds_hu) == bounds_hu
    assert [rules.weight(hu) for hu in bounds_hu] == [1, 2, 3, 4]
    assert (rules.minimum_area_mm2, rules.minimum_pixels) == (0, 3)
    assert rules.calibration_mg_per_mm3_hu == 0.0008
    assert f"{kvp:g} kVp" in rules.name
    assert set(TUBE_VOLTAGE_BOUNDS_HU) == {70, 80, 100, 135}


@pytest.mark.parametrize(
    ("rules", "name"),
    [
        (ScoringRules(calibration_mg_per_mm3_hu=0.0007), "Agatston, 130 HU"),
        (
            ScoringRules(threshold_hu=90.0, connectivity=4, minimum_area_mm2=0.5),
            "Agatston, 90 HU, changed: connectivity = 4, minimum_area_mm2 = 0.5",
        ),
        (
            rules_for_tube_voltage(Acquisition("test", kvp=100.0), ScoringRules(minimum_pixels=4)),
            "Agatston adapted to 100 kVp, 145 HU (Gräni 2018), changed: minimum_pixels = 4",
        ),
        (ScoringRules("MESA", minimum_pixels=4), "MESA"),
        (ScoringRules("Agatston, 130 HU", threshold_hu=90.0), "Agatston, 90 HU"),
    ],
)
def test_the_name_states_the_rules(rules, name):
    assert rules.name == name
    assert restore(content_of(rules), ScoringRules) == rules


@pytest.mark.parametrize(
    ("kvp", "kernel", "rules"),
    [
        *((kvp, None, ScoringRules()) for kvp in (None, 110.0)),
        (100.0, "Sa36f", ScoringRules()),
        (100.0, None, ScoringRules(threshold_hu=120.0)),
        (100.0, None, ScoringRules(weight_bounds_hu=(210.0, 300.0, 400.0))),
    ],
)
def test_other_rules_do_not_follow_the_tube_voltage(kvp, kernel, rules):
    assert rules_for_tube_voltage(Acquisition("test", kvp=kvp, kernel=kernel), rules) == rules
