"""Verdicts about what is dense, and about the lesions of the map."""

from dataclasses import replace
from types import SimpleNamespace

import heart_with_territories as heart
import numpy as np
import pytest
import SimpleITK as sitk
from images import image_of
from map_lesions import found_in

from CACScoringLib.calcium_map.decomposition import DecompositionSettings
from CACScoringLib.core.acquisition import Acquisition
from CACScoringLib.core.ct import scan_from_image
from CACScoringLib.core.errors import ModelError
from CACScoringLib.core.labels import Artery, NonCoronary
from CACScoringLib.networks.configs import LESION_KINDS, LESION_PATCH
from CACScoringLib.record.rules import ScoringRules
from CACScoringLib.record.scores import Verdict
from CACScoringLib.scoring.judge import device_warning, judge_lesions, judge_map
from CACScoringLib.scoring.lesion_calibration import LesionCalibration
from CACScoringLib.scoring.lesion_network import WINDOWS_HU
from CACScoringLib.scoring.map_evidence import INTERCEPT
from CACScoringLib.scoring.uncertainty import ScoreCalibration

LAD, ROOT, ANNULUS, AORTA = heart.HU
"""HU of the calcium in the LAD, valve, annulus and descending aorta."""


class ByBrightness:
    """Network that answers by the HU of each voxel. answers: Probabilities by kind, by the nearest HU."""

    def __init__(self, answers):
        self.answers, self.patches = answers, 0

    def run(self, inputs):
        self.patches += len(inputs)
        low, high = WINDOWS_HU[1]
        hu = low + (high - low) * inputs[:, 2]
        levels = np.array(list(self.answers))
        nearest = np.abs(hu[..., None] - levels).argmin(-1)
        output = np.zeros((len(inputs), len(LESION_KINDS), *LESION_PATCH), np.float32)
        for number, kinds in enumerate(self.answers.values()):
            for kind, share in kinds.items():
                output[:, LESION_KINDS.index(kind)][nearest == number] = share
        return output


def judged(answers, calibration=None, scan=None):
    """Judge the scan of `heart_with_territories` by a network that answers by brightness."""
    scan = scan or heart.scan()
    network = SimpleNamespace(network=ByBrightness(answers))
    return judge_lesions(
        scan, heart.region(scan.image), ScoringRules(), 8.0, network, calibration or LesionCalibration()
    )


USUAL = {
    0: {"noise": 1.0},
    LAD: {"LAD": 0.9, "LM": 0.1},
    ROOT: {"aortic valve and root": 0.8, "RCA": 0.2},
    ANNULUS: {"mitral annulus": 1.0},
}


def sites(lesions):
    return {round(lesion.peak_hu): lesion.site for lesion in lesions.lesions}


def test_every_lesion_has_its_site_and_verdict():
    found = judged(USUAL).lesions
    expected = (Artery.LAD, NonCoronary.AORTIC_VALVE, NonCoronary.MITRAL_ANNULUS, NonCoronary.THORACIC_AORTA)
    assert sites(found) == dict(zip(heart.HU, expected, strict=True))
    verdicts = {round(lesion.peak_hu): lesion.verdict for lesion in found.lesions}
    assert verdicts[LAD].counts
    assert verdicts[LAD].confidence == pytest.approx(0.9, abs=0.01)
    assert verdicts[LAD].kinds["LAD"] == pytest.approx(0.9, abs=0.01)
    assert not verdicts[ROOT].counts
    assert verdicts[ROOT].probability == pytest.approx(0.2, abs=0.01)
    assert verdicts[ROOT].reason == "looks like calcium of the aortic valve or root"
    assert verdicts[AORTA] is None, "it lies far from any artery"


def test_the_network_decides_against_the_territory():
    """Calcium of the wall in the LAD's territory, and of the LAD in the root's."""
    found = judged({**USUAL, LAD: {"aortic valve and root": 1.0}, ROOT: {"LAD": 1.0}})
    assert sites(found.lesions)[LAD] == NonCoronary.AORTIC_VALVE
    assert [round(lesion.peak_hu) for lesion in found.counted] == [ROOT]
    assert found.coronary_slices == (5, 6)


def test_touching_calcium_is_divided_where_the_network_sees_it():
    scan = heart.scan()
    hu = scan.hu.copy()
    place = heart.calcium()[0]
    hu[place[0], place[1], place[2].stop : place[2].stop + 4] = ROOT
    split = replace(scan, image=image_of(hu, scan.image.GetSpacing(), scan.image.GetOrigin()))
    lesions = [x for x in judged(USUAL, scan=split).lesions.lesions if x.slices == (5, 6)]
    by_site = [(x.site, x.voxels) for x in lesions if x.centroid_ras_mm[1] > lesions[-1].centroid_ras_mm[1] - 1]
    assert (Artery.LAD, 32) in by_site or any(site == Artery.LAD and 24 <= n <= 40 for site, n in by_site)
    assert sum(site == NonCoronary.AORTIC_VALVE for site, _ in by_site) >= 1


@pytest.mark.parametrize("kind", ["noise", "clip"])
def test_noise_and_devices_are_left_out_where_arteries_run(kind):
    found = judged({**USUAL, LAD: {kind: 0.7, "LAD": 0.3}, ANNULUS: {kind: 1.0}})
    (lesion,) = found.left_out
    assert (lesion.site, lesion.verdict.artery, lesion.verdict.counts) == (Artery.UNASSIGNED, Artery.LAD, False)
    assert lesion.verdict.probability == pytest.approx(0.3, abs=0.01)
    assert ANNULUS not in sites(found.non_coronary), "it is no calcium"
    assert ROOT in sites(found.non_coronary)
    assert found.has_coronary_device == (kind == "clip")
    assert [warning.code for warning in device_warning(found)] == (["metal"] if kind == "clip" else [])


def test_a_stent_counts_in_the_artery_of_its_place():
    (lesion,) = judged({**USUAL, LAD: {"stent": 0.8, "clip": 0.2}}).counted
    assert lesion.site == Artery.LAD
    assert lesion.verdict.is_stent


@pytest.mark.parametrize(
    ("calibration", "probability", "counts"),
    [
        (LesionCalibration(), 0.6, True),
        (LesionCalibration(counts_from=0.61), 0.6, False),
        (LesionCalibration(temperature=0.5), 0.36 / 0.52, True),
        (LesionCalibration(offset=np.log(1 / 3)), 1 / 3, False),
        (LesionCalibration(offset=np.log(1 / 3), counts_from=0.3), 1 / 3, True),
    ],
)
def test_calibration_by_hand(calibration, probability, counts):
    found = judged({**USUAL, LAD: {"LAD": 0.6, "noise": 0.4}}, calibration)
    (lesion,) = found.counted if counts else found.left_out
    assert lesion.verdict.probability == pytest.approx(probability, abs=0.01)


def test_a_broken_calibration_is_refused():
    from automatic_patient import map_card

    for entry in ({"temperature": 0}, {"temperature": -1.0}, {"counts_from": 1.5}, {"temperature": "1"}):
        with pytest.raises(ModelError, match=rf"no valid candidates.*{next(iter(entry))}.*Calibrate it again"):
            replace(map_card(), calibration={"candidates": entry}).calibration_as(ScoreCalibration)


def test_a_scan_without_anything_dense():
    scan = heart.scan()
    empty = replace(scan, image=scan.image * 0)
    found = judged(USUAL, scan=empty)
    assert found.lesions.lesions == ()
    assert found.coronary_slices == ()


def decomposed(map_logit):
    settings = DecompositionSettings(evidence_weights={INTERCEPT: map_logit}, most_not_coronary=0.5)
    return SimpleNamespace(parts=SimpleNamespace(settings=settings), slices=SimpleNamespace(on_scan=np.ones(3)))


def test_what_is_dense_in_a_lesion_of_the_map_decides():
    """The map's lesions follow the dense ones in them; one without any goes by the map's evidence."""
    calcium, hu = np.zeros((2, 3, 12, 12), np.float32)
    calcium[1, 2, 2:10] = calcium[1, 6, 2:10] = calcium[1, 9, 2:10] = 50
    hu[1, 2, 1:4] = hu[1, 6, 5] = 200
    dense = found_in(hu, hu)
    verdict = Verdict(artery=Artery.RCA, confidence=0.9, not_coronary_probability=0.1)
    by_voxels = {
        3: {"site": Artery.RCA, "verdict": verdict},
        1: {"site": Artery.UNASSIGNED, "verdict": replace(verdict, not_coronary_probability=0.8, counts=False)},
    }
    dense = dense.part([replace(lesion, **by_voxels[lesion.voxels]) for lesion in dense.lesions])
    region = SimpleNamespace(
        territories=None, territory_labels=None, mask=sitk.GetImageFromArray(np.ones(hu.shape, np.uint8)), excluded=None
    )
    scan = scan_from_image(image_of(hu.astype(np.int16)), Acquisition("memory"))

    def rows(map_logit, counts):
        rules = ScoringRules(threshold_hu=10.0)
        found = judge_map(image_of(calcium), scan, region, rules, decomposed(map_logit), 10.0, dense)
        return {-round(x.centroid_ras_mm[1]): x.site for x in found.lesions if x.verdict.counts == counts}

    assert rows(2.0, True) == {2: Artery.RCA, 9: Artery.UNASSIGNED}
    assert set(rows(2.0, False)) == {6}
    assert set(rows(-2.0, True)) == {2}
    assert set(rows(-2.0, False)) == {6, 9}
