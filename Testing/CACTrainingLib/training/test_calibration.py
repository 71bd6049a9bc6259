"""Test the calibration: limits, weights, intervals, and what reaches the models' cards."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from digital_pairs import write_coarse
from handmade_networks import untrained
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from CACScoringLib.core.errors import DataError
from CACScoringLib.models import cards as models
from CACScoringLib.models import store
from CACScoringLib.networks.configs import GeneratorConfig, SliceClassifierConfig
from CACScoringLib.networks.registry import build
from CACScoringLib.quality.calibration import CalibrationRange
from CACScoringLib.scoring.evidence import CANDIDATE_FEATURES, coronary_probabilities
from CACScoringLib.scoring.uncertainty import Uncertainty
from CACTrainingLib.cli import main as cli
from CACTrainingLib.data.datasets import TrainingScan
from CACTrainingLib.phantom.cohort.cohort import SAMPLES
from CACTrainingLib.training import calibration
from CACTrainingLib.training.calibration import calibration_scans, choose
from CACTrainingLib.training.evidence import nearest_limit
from CACTrainingLib.training.measured_scans import LesionTable, MapSettings, MeasuredScan

STRICT, LENIENT = MapSettings(0.5, -10.0, 10.0), MapSettings(0.2, None, 20.0)
FIXED = MapSettings(0.05, None, 20.0)


def lesions(rows):
    """Make a table of lesions from rows (rarity, place, coronary, Agatston)."""
    features = {name: np.zeros(len(rows)) for name in CANDIDATE_FEATURES}
    features["log_rarity"], features["place_logit"] = (np.array([row[n] for row in rows], float) for n in (0, 1))
    coronary, agatston = np.array([r[2] for r in rows], bool), np.array([r[3] for r in rows], float)
    no_share, nowhere = np.zeros((len(rows), 0)), np.zeros(len(rows), bool)
    return LesionTable(features, coronary, agatston, 10 * agatston, np.full(len(rows), 2), no_share, nowhere)


def without_candidates(table, candidates):
    """Return lesions of a map that share no voxel with candidates."""
    return replace(table, shared=np.zeros((len(table.coronary), len(candidates.coronary)), int))


def measured(patient, kind, maps, clinical):
    """Make a measured scan whose candidates are the map's first lesions, whatever the settings."""
    truth = {"LM": 0.0, "LAD": clinical, "LCX": 0.0, "RCA": 0.0}
    reader = {artery: {"agatston": x, "mass_mg": x / 5} for artery, x in truth.items()}
    candidates = dict.fromkeys(maps, next(iter(maps.values())))
    maps = {settings: without_candidates(table, candidates[settings]) for settings, table in maps.items()}
    return MeasuredScan(patient, kind, kind == "coronary", maps, candidates, reader, None, truth, 1.0, {})


def cohort(patients=60, faint_in_lenient=False, seed=0):
    """Make lesions that rarity and place discriminate together, but not alone; a third of the patients of each kind."""
    generator = np.random.default_rng(seed)
    scans = []
    for number in range(patients):
        kind = ("clean", "distractor", "coronary")[number % 3]
        haze = [(generator.normal(3, 0.3), generator.normal(3, 0.5), False, 2.0) for _ in range(3)]
        calcium = {
            "clean": [],
            "distractor": [(generator.normal(9, 0.5), generator.normal(-3, 0.5), False, 50.0)],
            "coronary": [(generator.normal(9, 0.5), generator.normal(3, 0.5), True, 40.0)],
        }[kind]
        strict = lesions(haze if faint_in_lenient else haze + calcium)
        maps = {STRICT: strict, LENIENT: lesions(haze + calcium)}
        scans.append(measured(f"p{number}", kind, maps, 10.0 * (kind == "coronary")))
    return scans


def test_combined_evidence_discriminates_better_than_single_limits():
    scans = cohort()
    calibration, performance, _ = choose(scans, 0.0)
    assert performance["sensitivity_scans"] > 0.9
    assert performance["above_zero_distractor_scans"] == performance["above_zero_clean_scans"] == 0.0
    assert [performance[f"scans_{kind}"] for kind in ("distractor", "clean", "with_visible_calcium")] == [20] * 3
    assert performance["patients"] == 60
    # The stored weights reproduce the choice.
    weights, limit = calibration["evidence_weights"], 1 - calibration["most_not_coronary"]
    counted = [coronary_probabilities(s.lesions[STRICT].features, weights) >= limit for s in scans]
    wrong = sum((k != s.lesions[STRICT].coronary).sum() for k, s in zip(counted, scans, strict=True))
    assert wrong <= 2
    # Ties go to fewer decomposed slices, here with the published rule.
    assert calibration["min_healthy_hu"] == -10.0


def test_rules_with_the_nearest_mass_are_chosen():
    scans = []
    for scan in cohort():
        table = scan.lesions[STRICT]
        faint = replace(table, pseudo_mass=table.pseudo_mass / 40)
        scans.append(replace(scan, lesions={STRICT: table, LENIENT: faint}))
    assert choose(scans, 0.0)[0]["floor_hu"] == LENIENT.floor_hu


def test_calibration_range_is_stored():
    scans = [replace(scan, facts={"noise_hu": float(n), "kernel": "soft"}) for n, scan in enumerate(cohort())]
    calibration, *_ = choose(scans)
    calibration_range = CalibrationRange.stored(calibration)
    assert calibration_range.ranges == {"noise_hu": (1.0, 58.0, 29.0)}
    assert calibration_range.familiarity({"noise_hu": 100.0}).out_of_range


def test_a_lesion_is_not_evaluated_by_its_own_patient():
    """Weights of random labels do not transfer to other patients, so sensitivity must be low."""
    generator = np.random.default_rng(1)
    scans = []
    for number in range(30):
        kind = ("clean", "distractor", "coronary")[number % 3]
        table = lesions([(generator.normal(), generator.normal(), kind == "coronary", 1.0)])
        scans.append(measured(f"p{number}", kind, {STRICT: table}, 1.0))
    _, performance, _ = choose(scans, 0.0)
    assert performance["sensitivity_scans"] < 0.4


def test_lesions_of_the_map_count_as_the_candidates_in_them():
    """Lesions of the map alike in all but what their candidates were judged to be."""
    scans, truth = [], []
    for scan in cohort():
        coronary = scan.candidates[STRICT].coronary
        alike = lesions([(3.0, 3.0, is_coronary, 5.0) for is_coronary in coronary] + [(0.0, 0.0, False, 5.0)])
        shared = np.vstack([8 * np.eye(len(coronary), dtype=int), np.zeros((1, len(coronary)), int)])
        # The last lesion has no candidate, and is coronary in every second scan with calcium.
        alike.coronary[-1] = bool(coronary.any() and len(scans) % 2)
        alike.features["place_logit"][-1] = 4.0 * alike.coronary[-1]
        scans.append(replace(scan, lesions={STRICT: replace(alike, shared=shared)}))
        truth.append(alike.coronary)
    evidence, _, probabilities = calibration.candidate_evidence(scans, STRICT)
    verdicts = calibration.verdicts_of_candidates(scans, STRICT, evidence, probabilities)
    assert all(np.isnan(verdict[-1]) and not np.isnan(verdict[:-1]).any() for verdict in verdicts)
    judged = [(verdict[:-1] == coronary[:-1]).all() for verdict, coronary in zip(verdicts, truth, strict=True)]
    assert np.mean(judged) > 0.9
    fitted, performance, _ = choose(scans, 0.0)
    assert fitted["evidence_weights"]["place_logit"] > 0
    assert performance["sensitivity_scans"] > 0.9
    assert performance["above_zero_distractor_scans"] == performance["above_zero_clean_scans"] == 0.0
    unjudged = calibration.verdicts_of_candidates(scans, STRICT, None, [])
    assert np.isnan(np.concatenate(unjudged)).all()


def test_all_kinds_are_needed():
    with pytest.raises(DataError, match="0 clean"):
        choose([scan for scan in cohort() if scan.kind != "clean"])


def test_candidates_are_classified_by_cross_fitted_and_by_stored_weights():
    scans = cohort()
    evidence, performance, probabilities = calibration.candidate_evidence(scans, STRICT)
    assert (performance["candidates"], performance["coronary"]) == (60 * 3 + 40, 20)
    assert performance["precision"] > 0.9
    assert performance["recall"] > 0.9
    assert performance["above_zero_distractor_scans"] == performance["above_zero_clean_scans"] == 0.0
    assert sum((p >= 1 - evidence.most_not_coronary).sum() for p in probabilities) == pytest.approx(20, abs=2)
    for scan in scans:
        part = scan.candidates[STRICT]
        counted = coronary_probabilities(part.features, evidence.weights) >= 1 - evidence.most_not_coronary
        assert (counted == part.coronary).mean() > 0.7
    assert evidence.typical["log_rarity"] == pytest.approx(9, abs=0.5)


def test_patients_of_a_calibration_are_named_by_ranges():
    patients = ("9000001", "1850000", "9000000", "9000000", "9000002", "1850004", "A0001")
    scans = [measured(patient, "clean", {STRICT: lesions([])}, 0.0) for patient in patients]
    assert calibration.patients_of(scans) == ("7 scans of 6 patients: 1850000, 1850004, 9000000 to 9000002, A0001")


def test_candidates_are_judged_with_the_map_of_the_settings():
    """Candidates alike in all but that the map of one setting shows those that are coronary."""
    scans = []
    for scan in cohort():
        clinical = scan.candidates[STRICT]
        alike = {name: np.zeros(len(clinical.coronary)) for name in clinical.features}
        blind, seeing = (
            replace(clinical, features=alike | {"in_map": mask.astype(float)})
            for mask in (np.zeros(len(clinical.coronary)), clinical.coronary)
        )
        scans.append(replace(scan, candidates={STRICT: blind, LENIENT: seeing}))
    assert calibration.candidate_evidence(scans, LENIENT)[1]["recall"] == 1.0
    _, _, probabilities = calibration.candidate_evidence(scans, STRICT)
    assert all(np.ptp(p) == 0 for p in probabilities), "nothing tells them apart"


def test_intervals_alone_use_the_stored_evidence():
    scans = []
    for scan in cohort():
        lenient = without_candidates(scan.lesions[LENIENT], scan.lesions[LENIENT])
        scans.append(replace(scan, lesions={FIXED: lenient}, candidates={FIXED: lenient}))
    weights = dict.fromkeys(CANDIDATE_FEATURES, 0.0) | {"log_rarity": 1.0, "place_logit": 1.0, "intercept": -9.0}
    stored = {"min_healthy_hu": None, "floor_hu": 20.0, "evidence_weights": weights, "most_not_coronary": 0.5}
    # Scores of 40 where the reader has 10, and of 0 if nothing counts.
    for limit, error in ((0.5, np.log(11 / 41)), (0.0, np.log(11))):
        candidates = {"weights": weights, "typical": None, "most_not_coronary": limit}
        uncertainty, performance = calibration.intervals(
            scans, FIXED.slice_threshold, stored | {"candidates": candidates}
        )
        assert list(uncertainty) == ["uncertainty"]
        assert performance["patients"] == 60
        errors = Uncertainty.stored(uncertainty, "automatic").total["agatston"].errors
        assert errors[1] == pytest.approx([error] * 20, abs=1e-3)
    with pytest.raises(DataError, match="without --intervals-only"):
        calibration.intervals(scans, FIXED.slice_threshold, {"floor_hu": 20.0})


def test_a_false_zero_costs_more_than_a_false_score():
    """Calcium of one patient is as doubtful as the slightly larger noise of another."""
    scores, doubt = [np.array([27.0]), np.array([40.0])], [np.array([0.5])] * 2
    limit, _ = nearest_limit(scores, doubt, [27.0, 0.0])
    assert limit <= 0.5


def test_clinical_scores_are_compared_with_the_reader_and_the_map_with_the_truth():
    generator = np.random.default_rng(0)
    scans, scores = [], []
    for number in range(200):
        true_score = 0.0 if number % 2 else float(np.exp(generator.uniform(0, 7)))
        arteries = dict.fromkeys(("LM", "LCX", "RCA"), 0.0) | {"LAD": true_score}
        scan = measured(f"p{number}", "coronary", {STRICT: lesions([])}, 0.0)
        reader = {a: {"agatston": x, "mass_mg": x / 5} for a, x in arteries.items()}
        truth = {a: 2 * x for a, x in arteries.items()}
        mass = {a: x / 5 for a, x in truth.items()}
        scans.append(replace(scan, reader=reader, reference_agatston=truth, true_mass_mg=mass))
        predicted = true_score * np.exp(0.2 * generator.standard_normal())
        scores.append({a: {"agatston": x and predicted, "mass_mg": x and predicted / 5} for a, x in arteries.items()})
    stored, coverage = calibration.stored_uncertainty(scans, {"automatic": scores, "decomposition": scores})
    counted, count = np.array(list(coverage["automatic"].values())).T
    assert count.sum() == 200
    assert 0.85 < counted.sum() / 200 < 0.97
    by_reader, by_truth = (Uncertainty.stored({"uncertainty": stored}, kind) for kind in stored)
    low, high = by_reader.total["agatston"].interval(200.0)
    assert 110 < low < 160 < 250 < high < 340
    assert 250 < by_truth.total["agatston"].interval(100.0)[1] < 340
    without = [replace(scan, reference_agatston=None) for scan in scans]
    stored, _ = calibration.stored_uncertainty(without, {"automatic": scores, "decomposition": scores})
    assert list(stored) == ["automatic"]


@pytest.mark.long
def test_calibrate_updates_the_cards_alone(tmp_path, capsys):
    """Run the command on digital patients of all three kinds; the weights stay unchanged."""
    for name in ("vessels", "motion", "aortic-valve", "no-calcium"):
        write_coarse(SAMPLES[name][0], tmp_path / "data" / name)
    cards = {}
    for network, config in {
        "slices": SliceClassifierConfig(width=4, residual_blocks=0, size=64),
        "decomposition": GeneratorConfig(width=4, residual_blocks=0),
    }.items():
        training = models.Training("none", 0, {}, "")
        card = models.describe(network, config, "custom", training, {"auc": 0.5}, {}, "Apache-2.0", "Tests.")
        network_module = build(config)
        if network == "decomposition":
            torch.nn.init.constant_(network_module.last.bias, -3.0)  # 47 HU everywhere
            torch.nn.init.constant_(network_module.last.weight, 1e-5)  # all zero would be refused
        cards[network] = store.save_model(network_module, card, tmp_path / "models")
    weights = cards["decomposition"].with_suffix(".safetensors").read_bytes()
    options = [f"--{network}={path}" for network, path in cards.items()] + [f"--cache={tmp_path / 'cache'}"]
    code = cli.main(["calibrate", "--data", str(tmp_path / "data"), *options, "--progress", "json"])
    assert code == 0, capsys.readouterr().err
    assert "counted" in capsys.readouterr().err
    card = models.verify_model(cards["decomposition"])
    assert {"evidence_weights", "most_not_coronary", "floor_hu"} <= card.calibration.keys()
    assert "slice_threshold" not in card.calibration
    assert models.verify_model(cards["slices"]).calibration.keys() == {"slice_threshold"}
    performance = card.validation["whole_method"]
    assert [performance[f"scans_{kind}"] for kind in ("with_visible_calcium", "distractor", "clean")] == [2, 1, 1]
    judges = {network: models.find_model(network).card.sha256 for network in ("territories", "lesions")}
    assert card.validation["automatic_score"]["models"] == judges
    used = judges | {network: models.read_card(path).sha256 for network, path in cards.items()}
    assert performance["models"] == performance["evidence_models"] == used
    assert card.validation["auc"] == 0.5
    assert cards["decomposition"].with_suffix(".safetensors").read_bytes() == weights
    store.update_card(cards["decomposition"], {}, {"whole_method": performance | {"evidence_models": {"slices": "x"}}})
    again = ["calibrate", "--data", str(tmp_path / "data"), *options, "--intervals-only", "--progress", "none"]
    assert cli.main(again) == 0
    fitted = models.read_card(cards["decomposition"])
    assert fitted.calibration["evidence_weights"] == card.calibration["evidence_weights"]
    performance = fitted.validation["whole_method"]
    assert (performance["models"], performance["evidence_models"]) == (used, {"slices": "x"})
    swapped = [f"--slices={cards['decomposition']}", f"--decomposition={cards['slices']}"]
    assert cli.main(["calibrate", "--data", str(tmp_path / "data"), *swapped, "--progress", "json"]) == 3
    assert "not for 'slices'" in capsys.readouterr().err


def test_scans_for_training_and_test_are_left_out(tmp_path):
    def scan(use, has_truth=True):
        path = tmp_path / "ct.nii.gz"
        return TrainingScan(name="", patient="1", ct=path, heart=path, calcium_map=path if has_truth else None, use=use)

    scans = [scan(use) for use in ("training", "validation", "test", "")]
    assert [usable.use for usable in calibration_scans([*scans, scan("", has_truth=False)])] == ["validation", ""]
    with pytest.raises(DataError, match="stored for validation"):
        calibration_scans([scans[0], scan("validation", has_truth=False)])


@pytest.mark.parametrize("bundled", [True, False])
def test_bundled_classifier_keeps_its_threshold(monkeypatch, tmp_path, bundled):
    """The scans are measured with this threshold alone."""
    cards = {network: untrained(network, network, tmp_path / "models") for network in ("slices", "decomposition")}
    store.update_card(cards["slices"], {"slice_threshold": STRICT.slice_threshold}, {})
    tried, scans = [], cohort(patients=3)
    monkeypatch.setattr(calibration, "bundled_folder", lambda: tmp_path / ("models" if bundled else "elsewhere"))
    monkeypatch.setattr(calibration, "find_scans", lambda folders: [])
    monkeypatch.setattr(calibration, "calibration_scans", lambda scans: scans)
    monkeypatch.setattr(calibration, "measure_all", lambda f, m, thresholds, *_: tried.extend(thresholds) or scans)
    monkeypatch.setattr(calibration, "choose", lambda *arguments: ({"slice_threshold": 0.9, "floor_hu": 7.0}, {}, {}))
    command = ["calibrate", "--data", str(tmp_path), *(f"--{network}={path}" for network, path in cards.items())]
    assert cli.main([*command, "--progress", "none"]) == 0
    assert tried == ([0.5] if bundled else [0.0, 0.05, 0.2, 0.5])
    assert models.read_card(cards["slices"]).calibration == {"slice_threshold": 0.5 if bundled else 0.9}
    assert models.read_card(cards["decomposition"]).calibration == {"floor_hu": 7.0}


def lesions_by_evidence(weights, count=4000):
    """Draw features, and coronary lesions with probabilities by these weights."""
    generator = np.random.default_rng(5)
    features = {name: generator.normal(2.0, 1.5, count) for name in CANDIDATE_FEATURES}
    evidence = sum(weights.get(name, 0.0) * (values - 2.0) for name, values in features.items())
    return features, generator.random(count) < 1 / (1 + np.exp(-evidence))


def test_weights_equal_logistic_regression_if_all_are_positive():
    weights = {"log_rarity": 0.8, "place_logit": 1.2, "look_logit": 0.5}
    features, coronary = lesions_by_evidence(weights)
    fitted = calibration.fitted_weights(features, coronary)
    pipeline = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    scaler, regression = pipeline.fit(np.stack(list(features.values()), axis=1), coronary)
    expected = dict(zip(features, regression.coef_[0] / scaler.scale_, strict=True))
    assert {name: fitted[name] for name in weights} == pytest.approx({n: expected[n] for n in weights}, abs=0.05)


def test_more_calcium_never_counts_against_a_lesion():
    """Weights stay non-negative even if the data oppose them."""
    features, coronary = lesions_by_evidence({"log_rarity": -0.9, "place_logit": 1.0})
    weights = calibration.fitted_weights(features, coronary)
    assert weights["log_rarity"] == 0
    assert weights["place_logit"] > 0.5
