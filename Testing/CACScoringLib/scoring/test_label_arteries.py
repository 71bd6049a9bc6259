"""Labels of other conventions are found by the territories, and arteries can be assigned by them."""

import itertools

import heart_with_territories
import numpy as np
import phantoms
import pytest
import SimpleITK as sitk

from CACScoringLib.anatomy.heart_region import HeartRegion
from CACScoringLib.core.acquisition import Acquisition
from CACScoringLib.core.ct import CTScan, scan_from_image
from CACScoringLib.core.errors import MaskError
from CACScoringLib.core.grid import Grid
from CACScoringLib.core.labels import MAIN_ARTERIES, Artery
from CACScoringLib.facts.measurement import ScanFacts
from CACScoringLib.record.rules import ScoringRules
from CACScoringLib.scoring.label_arteries import artery_warnings, by_territory
from CACScoringLib.scoring.labels import ReaderLabels

LESIONS = dict(zip(MAIN_ARTERIES, heart_with_territories.calcium(), strict=True))
"""Calcium of 4 × 4 voxels in two slices in the territory of each artery."""


@pytest.fixture(scope="module")
def facts():
    """A heart whose four territories are those of the arteries, with calcium in each."""
    image = phantoms.tissue((60, 60, 14), (1.0, 1.0, 3.0)).image
    hu = sitk.GetArrayFromImage(image)
    for place in LESIONS.values():
        hu[place] = 300
    scan = scan_from_image(Grid.of(image).image(hu), Acquisition("test", kvp=120.0))
    places = dict(zip((artery.key for artery in MAIN_ARTERIES), heart_with_territories.boxes(), strict=True))
    return ScanFacts(scan, heart_with_territories.region_of(image, places), ScoringRules(), None, None, None)


def labelled(numbers, arteries=MAIN_ARTERIES):
    """Labels of the calcium of arteries by another numbering."""
    sites = np.zeros((14, 60, 60), np.uint8)
    for artery in arteries:
        sites[LESIONS[artery]] = numbers[artery]
    return sites


ORDERS = [dict(zip(MAIN_ARTERIES, order, strict=True)) for order in itertools.permutations(MAIN_ARTERIES)]


@pytest.mark.parametrize("order", ORDERS, ids=lambda order: "".join(str(int(n)) for n in order.values()))
def test_every_order_but_that_of_cac_is_found_and_stated(facts, order):
    warnings = artery_warnings(labelled(order), facts)
    assert [warning.code for warning in warnings] == ["labels-other-artery"] * (order != ORDERS[0])
    for warning in warnings:
        artery_of = {number: artery for artery, number in order.items()}
        assert ", ".join(f"{n.value} {artery_of[n].key}" for n in MAIN_ARTERIES) in warning.message
        assert warning.severe == (sum(artery == number for artery, number in order.items()) < 2)


@pytest.mark.parametrize("label", MAIN_ARTERIES)
def test_one_label_on_all_calcium_is_a_map_without_arteries(facts, label):
    (warning,) = artery_warnings(labelled(dict.fromkeys(MAIN_ARTERIES, label)), facts)
    assert (warning.code, warning.severe) == ("labels-other-artery", True)


@pytest.mark.parametrize("artery", MAIN_ARTERIES)
def test_one_artery_alone_is_sound(facts, artery):
    assert artery_warnings(labelled({artery: artery}, [artery]), facts) == []


def test_an_lad_that_has_the_label_of_the_left_main_may_be_numbered_as_in_orcascore(facts):
    (warning,) = artery_warnings(labelled({Artery.LAD: 1, Artery.LCX: 2}, [Artery.LAD, Artery.LCX]), facts)
    assert "orCaScore" in warning.message


@pytest.mark.parametrize(("label", "other"), [(Artery.RCA, Artery.LAD), (Artery.LAD, Artery.RCA)])
@pytest.mark.parametrize(("rows", "is_doubted"), [(1, True), (0, False)])
def test_a_label_of_both_sides_of_the_heart_is_doubted(facts, label, other, rows, is_doubted):
    sites = labelled({label: label}, [label])
    sites[LESIONS[other]][0, :rows] = label
    warnings = artery_warnings(sites, facts)
    assert [(warning.code, warning.severe) for warning in warnings] == [("labels-other-artery", False)] * is_doubted


def test_three_voxels_of_another_artery_are_not_doubted(facts):
    sites = np.zeros((14, 60, 60), np.uint8)
    k, j, i = (side.start for side in LESIONS[Artery.RCA])
    sites[k, j, i : i + 3] = Artery.LCX
    assert artery_warnings(sites, facts) == []


def test_a_small_plaque_that_the_network_puts_elsewhere_is_not_doubted(facts):
    """The sample's 3 Agatston of the circumflex lie in the right artery's territory by the network."""
    sites = labelled({artery: artery for artery in MAIN_ARTERIES})
    voxels = sites[LESIONS[Artery.RCA]].reshape(-1)
    voxels[: int(0.05 * np.count_nonzero(sites))] = Artery.LCX
    sites[LESIONS[Artery.LCX]] = 0
    sites[LESIONS[Artery.RCA]] = voxels.reshape(sites[LESIONS[Artery.RCA]].shape)
    assert (sites == Artery.LCX).any()
    assert artery_warnings(sites, facts) == []


@pytest.mark.parametrize(("label", "distance_mm", "count"), [(1, 60, 1), (1, 20, 0), (2, 60, 0)])
def test_without_territories_a_left_main_longer_than_one_is_doubted(label, distance_mm, count):
    hu = np.zeros((4, 80, 80), np.int16)
    hu[1, 4, 4], hu[1, 4, 4 + distance_mm] = 300, 300
    scan = CTScan(sitk.GetImageFromArray(hu), Acquisition("test"))
    region = HeartRegion(np.ones(hu.shape, bool), None, "given", ())
    facts = ScanFacts(scan, region, ScoringRules(), None, None, None)
    sites = np.where(hu > 0, np.uint8(label), np.uint8(0))
    assert len(artery_warnings(sites, facts)) == count
    with pytest.raises(MaskError):
        by_territory(ReaderLabels(sites, ()), facts)


@pytest.mark.parametrize("label", [Artery.LM, Artery.RCA, Artery.OTHER, Artery.UNASSIGNED])
def test_arteries_by_territory_replace_all_labels_and_are_recorded(facts, label):
    reader = by_territory(ReaderLabels(labelled(dict.fromkeys(MAIN_ARTERIES, label)), ()), facts)
    assert (reader.sites == labelled(dict(zip(MAIN_ARTERIES, MAIN_ARTERIES, strict=True)))).all()
    assert [warning.code for warning in reader.warnings] == ["arteries-by-territory"]
