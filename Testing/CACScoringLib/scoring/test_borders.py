"""Parts of calcium outside the arteries: how they are divided, which are asked about, and what follows."""

import numpy as np
from handmade_networks import LooksLike, loaded
from images import image_of
from known_territories import label_of, territories_of

from CACScoringLib.core.ct import Acquisition, CTScan
from CACScoringLib.core.labels import Artery, NonCoronary
from CACScoringLib.networks.configs import LesionNetConfig
from CACScoringLib.scoring import borders
from CACScoringLib.scoring.borders import PEAK_RISE_HU, border_parts, sites_by_looks


def valve_calcium(saddle_hu=400.0, reach=0.1):
    """Two peaks of 600 HU in one lesion of the valve, 16 voxels apart; `reach` is the RCA's probability at one end.

    Returns:
        Sites, scan and territories.
    """
    hu = np.full((20, 100, 100), 40)
    hu[9:12, 48:52, 38:62] = saddle_hu
    hu[9:12, 48:52, [40, 41, 57, 58]] = 600
    image = image_of(hu.astype(np.int16), (0.75, 0.75, 2.0))
    territories = territories_of(image, np.full(hu.shape, label_of("aortic valve and root")))
    territories.probability[label_of("RCA"), :, :, 60:] = reach
    sites = np.where(hu >= 130, np.uint8(NonCoronary.AORTIC_VALVE), np.uint8(0))
    return sites, CTScan(image, Acquisition("memory")), territories


def test_peaks_that_rise_above_their_saddle_divide_a_lesion():
    sites, scan, territories = valve_calcium()
    parts = border_parts(sites, scan, territories)
    assert parts.ids == [1, 2]
    assert Artery.RCA in parts.arteries
    assert parts.id_map[10, 50, 40] != parts.id_map[10, 50, 58]
    np.testing.assert_array_equal(parts.id_map > 0, sites == NonCoronary.AORTIC_VALVE)
    assert border_parts(*valve_calcium(saddle_hu=600 - PEAK_RISE_HU / 2)).ids == [1]


def test_only_the_largest_parts_are_asked_about(monkeypatch):
    sites, scan, territories = valve_calcium()
    monkeypatch.setattr(borders, "MAX_PARTS", 1)
    sites[9:12, 48:50, 38:50] = 0  # half of the left part
    parts = border_parts(sites, scan, territories)
    assert parts.ids == [1]
    assert parts.id_map[10, 50, [40, 58]].tolist() == [0, 1]


def test_calcium_that_no_artery_reaches_is_not_asked_about():
    parts = border_parts(*valve_calcium(reach=0))
    assert parts.ids == []
    assert not parts.id_map.any()


def test_parts_that_look_coronary_become_candidates():
    sites, scan, territories = valve_calcium()
    model = loaded(LooksLike(0.8, "aortic valve and root"), LesionNetConfig())
    reassigned = sites_by_looks(sites, scan, territories, model)
    np.testing.assert_array_equal(reassigned > 0, sites > 0)
    assert reassigned.max() <= max(Artery)
    assert reassigned[10, 50, 60] == Artery.RCA
    assert (sites == NonCoronary.AORTIC_VALVE).any(), "the argument stays as it was"
    model = loaded(LooksLike(0.3, "aortic valve and root"), LesionNetConfig())
    np.testing.assert_array_equal(sites_by_looks(sites, scan, territories, model), sites)
