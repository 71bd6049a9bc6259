"""Verdicts about what is dense, and about the lesions of the map."""

from dataclasses import replace
from types import SimpleNamespace
from unittest import mock

import heart_with_territories as heart
import numpy as np
import pytest
from calibrated_cards import calibration_of
from images import image_of
from map_lesions import found_in

from CACScoringLib.anatomy.heart_region import HeartRegion
from CACScoringLib.core.acquisition import Acquisition
from CACScoringLib.core.ct import CTScan
from CACScoringLib.core.errors import ModelError
from CACScoringLib.core.labels import Artery, NonCoronary
from CACScoringLib.facts.measurement import ScanFacts
from CACScoringLib.networks.configs import LESION_KINDS
from CACScoringLib.record.rules import ScoringRules
from CACScoringLib.record.scores import COUNTED, LEFT_OUT, LesionSet, Verdict
from CACScoringLib.scoring import judge
from CACScoringLib.scoring.judge import (
    coronary_slices,
    dense_answers,
    device_warning,
    has_coronary_device,
    judge_map,
    verdicts,
)
from CACScoringLib.scoring.scores import method_score
from CACScoringLib.scoring.sites import INTERCEPT
from CACScoringLib.scoring.uncertainty import COUNTS_FROM, LesionCalibration, VerdictCalibration

LAD, ROOT, ANNULUS, AORTA = heart.HU
"""HU of the calcium at four places: the first two in the territory of the LAD, the others far from any artery."""


def by_brightness(answers):
    """Return a stand-in for `voxel_kinds` that answers by each voxel's HU. answers: Probabilities by kind, by HU."""

    def voxel_kinds(flat, scan, *_):
        levels = np.array(list(answers))
        nearest = np.abs(scan.hu.reshape(-1)[flat][:, None] - levels).argmin(axis=1)
        kinds = np.zeros((len(levels), len(LESION_KINDS)), np.float32)
        for row, shares in zip(kinds, answers.values(), strict=True):
            for kind, share in shares.items():
                row[LESION_KINDS.index(kind)] = share
        return kinds[nearest]

    return mock.patch.object(judge, "voxel_kinds", voxel_kinds)


def facts_of(answers, scan=None):
    """Measure the scan of `heart_with_territories` with a network that answers by brightness."""
    scan = scan or heart.scan()
    _, _, annulus, aorta = heart.boxes()
    lad = (slice(2, 12), slice(10, 28), slice(10, 48))
    region = heart.region_of(scan.image, {"LAD": lad, "mitral annulus": annulus, "descending aorta": aorta})
    with by_brightness(answers):
        return ScanFacts(scan, region, answers=dense_answers(scan, region, ScoringRules(), 8.0, None))


def judged(answers, calibration=None, scan=None):
    """Judge everything dense in that scan."""
    return verdicts(facts_of(answers, scan), VerdictCalibration(calibration or LesionCalibration())).judged


USUAL = {
    LAD: {"LAD": 0.9, "LM": 0.1},
    ROOT: {"aortic valve and root": 0.8, "RCA": 0.2},
}


def sites(lesions):
    return {round(lesion.peak_hu): lesion.site for lesion in lesions.lesions}


def test_every_lesion_has_its_site_and_verdict():
    judged_lesions = judged(USUAL)
    expected = (Artery.LAD, NonCoronary.AORTIC_VALVE, NonCoronary.MITRAL_ANNULUS, NonCoronary.THORACIC_AORTA)
    assert sites(judged_lesions) == dict(zip(heart.HU, expected, strict=True))
    by_hu = {round(lesion.peak_hu): lesion.verdict for lesion in judged_lesions.lesions}
    assert by_hu[LAD].counts
    assert by_hu[LAD].confidence == pytest.approx(0.97, abs=0.01), "territory and network agree"
    assert by_hu[LAD].kinds["LAD"] == pytest.approx(0.9, abs=0.01)
    assert not by_hu[ROOT].counts
    assert by_hu[ROOT].probability == pytest.approx(0.2, abs=0.01)
    assert by_hu[ROOT].reason == "looks like calcium of the aortic valve or root"
    assert by_hu[ANNULUS] is by_hu[AORTA] is None, "they lie far from any artery"
    assert min(by_hu[LAD].in_artery, by_hu[ROOT].in_artery) > 0.95


def test_the_network_decides_against_the_territory():
    """Calcium of the wall in the LAD's territory, and of the LAD in the root's."""
    judged_lesions = judged({**USUAL, LAD: {"aortic valve and root": 1.0}, ROOT: {"LAD": 1.0}})
    assert sites(judged_lesions)[LAD] == NonCoronary.AORTIC_VALVE
    assert [round(lesion.peak_hu) for lesion in judged_lesions.of_status(COUNTED).lesions] == [ROOT]
    assert coronary_slices(judged_lesions) == (5, 6)


@pytest.fixture
def touching_scan():
    """The scan with calcium of the root's HU beside that of the LAD's."""
    scan = heart.scan()
    hu = scan.hu.copy()
    k, j, i = heart.calcium()[0]
    hu[k, j, i.stop : i.stop + 4] = ROOT
    image = image_of(hu, scan.image.GetSpacing())
    image.CopyInformation(scan.image)
    return replace(scan, image=image)


def test_touching_calcium_is_divided_where_the_network_sees_it(touching_scan):
    judged_lesions = judged(USUAL, scan=touching_scan)
    touching = [(x.site, x.voxels) for x in judged_lesions.lesions if x.peak_hu in (LAD, ROOT)]
    assert (Artery.LAD, 32) in touching
    assert touching.count((NonCoronary.AORTIC_VALVE, 32)) == 2


def test_a_lesion_of_parts_that_do_not_count_is_improbable_itself(touching_scan):
    answers = {LAD: {"LAD": 0.9, "noise": 0.1}, ROOT: {"LAD": 0.02, "noise": 0.98}}
    lesions = judged(answers, LesionCalibration(intercept=-3.0), touching_scan).of_status(LEFT_OUT).lesions
    [lesion] = [x for x in lesions if x.voxels == 64]
    of_parts = 1 / (1 + np.exp(3.0 - np.log([9.0, 0.02 / 0.98])))
    assert lesion.verdict.probability == pytest.approx(np.average(of_parts, weights=(LAD - 100, ROOT - 100)), abs=0.01)


@pytest.mark.parametrize(
    ("gap", "expected"),
    [(0, {(48, 0.71, True)}), (3, {(32, 0.71, True), (16, 0.71, True)}), (8, {(32, 0.9, True), (16, 0.52, False)})],
)
def test_cutting_a_plaque_does_not_flip_its_verdict(gap, expected):
    """Excesses of 150 and 300 HU in 32 and 16 voxels weigh the same; both pieces count unless they lie far apart."""
    scan = heart.scan()
    hu = np.minimum(scan.hu, 100)
    k, j, i = heart.calcium()[0]
    hu[k, j, i] = 250
    hu[k, j, i.stop + gap : i.stop + gap + 2] = 400
    image = image_of(hu, scan.image.GetSpacing())
    image.CopyInformation(scan.image)
    answers = {250: {"LAD": 0.9, "noise": 0.1}, 400: {"LAD": 0.52, "noise": 0.48}}
    lesions = judged(answers, scan=replace(scan, image=image)).lesions
    facts = {(lesion.voxels, round(lesion.verdict.probability, 2), lesion.verdict.counts) for lesion in lesions}
    assert facts == expected
    for verdict in (lesion.verdict for lesion in lesions):
        assert verdict.coronary == pytest.approx(verdict.probability, abs=1e-6), "the evidence is the plaque's"


@pytest.mark.parametrize("kind", ["noise", "clip"])
def test_noise_and_devices_near_arteries_are_left_out(kind):
    facts = facts_of({**USUAL, LAD: {kind: 0.7, "LAD": 0.3}})
    labels = verdicts(facts, VerdictCalibration(LesionCalibration()))
    judged_lesions = labels.judged
    (lesion,) = method_score("automatic", ScoringRules(), judged_lesions).left_out
    assert (lesion.site, lesion.verdict.artery, lesion.verdict.counts) == (Artery.LAD, Artery.LAD, False)
    assert lesion.verdict.probability == pytest.approx(0.3, abs=0.01)
    assert set(sites(labels.lesions.non_coronary)) == {ROOT, ANNULUS, AORTA}
    assert not has_coronary_device(judged_lesions), "it is too faint"


def test_a_dense_device_is_reported():
    scan = heart.scan()
    hu = scan.hu.copy()
    hu[heart.calcium()[0]] = 900
    image = image_of(hu, scan.image.GetSpacing())
    image.CopyInformation(scan.image)
    judged_lesions = judged({**USUAL, 900: {"clip": 1.0}}, scan=replace(scan, image=image))
    assert has_coronary_device(judged_lesions)
    assert [warning.code for warning in device_warning(judged_lesions)] == ["metal"]


def test_a_stent_counts_in_the_artery_of_its_place():
    looks_like_stent = {"stent": 0.8, "clip": 0.2}
    (lesion,) = judged({**USUAL, LAD: {"noise": 1.0}, ROOT: looks_like_stent}).of_status(COUNTED).lesions
    assert (lesion.site, round(lesion.peak_hu)) == (Artery.LAD, ROOT)
    assert lesion.verdict.is_stent
    assert lesion.verdict.probability == pytest.approx(0.8, abs=0.01)
    judged_lesions = judged({**USUAL, LAD: looks_like_stent})
    (faint,) = judged_lesions.of_status(LEFT_OUT).lesions
    assert round(faint.peak_hu) == LAD, "below 300 HU it is no evidence"
    assert not faint.verdict.is_stent
    assert judged_lesions.of_status(COUNTED).lesions == ()


def odds(probability):
    return np.log(probability / (1 - probability))


@pytest.mark.parametrize(
    ("calibration", "gating", "probability", "counts"),
    [
        (LesionCalibration(network=0.0, intercept=odds(COUNTS_FROM) + 0.001), None, COUNTS_FROM, True),
        (LesionCalibration(network=0.0, intercept=odds(COUNTS_FROM) - 0.001), None, COUNTS_FROM, False),
        (LesionCalibration(gated_network=2.0, intercept=-9.0), "prospective", 0.36 / 0.52, True),
    ],
)
def test_calibration_by_hand(calibration, gating, probability, counts):
    answers = {**USUAL, LAD: {"LAD": 0.6, "noise": 0.4}}
    judged_lesions = judged(answers, calibration, heart.scan(gating=gating))
    (lesion,) = judged_lesions.of_status(COUNTED if counts else LEFT_OUT).lesions
    assert lesion.verdict.probability == pytest.approx(probability, abs=0.01)


def test_another_calibration_or_limit_asks_no_network_again():
    answers = {**USUAL, LAD: {"LAD": 0.6, "noise": 0.4}}
    facts = facts_of(answers)

    def counted(**changes):
        labels = verdicts(facts, VerdictCalibration(**{"lesions": LesionCalibration(), **changes}))
        return {round(lesion.peak_hu) for lesion in labels.lesions.of_status(COUNTED).lesions}

    assert counted() == {LAD}
    assert counted(counts_from=0.65) == counted(lesions=LesionCalibration(intercept=-1.0)) == set()
    assert counted() == {LAD}, "facts stay as they were"
    assert verdicts(facts, VerdictCalibration()) is None, "nothing is judged without weights"


def test_territories_are_evidence_beside_the_network():
    calibration = LesionCalibration(1.0, 0.5, -1.0, 2.0, 1.0, 1.0)
    coronary, in_artery = np.array([0.7, 0.7, 0.2]), np.array([0.9, 0.1, 1.0])
    for is_gated, weights in ((False, (1.0, 0.5, -1.0)), (True, (2.0, 1.0, 1.0))):
        expected = weights[0] * odds(coronary) + weights[1] * odds(np.clip(in_artery, 0.02, 0.98)) + weights[2]
        assert odds(calibration.probability(coronary, in_artery, is_gated)) == pytest.approx(expected)
    certain = calibration.probability(np.array([0.0, 1.0]), np.array([0.0, 1.0]), False)
    assert odds(certain) == pytest.approx((odds(0.999) + 0.5 * odds(0.98)) * np.array([-1, 1]) - 1)


def test_a_broken_calibration_is_refused():
    for entry in ({"network": "1"}, {"gated_intercept": None}, {"territories": np.nan}):
        with pytest.raises(ModelError, match=rf"no valid .*{next(iter(entry))}.*Calibrate it again"):
            calibration_of({"candidates": entry})


def test_a_scan_without_anything_dense():
    scan = heart.scan()
    empty = replace(scan, image=scan.image * 0)
    judged_lesions = judged(USUAL, scan=empty)
    assert judged_lesions.lesions == ()
    assert coronary_slices(judged_lesions) == ()


def decomposed(calcium):
    return SimpleNamespace(
        parts=SimpleNamespace(hu=calcium, box=()),
        slices=SimpleNamespace(on_scan=np.ones(3)),
    )


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
    dense = LesionSet.of([replace(lesion, **by_voxels[lesion.voxels]) for lesion in dense.lesions], dense.every)
    region = HeartRegion(np.ones(hu.shape, bool), None, "given")
    scan = CTScan(image_of(hu.astype(np.int16)), Acquisition("memory"))
    facts = ScanFacts(scan, region)

    def rows(map_logit, counts):
        rules = ScoringRules(threshold_hu=10.0)
        calibration = VerdictCalibration(map_weights={INTERCEPT: map_logit}, most_not_coronary=0.5)
        judged_lesions = judge_map(facts, rules, decomposed(calcium), calibration, dense)
        return {-round(x.centroid_ras_mm[1]): x.site for x in judged_lesions.lesions if x.verdict.counts == counts}

    assert rows(2.0, True) == {2: Artery.RCA, 9: Artery.UNASSIGNED}
    assert set(rows(2.0, False)) == {6}
    assert set(rows(-2.0, True)) == {2}
    assert set(rows(-2.0, False)) == {6, 9}
