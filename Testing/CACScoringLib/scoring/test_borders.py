"""Parts of calcium at the arteries' borders: how they are divided, which are asked about, and what follows."""

import numpy as np
import pytest
import torch
from handmade_networks import LooksLike, loaded
from images import image_of
from known_territories import label_of, territories_of
from torch import nn

from CACScoringLib.core.ct import Acquisition, CTScan
from CACScoringLib.core.labels import Artery, NonCoronary
from CACScoringLib.networks.configs import LESION_IMAGES, LesionNetConfig
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


@pytest.mark.parametrize(("probability", "expected"), [(0.8, None), (0.6, None), (0.2, NonCoronary.AORTIC_VALVE)])
def test_parts_in_an_artery_go_to_the_valve_that_they_look_like(probability, expected):
    sites, scan, territories = valve_calcium()
    sites[sites > 0] = Artery.RCA
    model = loaded(LooksLike(probability, "aortic valve and root"), LesionNetConfig())
    before = sites.copy()
    reassigned = sites_by_looks(sites, scan, territories, model)
    np.testing.assert_array_equal(reassigned, before if expected is None else np.where(before > 0, expected, 0))
    np.testing.assert_array_equal(sites, before, "the argument stays as it was")


@pytest.mark.parametrize("probability", [0.99, 0.6, 0.2])
def test_the_root_keeps_what_looks_coronary(probability):
    sites, scan, territories = valve_calcium()
    model = loaded(LooksLike(probability, "aortic valve and root"), LesionNetConfig())
    np.testing.assert_array_equal(sites_by_looks(sites, scan, territories, model), sites)


class LooksBySize(nn.Module):
    """Say with one probability that parts, and with another that whole lesions, are calcium of the LAD, else valve."""

    def __init__(self, part: float, lesion: float) -> None:
        super().__init__()
        self.looks = [LooksLike(probability, "aortic valve and root") for probability in (part, lesion)]

    def forward(self, x):
        is_lesion = (x[:, LESION_IMAGES - 1].sum((1, 2, 3)) > 0.75 * 3 * 4 * 24)[:, None]
        return torch.where(is_lesion, self.looks[1](x), self.looks[0](x))


@pytest.mark.parametrize(
    ("part", "lesion", "expected"),
    [(0.5, 0.1, NonCoronary.AORTIC_VALVE), (0.9, 0.2, Artery.RCA), (0.5, 0.5, Artery.RCA)],
    ids=["unclear parts follow their lesion", "clear parts do not", "all unclear"],
)
def test_unclear_parts_follow_their_lesion(part, lesion, expected):
    sites, scan, territories = valve_calcium()
    sites[sites > 0] = Artery.RCA
    model = loaded(LooksBySize(part, lesion), LesionNetConfig())
    reassigned = sites_by_looks(sites, scan, territories, model)
    np.testing.assert_array_equal(reassigned, np.where(sites > 0, expected, 0))


def test_lesions_of_an_artery_far_from_valves_are_not_asked_about():
    sites, scan, territories = valve_calcium(reach=1.0)
    sites[sites > 0] = Artery.RCA
    territories.probability[label_of("aortic valve and root")] = 0
    assert border_parts(sites, scan, territories).ids == []
