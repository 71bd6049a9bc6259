"""Scoring with networks whose answers are known: the calcium map's scores beside the clinical ones."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from handmade_networks import AboveBlood, AllSlices, loaded, scan_of
from scipy.stats import chi2
from torch import nn

from CACScoringLib.calcium_map.decomposition import DecompositionSettings, healthy_image
from CACScoringLib.core.grid import Grid
from CACScoringLib.core.labels import Artery
from CACScoringLib.models.choice import Networks
from CACScoringLib.networks.configs import GeneratorConfig, SliceClassifierConfig
from CACScoringLib.pipeline import ScoreSettings, score_scan
from CACScoringLib.record.rules import ScoringRules
from CACScoringLib.report import files as report
from CACScoringLib.report import page
from CACScoringLib.scoring.lesions import find_lesions
from CACScoringLib.scoring.scores import equivalent_agatston, rules_of_map, score_of
from CACScoringLib.scoring.sites import INTERCEPT, MAP_FEATURES

BLOOD_HU = 40
SPACING_MM = (0.8, 0.8, 2.5)
SIGMA_MM = 2.5


def networks():
    return Networks(loaded(AllSlices(), SliceClassifierConfig()), loaded(AboveBlood(0), GeneratorConfig()))


@pytest.fixture(scope="module")
def faint():
    """A smooth lesion whose peak stays below 130 HU, heart mask, reader's label map, its mass in HU·mm³."""
    size = [round(90 / s) for s in SPACING_MM]
    k, j, i = np.indices(size[::-1])
    x, y, z = (n * s - 45 for n, s in zip((i, j, k), SPACING_MM, strict=True))
    excess = 80 * np.exp(-((x - 8) ** 2 + (y + 6) ** 2 + (z - 3) ** 2) / (2 * SIGMA_MM**2))
    hu = (BLOOD_HU + excess).astype(np.float32)
    hu[:, 0] = -1000
    scan, heart = scan_of(hu, SPACING_MM, x**2 + y**2 + z**2 < 35**2)
    inside = (x - 8) ** 2 + (y + 6) ** 2 + (z - 3) ** 2 < 100
    labels = Grid.of(heart).image((inside * int(Artery.RCA)).astype(np.uint8))
    return scan, heart, labels, (2 * math.pi) ** 1.5 * SIGMA_MM**3 * 80


def test_a_lesion_below_the_threshold_is_scored_from_the_map(faint):
    scan, heart, _, mass = faint
    result = score_scan(scan, heart=heart, networks=networks())
    threshold, decomposition = result.methods["threshold"], result.methods["decomposition"]
    assert threshold.total.agatston == 0
    # The floor of 10 HU cuts the lesion's faint rim off: what lies beyond it of a normal distribution in 3-D.
    share_above_floor = chi2.cdf(2 * math.log(80 / 10), df=3)
    assert decomposition.total.pseudo_mass_hu_mm3 == pytest.approx(share_above_floor * mass, rel=0.05)
    # Weight 1 below 200 HU, sub-130 included: area × 1 × 2.5 / 3 mm over slices, which is volume / 3 mm.
    assert decomposition.total.agatston == pytest.approx(decomposition.total.volume_mm3 / 3)


def test_labels_of_lesions_in_the_ct_do_not_change_the_map(faint):
    scan, heart, labels, _ = faint
    before, after = (
        score_scan(scan, heart=heart, lesions=reader_labels, networks=networks()) for reader_labels in (None, labels)
    )
    assert after.methods["threshold"].reviewed
    assert after.methods["decomposition"].status == "automatic"
    assert after.methods["decomposition"].total == before.methods["decomposition"].total


def test_a_map_of_the_thresholds_segments_scores_as_the_threshold(faint):
    """Stated by the paper: the adjusted score is the conventional one when lesions are segmented at 130 HU."""

    class Segmented(nn.Module):
        def forward(self, x):
            return torch.where(x[:, :1] >= (130 + 50) / 1000, x[:, :1] - 0.05, 0.0)

    scan, heart, _, _ = faint
    hu = np.where(sitk.GetArrayFromImage(scan.image) > 100, 350, BLOOD_HU).astype(np.float32)
    hu[:, 0] = -1000
    # The network's own grid, so that no resampling softens the edge.
    scan, heart = scan_of(hu[:58], (1.0, 1.0, 1.5), sitk.GetArrayFromImage(heart)[:58])
    segmenting = Networks(networks().slices, loaded(Segmented(), GeneratorConfig()))
    labels = Grid.of(heart).image((hu[:58] > 100).astype(np.uint8) * np.uint8(Artery.LAD))
    rules = ScoringRules(minimum_area_mm2=0)
    result = score_scan(scan, ScoreSettings(rules), heart, labels, segmenting)
    map_rules = rules_of_map(rules, 10.0, None)
    sites = sitk.GetArrayFromImage(labels)
    in_map = find_lesions(scan.image, sites, map_rules, result.decomposition.hu)
    mapped = score_of(in_map.coronary.lesions)
    assert mapped.agatston == pytest.approx(result.methods["threshold"].total.agatston, rel=0.02) != 0


def test_the_result_names_its_models_and_is_written(faint, tmp_path):
    scan, heart, _, _ = faint
    result = score_scan(scan, heart=heart, networks=networks())
    report.write_json(tmp_path / "scores.json", result.record, {})
    data = json.loads((tmp_path / "scores.json").read_text(encoding="utf-8"))
    assert [m["network"] for m in data["models"]] == ["slices", "decomposition"]
    lesion = data["methods"]["decomposition"]["lesions"][0]
    assert (lesion["artery"], lesion["suggested_artery"], lesion["confidence"]) == ("unassigned", "unassigned", 0)
    assert 0 < lesion["not_coronary_probability"] < 1
    report.write_images(tmp_path, result, healthy=True)
    parts = [sitk.GetArrayFromImage(sitk.ReadImage(tmp_path / f"{n}.nii.gz")) for n in ("calcium_map", "healthy")]
    np.testing.assert_allclose(sum(parts), scan.hu, atol=0.01)


class TestWhatIsLeftOut:
    def scored(self, faint, lesions=None, **limits):
        scan, heart, _, _ = faint
        settings = ScoreSettings(decomposition=DecompositionSettings(**limits))
        return score_scan(scan, settings, heart, lesions, networks())

    def test_lesions_by_all_evidence(self, faint):
        """The weights that a model holds turn evidence into a probability, which goes with the lesion."""
        for intercept, counts in ((-4.0, True), (4.0, False)):
            weights = {**dict.fromkeys(MAP_FEATURES, 0.0), "log_ct_excess": 0.01, INTERCEPT: -intercept}
            result = self.scored(faint, evidence_weights=weights, most_not_coronary=0.5)
            if counts:
                verdict = result.methods["decomposition"].lesions[0].verdict
                assert verdict.not_coronary_probability == pytest.approx(1 / (1 + np.exp(4.0)), rel=0.1)
                assert not any(w.code == "map-left-out" for w in result.warnings)
            else:
                self.assert_empty(result, faint[0])

    def assert_empty(self, result, scan):
        method = result.methods["decomposition"]
        assert method.total.lesions == 0
        assert method.lesions == ()
        assert not method.lesion_set.id_map.any()
        calcium = result.decomposition.image()
        assert not sitk.GetArrayViewFromImage(calcium).any()
        np.testing.assert_array_equal(sitk.GetArrayFromImage(healthy_image(scan.image, calcium)), scan.hu)
        assert "map-left-out" in [warning.code for warning in result.warnings]

    def test_limits_and_scale_come_with_the_models(self, faint):
        """And what only the other models' cards hold is not taken for a setting."""
        scan, heart, _, _ = faint
        networks_of_hand = networks()
        slices = replace(
            networks_of_hand.slices,
            card=replace(networks_of_hand.slices.card, calibration={"slice_threshold": 0.25, "odd": 1}),
        )
        card = replace(networks_of_hand.decomposition.card, calibration={"floor_hu": 12.0})
        stored = Networks(slices, replace(networks_of_hand.decomposition, card=card))
        result = score_scan(scan, heart=heart, networks=stored)
        settings = result.decomposition.settings
        assert (settings.slice_threshold, settings.floor_hu) == (0.25, 12)
        assert settings.most_not_coronary == 1
        method = result.methods["decomposition"]
        masses = [lesion.pseudo_mass_hu_mm3 / 1385 for lesion in method.lesions]
        equivalent = method.total.clinical_agatston
        assert equivalent == pytest.approx(sum(map(equivalent_agatston, masses)), rel=1e-3)
        assert 0 < equivalent < method.total.agatston
        assert f'<td class="light">{equivalent:,.1f}</td>' in page.result_as_html(result)
