"""Limits are chosen so that few scans without coronary calcium score, and the most with it do."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from digital_pairs import write_coarse
from handmade_networks import untrained
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from CACScoringLib.models import cards as models
from CACScoringLib.models import store
from CACScoringLib.networks.van_velzen import GeneratorConfig, SliceClassifierConfig, build
from CACScoringLib.quality.calibration import CalibrationRange
from CACScoringLib.scoring.evidence import FEATURES, Evidence, coronary_probabilities
from CACScoringLib.scoring.uncertainty import Uncertainty
from CACTrainingLib.cli import main as cli
from CACTrainingLib.data.datasets import DataError, TrainingScan
from CACTrainingLib.phantom.cohort.cohort import SAMPLES
from CACTrainingLib.training import calibration
from CACTrainingLib.training.calibration import FalsePositiveGoals, choose, for_calibration
from CACTrainingLib.training.evidence import nearest_limit
from CACTrainingLib.training.measured_scans import FoundLesions, MapSettings, MeasuredScan

STRICT, LENIENT = MapSettings(0.5, -10.0, 10.0), MapSettings(0.2, None, 20.0)
KEPT = MapSettings(0.05, None, 20.0)
MASS, PLACE = FEATURES.index("log_mass"), FEATURES.index("place_logit")


def lesions(rows):
    """rows: (logarithm of the mass, place, coronary, Agatston)."""
    features = np.zeros((len(rows), len(FEATURES)))
    for row, (mass, place, *_) in zip(features, rows, strict=True):
        row[MASS], row[PLACE] = mass, place
    agatston = np.array([r[3] for r in rows], float)
    return FoundLesions(features, np.array([r[2] for r in rows], bool), agatston, 10 * agatston, np.full(len(rows), 2))


def measured(patient, kind, maps, clinical, candidates=None):
    """Candidates are the map's lesions unless given."""
    truth = {"LM": 0.0, "LAD": clinical, "LCX": 0.0, "RCA": 0.0}
    reader = {artery: {"agatston": x, "mass_mg": x / 5} for artery, x in truth.items()}
    return MeasuredScan(patient, kind, kind == "coronary", maps, candidates or maps, reader, None, truth, 1.0, {})


def cohort(patients=60, faint_in_lenient=False, seed=0):
    """Lesions that mass and place together tell apart, but neither alone; a third of the patients of each kind."""
    generator = np.random.default_rng(seed)
    scans = []
    for number in range(patients):
        kind = ("clean", "distractor", "coronary")[number % 3]
        haze = [(generator.normal(3, 0.3), generator.normal(3, 0.5), False, 2.0) for _ in range(3)]
        found = {
            "clean": [],
            "distractor": [(generator.normal(9, 0.5), generator.normal(-3, 0.5), False, 50.0)],
            "coronary": [(generator.normal(9, 0.5), generator.normal(3, 0.5), True, 40.0)],
        }[kind]
        strict = lesions(haze if faint_in_lenient else haze + found)
        maps = {STRICT: strict, LENIENT: lesions(haze + found)}
        scans.append(measured(f"p{number}", kind, maps, 10.0 * (kind == "coronary")))
    return scans


def test_evidence_together_tells_what_no_single_limit_does():
    scans = cohort()
    calibration, achieved = choose(scans, FalsePositiveGoals(0.0, 0.0))
    assert achieved["sensitivity_scans"] > 0.9
    assert achieved["above_zero_distractor_scans"] == achieved["above_zero_clean_scans"] == 0.0
    assert (achieved["scans_distractor"], achieved["scans_clean"], achieved["scans_with_visible_calcium"]) == (20,) * 3
    assert achieved["patients"] == 60
    # What is stored is what was chosen.
    kept = [
        coronary_probabilities(s.lesions[STRICT].features, calibration["evidence_weights"])
        >= 1 - calibration["most_not_coronary"]
        for s in scans
    ]
    wrong = sum((k != s.lesions[STRICT].coronary).sum() for k, s in zip(kept, scans, strict=True))
    assert wrong <= 2
    # Of equals, the published rule.
    assert calibration["min_healthy_hu"] == -10.0


def test_rules_with_the_nearest_mass_are_chosen():
    scans = []
    for scan in cohort():
        own = scan.lesions[STRICT]
        scans.append(replace(scan, lesions={STRICT: own, LENIENT: replace(own, pseudo_mass=own.pseudo_mass / 40)}))
    assert choose(scans, FalsePositiveGoals(0.0, 0.0))[0]["floor_hu"] == LENIENT.floor_hu


def test_what_the_scans_were_like_is_stored():
    scans = [replace(scan, facts={"noise_hu": float(n), "kernel": "soft"}) for n, scan in enumerate(cohort())]
    calibration, _ = choose(scans, FalsePositiveGoals())
    known = CalibrationRange.stored(calibration)
    assert known.ranges == {"noise_hu": (1.0, 58.0, 29.0)}
    assert known.familiarity({"noise_hu": 100.0}).out_of_range


def test_a_lesion_is_not_evaluated_by_its_own_patient():
    """Coronary or not at random: what is learned holds for nobody else, so the choice must not look good."""
    generator = np.random.default_rng(1)
    scans = []
    for number in range(30):
        kind = ("clean", "distractor", "coronary")[number % 3]
        found = lesions([(generator.normal(), generator.normal(), kind == "coronary", 1.0)])
        scans.append(measured(f"p{number}", kind, {STRICT: found}, 1.0))
    _, achieved = choose(scans, FalsePositiveGoals(0.0, 0.0))
    assert achieved["sensitivity_scans"] < 0.4


def test_all_kinds_are_needed():
    with pytest.raises(DataError, match="0 clean"):
        choose([scan for scan in cohort() if scan.kind != "clean"], FalsePositiveGoals())


def test_candidates_are_told_apart_and_what_is_stored_tells_them_too():
    scans = cohort()
    evidence, achieved, counted = calibration.candidate_evidence(scans, STRICT)
    assert (achieved["candidates"], achieved["coronary"]) == (60 * 3 + 40, 20)
    assert achieved["precision"] > 0.9
    assert achieved["recall"] > 0.9
    assert achieved["above_zero_distractor_scans"] == achieved["above_zero_clean_scans"] == 0.0
    assert sum(c.sum() for c in counted) == pytest.approx(20, abs=2)
    stored = Evidence.stored({"candidates": evidence})
    for scan in scans:
        part = scan.candidates[STRICT]
        counted = coronary_probabilities(part.features, stored.weights) >= 1 - stored.most_not_coronary
        assert (counted == part.coronary).mean() > 0.7
    assert stored.typical["log_mass"] == pytest.approx(9, abs=0.5)


def test_intervals_alone_are_of_what_the_stored_evidence_counts():
    scans = cohort()
    for number, scan in enumerate(scans):
        scans[number] = replace(
            scan, lesions=scan.lesions | {KEPT: scan.lesions[LENIENT]}, candidates={KEPT: scan.lesions[LENIENT]}
        )
    weights = dict.fromkeys(FEATURES, 0.0) | {"log_mass": 1.0, "place_logit": 1.0, "intercept": -9.0}
    candidates = {"weights": weights, "typical": None, "most_not_coronary": 0.5}
    stored = {"min_healthy_hu": None, "floor_hu": 20.0, "evidence_weights": weights, "most_not_coronary": 0.5}
    found, achieved = calibration.intervals(scans, KEPT.slice_threshold, stored | {"candidates": candidates})
    assert list(found) == ["uncertainty"]
    assert achieved["patients"] == 60
    errors = Uncertainty.stored(found, "automatic").total["agatston"].errors
    # Lesions of 40 for a reader's 10.
    assert errors[1] == pytest.approx([np.log(11 / 41)] * 20, abs=1e-3)
    nothing_counts = stored | {"candidates": candidates | {"most_not_coronary": 0.0}}
    found, _ = calibration.intervals(scans, KEPT.slice_threshold, nothing_counts)
    assert Uncertainty.stored(found, "automatic").total["agatston"].errors[1] == pytest.approx(
        [np.log(11)] * 20, abs=1e-3
    )
    with pytest.raises(DataError, match="without --intervals-only"):
        calibration.intervals(scans, KEPT.slice_threshold, {"floor_hu": 20.0})


def test_a_false_zero_costs_more_than_a_false_score():
    """One patient's calcium is as doubtful as another's noise, which is a little larger."""
    scores, doubt = [np.array([27.0]), np.array([40.0])], [np.array([0.5])] * 2
    limit, _ = nearest_limit(scores, doubt, [27.0, 0.0])
    assert limit <= 0.5


def test_clinical_scores_are_compared_with_the_reader_and_the_map_with_the_truth():
    generator = np.random.default_rng(0)
    scans, scores = [], []
    for number in range(200):
        seen = 0.0 if number % 2 else float(np.exp(generator.uniform(0, 7)))
        arteries = dict.fromkeys(("LM", "LCX", "RCA"), 0.0) | {"LAD": seen}
        scan = measured(f"p{number}", "coronary", {STRICT: lesions([])}, 0.0)
        reader = {a: {"agatston": x, "mass_mg": x / 5} for a, x in arteries.items()}
        truth = {a: 2 * x for a, x in arteries.items()}
        mass = {a: x / 5 for a, x in truth.items()}
        scans.append(replace(scan, reader=reader, reference_agatston=truth, true_mass_mg=mass))
        found = seen * np.exp(0.2 * generator.standard_normal())
        scores.append({a: {"agatston": x and found, "mass_mg": x and found / 5} for a, x in arteries.items()})
    stored, covered = calibration.stored_uncertainty(scans, {"automatic": scores, "decomposition": scores})
    held, count = np.array(list(covered["automatic"].values())).T
    assert count.sum() == 200
    assert 0.85 < held.sum() / 200 < 0.97
    by_reader, by_truth = (Uncertainty.stored({"uncertainty": stored}, kind) for kind in stored)
    low, high = by_reader.total["agatston"].interval(200.0)
    assert 110 < low < 160 < 250 < high < 340
    assert 250 < by_truth.total["agatston"].interval(100.0)[1] < 340
    without = [replace(scan, reference_agatston=None) for scan in scans]
    stored, _ = calibration.stored_uncertainty(without, {"automatic": scores, "decomposition": scores})
    assert list(stored) == ["automatic"]


@pytest.mark.long
def test_a_models_card_gets_what_was_chosen(tmp_path, capsys):
    """From the command line, on digital patients of all three kinds; the weights stay as they were."""
    for name in ("vessels", "motion", "aortic-valve", "no-calcium"):
        write_coarse(SAMPLES[name].number, tmp_path / "data" / name)
    cards = {}
    for network, config in {
        "slices": SliceClassifierConfig(width=4, residual_blocks=0, size=64),
        "decomposition": GeneratorConfig(width=4, residual_blocks=0),
    }.items():
        training = models.Training("none", 0, {}, "")
        card = models.describe(network, config, "custom", training, {"auc": 0.5}, {}, "Apache-2.0", "Tests.")
        made = build(config)
        if network == "decomposition":
            torch.nn.init.constant_(made.last.bias, -3.0)  # 47 HU everywhere
            torch.nn.init.zeros_(made.last.weight)
        cards[network] = store.save_model(made, card, tmp_path / "models")
    before = cards["decomposition"].with_suffix(".safetensors").read_bytes()
    options = [f"--{network}={path}" for network, path in cards.items()] + [f"--cache={tmp_path / 'cache'}"]
    code = cli.main(["calibrate", "--data", str(tmp_path / "data"), *options, "--progress", "json"])
    assert code == 0, capsys.readouterr().err
    assert "counted" in capsys.readouterr().err
    card = models.verify_model(cards["decomposition"])
    assert {"evidence_weights", "most_not_coronary", "floor_hu"} <= card.calibration.keys()
    assert "slice_threshold" not in card.calibration
    assert models.verify_model(cards["slices"]).calibration.keys() == {"slice_threshold"}
    whole = card.validation["whole_method"]
    assert (whole["scans_with_visible_calcium"], whole["scans_distractor"], whole["scans_clean"]) == (2, 1, 1)
    territories = models.find_model("territories").card.sha256
    used = {"territories": territories, **{network: models.read_card(path).sha256 for network, path in cards.items()}}
    assert whole["models"] == whole["evidence_models"] == used
    assert card.validation["auc"] == 0.5
    assert cards["decomposition"].with_suffix(".safetensors").read_bytes() == before
    swapped = [f"--slices={cards['decomposition']}", f"--decomposition={cards['slices']}"]
    assert cli.main(["calibrate", "--data", str(tmp_path / "data"), *swapped, "--progress", "json"]) == 3
    assert "not for 'slices'" in capsys.readouterr().err


def test_neither_what_was_trained_on_nor_what_is_tested_on(tmp_path):
    def scan(use, known=True):
        path = tmp_path / "ct.nii.gz"
        return TrainingScan(path, path, "1", calcium_map=path if known else None, use=use)

    scans = [scan(use) for use in ("training", "validation", "test", "")]
    assert [own.use for own in for_calibration([*scans, scan("", known=False)])] == ["validation", ""]
    with pytest.raises(DataError, match="stored for validation"):
        for_calibration([scans[0], scan("validation", known=False)])


@pytest.mark.parametrize("bundled", [True, False])
def test_classifier_that_comes_with_cac_is_left_as_it_is(monkeypatch, tmp_path, bundled):
    """Its threshold stays, and scans are measured with no other."""
    monkeypatch.setattr(calibration, "bundled_folder", lambda: tmp_path / ("models" if bundled else "elsewhere"))
    cards = {network: untrained(network, network, tmp_path / "models") for network in ("slices", "decomposition")}
    store.update_card(cards["slices"], {"slice_threshold": STRICT.slice_threshold}, {})
    tried = []

    monkeypatch.setattr(calibration, "find_scans", lambda folders: [])
    monkeypatch.setattr(calibration, "for_calibration", lambda scans: scans)
    monkeypatch.setattr(calibration, "measure_all", lambda scans, models, thresholds, *rest: tried.append(thresholds))
    monkeypatch.setattr(calibration, "choose", lambda *arguments: ({"slice_threshold": 0.9, "floor_hu": 7.0}, {}))
    command = ["calibrate", "--data", str(tmp_path), *(f"--{network}={path}" for network, path in cards.items())]
    assert cli.main([*command, "--progress", "none"]) == 0
    assert tried == [[0.5] if bundled else [0.0, 0.05, 0.2, 0.5]]
    assert models.read_card(cards["slices"]).calibration == {"slice_threshold": 0.5 if bundled else 0.9}
    assert models.read_card(cards["decomposition"]).calibration == {"floor_hu": 7.0}


def test_intervals_fitted_anew_leave_what_the_evidence_was_fitted_with(monkeypatch, tmp_path):
    cards = {network: untrained(network, network, tmp_path) for network in ("slices", "decomposition")}
    store.update_card(cards["decomposition"], {}, {"whole_method": {"models": {"slices": "former"}}})
    monkeypatch.setattr(calibration, "find_scans", lambda folders: [])
    monkeypatch.setattr(calibration, "for_calibration", lambda scans: scans)
    monkeypatch.setattr(calibration, "measure_all", lambda *arguments: [])
    monkeypatch.setattr(calibration, "intervals", lambda *arguments: ({}, {"patients": 3}))
    command = ["calibrate", "--data", str(tmp_path), *(f"--{network}={path}" for network, path in cards.items())]
    for _ in range(2):
        assert cli.main([*command, "--intervals-only", "--progress", "none"]) == 0
        whole = models.read_card(cards["decomposition"]).validation["whole_method"]
        assert whole["evidence_models"] == {"slices": "former"}
        assert whole["models"]["slices"] == models.read_card(cards["slices"]).sha256
        assert whole["patients"] == 3


def lesions_by_evidence(weights, count=4000):
    """Features, and whether a lesion is coronary, drawn by these weights."""
    generator = np.random.default_rng(5)
    features = generator.normal(2.0, 1.5, (count, len(FEATURES)))
    evidence = (features - 2.0) @ np.array([weights.get(name, 0.0) for name in FEATURES])
    return features, generator.random(count) < 1 / (1 + np.exp(-evidence))


def test_weights_are_those_of_logistic_regression_where_all_agree_with_physics():
    drawn = {"log_mass": 0.8, "place_logit": 1.2, "slice_logit": 0.5}
    features, coronary = lesions_by_evidence(drawn)
    found = calibration.fitted_weights(features, coronary)
    scaler, regression = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(features, coronary)
    expected = regression.coef_[0] / scaler.scale_
    for name, weight in zip(FEATURES, expected, strict=True):
        if name in drawn:
            assert found[name] == pytest.approx(weight, abs=0.05)


def test_more_calcium_never_counts_against_a_lesion():
    """Even where it did in the scans that were learned from."""
    features, coronary = lesions_by_evidence({"log_mass": -0.9, "place_logit": 1.0})
    found = calibration.fitted_weights(features, coronary)
    assert found["log_mass"] == 0
    assert found["place_logit"] > 0.5
