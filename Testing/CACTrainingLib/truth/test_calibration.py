"""Test the calibration: limits, weights, intervals, and what reaches the models' cards."""

import functools
import json
from dataclasses import replace

import numpy as np
import pandas as pd
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
from CACScoringLib.models.operating_points import SCORING_LIMIT
from CACScoringLib.networks.configs import GeneratorConfig, SliceClassifierConfig, build
from CACScoringLib.scoring.sites import MAP_FEATURES, coronary_probabilities
from CACScoringLib.scoring.uncertainty import COUNTS_FROM, LesionAmounts
from CACTrainingLib.cli import main as cli
from CACTrainingLib.data.datasets import TrainingScan
from CACTrainingLib.phantom.cohort.cohort import SAMPLES
from CACTrainingLib.training import fits
from CACTrainingLib.truth import calibration
from CACTrainingLib.truth.calibration import calibration_scans, choose
from CACTrainingLib.truth.measured_scans import LOGIT, PLACE, MeasuredScan


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Try few spreads of scores."""
    fitted = functools.partial(fits.fitted_errors, spreads=(0.2, 0.8), sharpnesses=(1.0,))
    for module in (fits, calibration):
        monkeypatch.setattr(module, "fitted_errors", fitted)


def table(features, coronary, agatston, beneath=None):
    """Make a table of lesions of the LAD; those of a map lie above dense lesions with the numbers `beneath`."""
    columns = {name: np.array(values, float) for name, values in {**features, "agatston": agatston}.items()}
    beneath = np.full(len(coronary), -1) if beneath is None else np.array(beneath)
    artery = np.full(len(coronary), "LAD", object)
    return pd.DataFrame({**columns, "coronary": np.array(coronary, bool), "artery": artery, "beneath": beneath})


def dense(rows):
    """Make a table of dense lesions from rows (log-odds by the network and of an artery, coronary, Agatston)."""
    logits, places, coronary, agatston = zip(*rows, strict=True) if rows else ((),) * 4
    return table({LOGIT: logits, PLACE: places}, coronary, agatston)


def in_map(rows, beneath=None):
    """Make a table of lesions of a map from rows (excess, place, coronary, Agatston)."""
    excess, place, coronary, agatston = zip(*rows, strict=True) if rows else ((),) * 4
    features = {**dict.fromkeys(MAP_FEATURES, np.zeros(len(rows))), "log_ct_excess": excess, "place_logit": place}
    return table(features, coronary, agatston, beneath)


def measured(patient, kind, lesions, dense_lesions, clinical):
    """Make a measured scan, not gated, whose only calcium, of `clinical`, is in the LAD."""
    reader = {"LM": 0.0, "LAD": clinical, "LCX": 0.0, "RCA": 0.0}
    return MeasuredScan(patient, kind, kind == "coronary", lesions, dense_lesions, reader, None, {}, False)


def cohort(patients=60, seed=0):
    """Make lesions of a map, none above anything dense, which excess and place discriminate together, but not alone.

    The lesion network discriminates the dense ones. A third of the patients is of each kind.
    """
    normal, scans = np.random.default_rng(seed).normal, []
    for number in range(patients):
        kind = ("clean", "distractor", "coronary")[number % 3]
        haze = [(normal(1, 0.1), normal(3, 0.5), False, 2.0) for _ in range(3)]
        faint = {
            "clean": [],
            "distractor": [(normal(4, 0.2), normal(-3, 0.5), False, 50.0)],
            "coronary": [(normal(4, 0.2), normal(3, 0.5), True, 40.0)],
        }[kind]
        specks = [(normal(-3, 0.5), normal(0, 1), False, 2.0) for _ in range(3)]
        calcium = {
            "clean": [],
            "distractor": [(normal(-0.5, 0.2), normal(0, 1), False, 50.0)],
            "coronary": [(normal(1, 0.2), normal(2, 1), True, 40.0)],
        }[kind]
        lesions = in_map(haze + faint), dense(specks + calcium)
        scans.append(measured(f"p{number}", kind, *lesions, 10.0 * (kind == "coronary")))
    return scans


def test_combined_evidence_discriminates_better_than_single_limits():
    scans = cohort()
    fitted, performance, _ = choose(scans, 0.0)
    assert performance["sensitivity_scans"] > 0.9
    assert performance["above_zero_distractor_scans"] == performance["above_zero_clean_scans"] == 0.0
    assert [performance[f"scans_{kind}"] for kind in ("distractor", "clean", "with_visible_calcium")] == [20] * 3
    assert performance["patients"] == 60
    # The stored weights reproduce the choice.
    weights, limit = fitted["evidence_weights"], 1 - fitted["most_not_coronary"]
    counted = [coronary_probabilities(scan.lesions[list(MAP_FEATURES)], weights) >= limit for scan in scans]
    assert sum((k != scan.lesions.coronary).sum() for k, scan in zip(counted, scans, strict=True)) <= 2


def test_a_lesion_is_not_evaluated_by_its_own_patient():
    """Weights of random features do not transfer to other patients, so sensitivity must be low."""
    normal, scans = np.random.default_rng(1).normal, []
    for number in range(30):
        kind = ("clean", "distractor", "coronary")[number % 3]
        lesions = in_map([(normal(), normal(), kind == "coronary", 1.0)])
        scans.append(measured(f"p{number}", kind, lesions, dense([]), 1.0))
    assert choose(scans, 0.0)[1]["sensitivity_scans"] < 0.4


def test_lesions_of_the_map_count_as_the_dense_ones_in_them():
    """Lesions of the map alike in all but what is dense in them; nothing else in the map is calcium."""
    scans = []
    for scan in cohort():
        numbers = range(len(scan.dense.coronary))
        rows = [(1.0, 1.0, is_coronary, 5.0) for is_coronary in scan.dense.coronary]
        scans.append(replace(scan, lesions=in_map([*rows, (0.0, 0.0, False, 5.0)], [*numbers, -1])))
    fitted, performance, _ = choose(scans, 0.0)
    assert fitted["evidence_weights"] is None
    assert performance["sensitivity_scans"] == 1.0
    assert performance["above_zero_distractor_scans"] == performance["above_zero_clean_scans"] == 0.0


def judged(lesions, scan):
    """Return the probabilities of a scan's dense lesions by the stored calibration."""
    answers = (1 / (1 + np.exp(-scan.dense[name].to_numpy())) for name in (LOGIT, PLACE))
    return lesions.probability(*answers, scan.is_gated)


def test_dense_lesions_are_classified_by_cross_fitted_and_by_stored_calibration():
    scans = cohort()
    lesions, performance, crossed = calibration.fit_lesions(scans)
    assert (performance["candidates"], performance["coronary"]) == (60 * 3 + 40, 20)
    assert performance["precision"] > 0.9
    assert performance["recall"] > 0.9
    assert performance["above_zero_distractor_scans"] == performance["above_zero_clean_scans"] == 0.0
    coronary = np.concatenate([scan.dense.coronary for scan in scans])
    for probabilities in (crossed.probability, np.concatenate([judged(lesions, scan) for scan in scans])):
        assert ((probabilities >= COUNTS_FROM) == coronary).mean() > 0.95


def test_network_and_territories_add_to_the_evidence_of_a_dense_lesion():
    generator, scans = np.random.default_rng(2), []
    for number in range(80):
        logits, places = generator.normal(1.0, 1.0, (2, 20))
        coronary = generator.random(20) < 1 / (1 + np.exp(-(1.5 * logits + 0.7 * places - 2.0)))
        rows = zip(logits, places, coronary, np.ones(20), strict=True)
        scans.append(measured(f"p{number}", "coronary", in_map([]), dense(list(rows)), 1.0))
    lesions = calibration.fit_lesions(scans)[0]
    fitted = (lesions.network, lesions.territories, lesions.intercept)
    assert fitted == pytest.approx((1.5, 0.7, -2.0), abs=0.35)


def rims(scans):
    """Return scans as if gated, in which the network believes more in everything."""
    return [
        replace(
            scan,
            patient=f"gated {scan.patient}",
            is_gated=True,
            dense=scan.dense.assign(**{LOGIT: scan.dense[LOGIT] + 3}),
        )
        for scan in scans
    ]


def test_gated_scans_have_their_own_weights():
    usual, gated = cohort(), rims(cohort(seed=1))
    lesions, performance, _ = calibration.fit_lesions(usual + gated)
    assert performance["precision"] > 0.9
    assert performance["recall"] > 0.9
    for scans in (usual, gated):
        coronary = np.concatenate([scan.dense.coronary for scan in scans])
        stored = np.concatenate([judged(lesions, scan) for scan in scans])
        assert ((stored >= COUNTS_FROM) == coronary).mean() > 0.95
    assert -lesions.gated_intercept / lesions.gated_network > -lesions.intercept / lesions.network + 2


def test_few_gated_scans_are_judged_by_the_weights_of_the_others():
    gated_scans = [replace(scan, patient=f"gated {scan.patient}", is_gated=True) for scan in cohort(3, seed=1)]
    lesions, _, crossed = calibration.fit_lesions(cohort() + gated_scans)
    assert (lesions.gated_network, lesions.gated_intercept) == (lesions.network, lesions.intercept)
    expected = np.concatenate([judged(lesions, scan) for scan in gated_scans])
    assert crossed.probability[crossed.is_gated].to_numpy() == pytest.approx(expected, abs=0.02)
    assert max(expected) > COUNTS_FROM


def test_lesions_that_the_network_disbelieves_have_no_part_in_the_fit():
    scans = cohort()
    for scan in scans:
        scan.dense.loc[:2, "coronary"] = True
    expected = calibration.fit_lesions(cohort())[0]
    assert calibration.fit_lesions(scans)[0] == expected


def test_without_dense_lesions_clinical_scores_have_no_calibration():
    scans = [replace(scan, dense=dense([])) for scan in cohort()]
    fitted, _, performance = choose(scans)
    assert (fitted["candidates"], performance) == (None, {})
    assert "automatic" not in fitted["uncertainty"]


def test_dense_lesions_without_an_artery_never_count():
    scans = cohort()
    for scan in scans:
        scan.dense["artery"] = None
    performance = calibration.fit_lesions(scans)[1]
    assert (performance["precision"], performance["recall"]) == (None, 0.0)


def test_patients_of_a_calibration_are_named_by_ranges():
    patients = ("9000001", "1850000", "9000000", "9000000", "9000002", "1850004", "A0001")
    scans = [measured(patient, "clean", in_map([]), dense([]), 0.0) for patient in patients]
    assert calibration.patients_of(scans) == ("7 scans of 6 patients: 1850000, 1850004, 9000000 to 9000002, A0001")


def test_clinical_scores_are_compared_with_the_reader_and_the_map_with_the_truth():
    generator = np.random.default_rng(0)
    scans = []
    for number in range(100):
        score = 0.0 if number % 2 else float(np.exp(generator.uniform(0, 7)))
        rows = [(0.0, 0.0, True, score * np.exp(0.2 * generator.standard_normal()))] if score else []
        scan = measured(f"p{number}", "coronary", in_map(rows), dense(rows), score)
        scans.append(replace(scan, reference_agatston={a: 2 * x for a, x in scan.reader_agatston.items()}))
    certain = pd.concat([scan.dense.assign(scan=n, probability=1.0) for n, scan in enumerate(scans)])
    stored, coverage = calibration.fit_errors(scans, certain, certain)
    counted, count = np.array(list(coverage["automatic"].values())).T
    assert count.sum() == 100
    assert 0.85 < counted.sum() / 100 <= 1.0
    by_reader, by_truth = stored.values()
    low, high = by_reader.total.interval(LesionAmounts([200.0], [1.0]))
    assert 110 < low < 170 < 230 < high < 340
    assert 200 < by_truth.total.interval(LesionAmounts([100.0], [1.0]))[1] < 400
    without = [replace(scan, reference_agatston=None) for scan in scans]
    assert list(calibration.fit_errors(without, certain, certain)[0]) == ["automatic"]


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
    (measured,) = (tmp_path / "cache").iterdir()
    assert len(measured.read_text("utf-8").splitlines()) == 4, "what an interrupted calibration need not measure again"
    card = models.verify_model(cards["decomposition"])
    assert {"evidence_weights", "most_not_coronary", "floor_hu"} <= card.calibration.keys()
    assert "slice_threshold" not in card.calibration
    assert models.verify_model(cards["slices"]).calibration.keys() == {"slice_threshold"}
    performance = card.validation["whole_method"]
    assert [performance[f"scans_{kind}"] for kind in ("with_visible_calcium", "distractor", "clean")] == [2, 1, 1]
    judges = {network: models.find_model(network).card.sha256 for network in ("territories", "lesions")}
    assert card.validation["automatic_score"]["models"] == judges
    used = judges | {network: models.read_card(path).sha256 for network, path in cards.items()}
    assert performance["models"] == used
    assert card.validation["auc"] == 0.5
    assert cards["decomposition"].with_suffix(".safetensors").read_bytes() == weights
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


def test_a_scan_with_a_stent_is_left_out(tmp_path):
    usable = []
    for kind in ("stent", "lead"):
        truth = tmp_path / f"{kind}.json"
        truth.write_text(json.dumps({"patient": 1, "slices": [], "distractors": [{"kind": kind}]}))
        files = {"ct": truth, "heart": truth, "calcium_map": truth}
        usable.append(TrainingScan(name=kind, patient="1", truth=truth, **files))
    assert [scan.name for scan in calibration_scans(usable)] == ["lead"]


@pytest.mark.parametrize("stored", [0.5, None])
def test_a_classifier_keeps_its_threshold(monkeypatch, tmp_path, stored):
    cards = {network: untrained(network, network, tmp_path) for network in ("slices", "decomposition")}
    if stored is not None:
        store.update_card(cards["slices"], {"slice_threshold": stored}, {})
    monkeypatch.setattr(calibration, "find_scans", lambda folders: cohort())
    monkeypatch.setattr(calibration, "calibration_scans", lambda scans: scans)
    monkeypatch.setattr(calibration, "measure_all", lambda *_: cohort(30))
    command = ["calibrate", "--data", str(tmp_path), *(f"--{network}={path}" for network, path in cards.items())]
    assert cli.main([*command, "--progress", "none"]) == 0
    assert models.read_card(cards["slices"]).calibration == {"slice_threshold": stored or SCORING_LIMIT}
    assert models.read_card(cards["decomposition"]).calibration["floor_hu"] == 20.0


def test_a_missing_kind_is_refused_before_scans_are_measured(monkeypatch, tmp_path, capsys):
    path = untrained("decomposition", "decomposition", tmp_path)
    scans = [scan for scan in cohort() if scan.kind != "distractor"]
    monkeypatch.setattr(calibration, "find_scans", lambda folders: scans)
    monkeypatch.setattr(calibration, "calibration_scans", lambda scans: scans)
    monkeypatch.setattr(calibration, "measure_all", lambda *_: pytest.fail("measured"))
    command = ["calibrate", "--data", str(tmp_path), f"--decomposition={path}", "--progress", "none"]
    assert cli.main(command) == 3
    error = capsys.readouterr().err
    assert "0 distractor" in error
    assert "cac phantom" in error


def lesions_by_evidence(weights, count=4000):
    """Draw features, and coronary lesions with probabilities by these weights."""
    generator = np.random.default_rng(5)
    features = {name: generator.normal(2.0, 1.5, count) for name in MAP_FEATURES}
    evidence = sum(weights.get(name, 0.0) * (values - 2.0) for name, values in features.items())
    return features, generator.random(count) < 1 / (1 + np.exp(-evidence))


def test_weights_equal_logistic_regression_if_all_are_positive():
    weights = {"log_ct_excess": 0.8, "place_logit": 1.2, "slice_logit": 0.5}
    features, coronary = lesions_by_evidence(weights)
    fitted = calibration.fitted_weights(features, coronary)
    pipeline = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    scaler, regression = pipeline.fit(np.stack(list(features.values()), axis=1), coronary)
    expected = dict(zip(features, regression.coef_[0] / scaler.scale_, strict=True))
    assert {name: fitted[name] for name in weights} == pytest.approx({n: expected[n] for n in weights}, abs=0.05)


def test_more_calcium_never_counts_against_a_lesion():
    """Weights stay non-negative even if the data oppose them."""
    features, coronary = lesions_by_evidence({"log_ct_excess": -0.9, "place_logit": 1.0})
    weights = calibration.fitted_weights(features, coronary)
    assert weights["log_ct_excess"] == 0
    assert weights["place_logit"] > 0.5
