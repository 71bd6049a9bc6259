"""Limits are chosen so that few scans without coronary calcium score, and the most with it do."""

import numpy as np
import pytest
import torch

from CACScoringLib import models
from CACScoringLib.networks import GeneratorConfig, SliceClassifierConfig, build
from CACTrainingLib import cli
from CACTrainingLib.calibration import FalsePositiveGoals, MeasuredScan, choose
from CACTrainingLib.datasets import DataError
from CACTrainingLib.phantom.samples import write_sample


def scan(kind, lesions, visible=False, clinical=0.0, patient="p", lenient=3000.0):
    """lesions: of the map when slices from 0.5 on are taken apart; from 0.2 on there is always one more."""
    found = np.array(lesions, float).reshape(-1, 3)
    more = np.concatenate([found, [[lenient, 0.1, 9.0]]])
    return MeasuredScan(patient, kind, visible, {(0.5, -10.0, 10.0): found, (0.2, None, 25.0): more}, clinical)


COHORT = [
    scan("coronary", [(500, 0.1, 40), (20, 0.2, 3)], True, 20.0),
    scan("coronary", [(90, 0.3, 8)], True, 4.0),
    scan("coronary", [(10, 0.1, 2)], False, 0.0),
    scan("distractor", [(900, 0.95, 70)]),
    scan("distractor", [(60, 0.2, 6)]),
    scan("clean", [(15, 0.1, 2)]),
    scan("clean", []),
]


def test_limits_keep_to_the_goals_and_find_the_most():
    calibration, achieved = choose(COHORT, FalsePositiveGoals(0.0, 0.0))
    assert (calibration["slice_threshold"], calibration["min_healthy_hu"]) == (0.5, -10.0)
    assert 60 < calibration["least_lesion_mass_hu_mm3"] <= 90
    assert calibration["most_not_coronary"] == 0.9
    assert achieved["sensitivity_scans"] == 1.0
    assert achieved["above_zero_distractor_scans"] == achieved["above_zero_clean_scans"] == 0.0
    assert (achieved["scans_distractor"], achieved["scans_clean"], achieved["scans_with_visible_calcium"]) == (2, 2, 2)
    # Lesions that were left out do not count for the scale either.
    assert calibration["agatston_scale"] == pytest.approx((20 + 4) / (40 + 8))


def test_lenient_goals_keep_faint_lesions():
    calibration, _ = choose(COHORT, FalsePositiveGoals(1.0, 1.0))
    assert calibration["least_lesion_mass_hu_mm3"] == 0.0
    assert calibration["most_not_coronary"] == 1.0


def test_when_nothing_else_helps_nothing_scores():
    calibration, achieved = choose(
        [scan("coronary", [(50, 0.1, 5)], True, 1.0), scan("distractor", [(70, 0.1, 5)]), scan("clean", [])],
        FalsePositiveGoals(0.0, 0.0),
    )
    assert achieved["sensitivity_scans"] == 0.0
    assert "agatston_scale" not in calibration


def test_more_slices_are_taken_apart_where_that_finds_more():
    cohort = [
        scan("coronary", [], True, 5.0, lenient=200.0),
        scan("distractor", [], lenient=50.0),
        scan("clean", [], lenient=50.0),
    ]
    calibration, achieved = choose(cohort, FalsePositiveGoals(0.0, 0.0))
    assert (calibration["slice_threshold"], calibration["min_healthy_hu"]) == (0.2, None)
    assert 50 < calibration["least_lesion_mass_hu_mm3"] <= 200
    assert achieved["sensitivity_scans"] == 1.0


def test_all_kinds_are_needed():
    with pytest.raises(DataError, match="0 clean"):
        choose(COHORT[:5], FalsePositiveGoals())


def test_a_models_card_gets_what_was_chosen(tmp_path, capsys):
    """From the command line, on digital patients of all three kinds; the weights stay as they were."""
    for name in ("motion", "trap", "clean"):
        write_sample(tmp_path / "data" / name, name)
    cards = {}
    for network, config in {
        "slices": SliceClassifierConfig(width=4, residual_blocks=0, size=64),
        "decomposition": GeneratorConfig(width=4, residual_blocks=0),
    }.items():
        training = models.Training("none", 0, {}, "")
        card = models.describe(network, config, "custom", training, {"auc": 0.5}, {}, "Apache-2.0", "Tests.")
        made = build(config)
        if network == "decomposition":
            torch.nn.init.constant_(made.last.bias, -8.0)  # a map of 0.3 HU, which is none
            torch.nn.init.zeros_(made.last.weight)
        cards[network] = models.save_model(made, card, tmp_path / "models")
    before = cards["decomposition"].with_suffix(".safetensors").read_bytes()
    options = [f"--{network}={path}" for network, path in cards.items()]
    code = cli.main(["calibrate", "--data", str(tmp_path / "data"), *options, "--progress", "json"])
    assert code == 0, capsys.readouterr().err
    card = models.verify_model(cards["decomposition"])
    assert {"least_lesion_mass_hu_mm3", "most_not_coronary"} <= card.calibration.keys()
    assert "slice_threshold" not in card.calibration
    assert models.verify_model(cards["slices"]).calibration.keys() == {"slice_threshold"}
    whole = card.validation["whole_method"]
    assert (whole["scans_with_visible_calcium"], whole["scans_distractor"], whole["scans_clean"]) == (1, 1, 1)
    assert whole["above_zero_distractor_scans"] == whole["above_zero_clean_scans"] == 0
    assert whole["models"] == {network: models.read_card(path).sha256 for network, path in cards.items()}
    assert card.validation["auc"] == 0.5
    assert cards["decomposition"].with_suffix(".safetensors").read_bytes() == before
    swapped = [f"--slices={cards['decomposition']}", f"--decomposition={cards['slices']}"]
    assert cli.main(["calibrate", "--data", str(tmp_path / "data"), *swapped, "--progress", "json"]) == 3
    assert "not for 'slices'" in capsys.readouterr().err
