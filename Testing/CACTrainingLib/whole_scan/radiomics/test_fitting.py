import json

import numpy as np
import pytest
import torch

from CACScoringLib.core.errors import CTError
from CACScoringLib.models.cards import load_model, read_card
from CACScoringLib.networks.configs import RadiomicsConfig
from CACScoringLib.whole_scan.radiomics import PSEUDO_FEATURE
from CACTrainingLib.cli import main as cli
from CACTrainingLib.data.scan_table import held_out, read_cts
from CACTrainingLib.whole_scan.radiomics import study as train_radiomics
from CACTrainingLib.whole_scan.radiomics.fitting import (
    CLASSIFIERS,
    SETTINGS,
    as_network,
    best_limit,
    feature_table,
    fit_classifier,
)

N = 60


@pytest.fixture
def few_settings(monkeypatch):
    for kind in CLASSIFIERS:
        first = {name: values[:1] for name, values in SETTINGS[kind][-1].items()}
        monkeypatch.setitem(SETTINGS, kind, [first])


def data(noise: float = 0.3) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Return features (the first predicts the label, the second is constant, the third huge), labels and patients."""
    generator = np.random.default_rng(1)
    features = generator.normal(size=(N, 6))
    labels = features[:, 0] + noise * generator.normal(size=N) > 0
    features[:, 1] = 7
    features[:, 2] *= 1e7
    return features, labels, [f"p{n}" for n in range(N)]


@pytest.mark.parametrize(
    "kind",
    [pytest.param(kind, marks=pytest.mark.long if kind in ("forest", "boosting") else ()) for kind in CLASSIFIERS],
)
def test_each_classifier_learns_what_can_be_learned(kind, few_settings):
    features, labels, patients = data()
    fitted = fit_classifier(kind, features, labels, patients, 0)
    new = np.random.default_rng(2).normal(size=(200, 6))
    new[:, 1] = 7
    probabilities = fitted.probabilities(new)
    assert ((probabilities >= 0) & (probabilities <= 1)).all()
    assert np.mean((probabilities > np.median(probabilities)) == (new[:, 0] > np.median(new[:, 0]))) > 0.8
    assert ((fitted.out_of_fold >= fitted.limit) == labels).mean() > 0.75
    assert fitted.settings == {name: values[0] for name, values in SETTINGS[kind][0].items()}
    again = fit_classifier(kind, features, labels, patients, 0)
    np.testing.assert_array_equal(again.probabilities(new), probabilities)


@pytest.mark.parametrize("kind", ["svm", "logistic"])
def test_patient_is_never_on_both_sides(kind, few_settings):
    """Labels are random and every scan occurs twice, so a leak would predict them."""
    generator = np.random.default_rng(0)
    features = np.repeat(generator.normal(size=(40, 80)), 2, 0)
    labels = np.repeat(generator.permutation(40) < 20, 2)
    patients = np.repeat([f"p{n}" for n in range(40)], 2)
    fitted = fit_classifier(kind, features, labels, patients, 0)
    assert ((fitted.out_of_fold > np.median(fitted.out_of_fold)) == labels).mean() < 0.75


def test_logistic_regression_is_stored_as_it_is():
    features, labels, patients = data()
    fitted = fit_classifier("logistic", features, labels, patients, 0)
    names = [f"f{n}" for n in range(6)]
    network, config = as_network(fitted, names, RadiomicsConfig(heart_mm=3.0))
    assert config.heart_mm == 3.0
    assert "f0" in config.features
    assert "f1" not in config.features
    columns = [names.index(name) for name in config.features]
    wild = features * 20  # beyond the limit of standardised features
    for x in (features, wild):
        with torch.inference_mode():
            predicted = torch.sigmoid(network(torch.tensor(x[:, columns], dtype=torch.float32)))[:, 0].numpy()
        np.testing.assert_allclose(predicted, fitted.probabilities(x), atol=1e-5)
    np.testing.assert_allclose(network.highest.numpy(), features[:, columns].max(0), rtol=1e-6)


def test_limit_errs_alike_in_both():
    labels = np.arange(10) < 4
    probabilities = np.array([0.9, 0.8, 0.6, 0.1, 0.7, 0.5, 0.4, 0.3, 0.2, 0.2])
    # 3 of 4 and 5 of 6 from 0.6 on; each of the three others that catch calcium has a lower mean
    assert best_limit(probabilities, labels) == pytest.approx(0.55)
    assert best_limit(labels * 1.0, labels) == 0.5


def test_what_cannot_be_learned_from_is_told():
    features, labels, patients = data()
    with pytest.raises(CTError, match="60 scans with calcium and 0 without"):
        fit_classifier("logistic", features, np.ones(N, bool), patients, 0)
    with pytest.raises(CTError, match="at least two patients"):
        fit_classifier("logistic", features, labels, np.where(labels, "one", patients), 0)
    with pytest.raises(CTError, match="not numbers"):
        fit_classifier("logistic", np.full((N, 2), np.nan), labels, patients, 0)


NAMES = ("heart_a", "heart_b", PSEUDO_FEATURE, "candidate_d")
PATIENTS = 80


def table(folder, name, patients, scores, contrast=0):
    """Write a table of CTs that are never read."""
    lines = ["patient,name,ct,agatston_LM,agatston_LAD,agatston_LCX,agatston_RCA,contrast"]
    for patient, score in zip(patients, scores, strict=True):
        (folder / f"{name}-{patient}.nii").touch()
        lines.append(f"{patient},{name}{patient},{name}-{patient}.nii,0,{score},0,0,{contrast}")
    path = folder / f"{name}.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def tables(tmp_path, monkeypatch):
    """Tables in which every second patient has calcium, predicted by heart_a."""
    calls = []

    def features_of(scans, folder, workers, progress):
        calls.append([scan.name for scan in scans])
        generator = np.random.default_rng(3)
        values = generator.normal(size=(len(scans), len(NAMES)))
        values[:, 0] = [3.0 * (scan.total > 0) + 0.3 * generator.normal() for scan in scans]
        values[:, 2] = [float(int(scan.patient) % 4 == 1) for scan in scans]
        rows = [n for n, scan in enumerate(scans) if scan.name != "data2"]
        failed = {"data2": "no heart"} if len(rows) < len(scans) else {}
        return feature_table([scans[n] for n in rows], NAMES, values[rows]), failed

    monkeypatch.setattr(train_radiomics, "features_of", features_of)
    patients = range(PATIENTS)
    return {
        "data": table(tmp_path, "data", patients, [50 * (p % 2) for p in patients]),
        "contrast": table(tmp_path, "contrast", patients, [50 * (p % 2) for p in patients], 1),
        "others": table(tmp_path, "others", range(900, 910), [0] * 10),
        "asked": calls,
    }


def train(tmp_path, data, *options, **settings):
    command = ["train", "radiomics", "--output", tmp_path / "model", "--workers", "1", "--data", data]
    return cli.main([*map(str, command), *options, "--settings", json.dumps(settings, default=str)])


def test_model_is_trained_evaluated_once_and_written(tables, tmp_path):
    assert train(tmp_path, tables["data"], sources={"noncoronary_controls": tables["others"]}) == 0
    card = read_card(tmp_path / "model.json")
    test = card.validation["test"]
    test_names = held_out(read_cts(tables["data"]))
    assert test["patients"] == len(test_names) - ("data2" in test_names)
    assert test["accuracy"]["estimate"] == test["auc"]["estimate"] == 1
    assert test["sensitivity"]["low"] < test["sensitivity"]["estimate"] == 1
    assert test["specificity"]["estimate"] == 1
    assert test["non_coronary_only"] == {"patients": 10, "called_coronary": 0}
    assert "user's table" in test["data"]
    assert f"training {PATIENTS - 1 - test['patients']}, contrast-enhanced training 0" in card.training.data
    assert card.config["features"][0] == "heart_a"
    assert 0 < card.calibration["probability_limit"] < 1
    assert load_model(tmp_path / "model.json", "cpu").card == card
    json.dumps(card.validation, allow_nan=False)


@pytest.mark.long
def test_contrast_enhanced_scans_of_test_patients_are_not_learned_from(tables, tmp_path, monkeypatch):
    learned = []
    fit = train_radiomics.fit_classifier

    def record_patients(kind, features, labels, patients, seed):
        learned.extend(patients)
        return fit(kind, features, labels, patients, seed)

    monkeypatch.setattr(train_radiomics, "fit_classifier", record_patients)
    assert train(tmp_path, tables["data"], contrast_data=tables["contrast"]) == 0
    scans = read_cts(tables["data"])
    test_names = {scan.patient for scan in scans if scan.name in held_out(scans)}
    assert not test_names & set(learned)
    assert len(learned) > 1.5 * len(set(learned))
