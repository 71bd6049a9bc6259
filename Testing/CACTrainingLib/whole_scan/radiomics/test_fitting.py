import json
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from images import image_of
from whole_scan_studies import write_table

from CACScoringLib.anatomy.heart_region import HeartRegion
from CACScoringLib.core.acquisition import Acquisition
from CACScoringLib.core.ct import scan_from_image
from CACScoringLib.core.errors import CTError
from CACScoringLib.models.cards import load_model, read_card
from CACScoringLib.networks.configs import RadiomicsConfig
from CACScoringLib.whole_scan.radiomics import THRESHOLD_FEATURE
from CACTrainingLib.cli import main as cli
from CACTrainingLib.data.scan_table import held_out, read_cts
from CACTrainingLib.whole_scan.radiomics import fitting
from CACTrainingLib.whole_scan.radiomics.fitting import (
    CLASSIFIERS,
    HEART_ML,
    SETTINGS,
    EncoderSettings,
    as_network,
    best_limit,
    encoder_features,
    feature_table,
    fit_classifier,
)
from CACTrainingLib.whole_scan.radiomics.study import RadiomicsStudy

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


def test_patient_is_never_on_both_sides(few_settings):
    """Labels are random and every scan occurs twice, so a leak would predict them."""
    generator = np.random.default_rng(0)
    features = np.repeat(generator.normal(size=(40, 80)), 2, 0)
    labels = np.repeat(generator.permutation(40) < 20, 2)
    patients = np.repeat([f"p{n}" for n in range(40)], 2)
    fitted = fit_classifier("svm", features, labels, patients, 0)
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


@pytest.mark.parametrize(("sensitivity", "limit"), [(None, 0.55), (0.7, 0.55), (0.75, 0.55), (0.8, 0.05), (1.0, 0.05)])
def test_limit_errs_alike_in_both_or_has_a_sensitivity(sensitivity, limit):
    """3 of 4 and 5 of 6 from 0.6 on; each of the three others that catch calcium has a lower mean."""
    labels = np.arange(10) < 4
    probabilities = np.array([0.9, 0.8, 0.6, 0.1, 0.7, 0.5, 0.4, 0.3, 0.2, 0.2])
    assert best_limit(probabilities, labels, sensitivity) == pytest.approx(limit)


class Halves(torch.nn.Module):
    """Encoder whose vector is the mean of the box, and of its superior, posterior and left half."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        half = x.shape[2] // 2
        parts = [x, x[:, :, half:], x[:, :, :, half:], x[:, :, :, :, half:]]
        return torch.stack([part.mean() for part in parts])[None]


def save_script(module, path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.script(module).save(str(path))


@pytest.fixture
def encoder(tmp_path):
    save_script(Halves(), tmp_path / "encoder.pt")
    return EncoderSettings(tmp_path / "encoder.pt", side=8, spacing_mm=2.0, low_hu=-100, high_hu=300)


def scan_and_heart(hu, heart):
    hu = np.pad(hu, ((1, 1), (0, 0), (0, 0)), constant_values=((-1000, 1000), (0, 0), (0, 0)))  # no clipped picture
    heart = np.pad(heart, ((1, 1), (0, 0), (0, 0)))
    return scan_from_image(image_of(hu, (2.0, 2.0, 2.0)), Acquisition("made")), HeartRegion(heart, None, "given")


def test_an_encoder_of_the_user_sees_the_box_in_its_range(encoder):
    """HU rise by 10 per mm to the left; the heart is in the middle."""
    hu = np.broadcast_to(20.0 * (np.arange(24) - 11.5), (24, 24, 24)).astype(np.int16)
    heart = np.zeros(hu.shape, bool)
    heart[8:16, 8:16, 8:16] = True
    vector = encoder_features(*scan_and_heart(hu, heart), encoder)
    # From -70 to 70 HU, in steps of 20.
    assert tuple(vector.values()) == pytest.approx((0.25, 0.25, 0.25, (40 + 100) / 400))
    assert encoder.key != replace(encoder, high_hu=400).key


def test_unusable_encoders(encoder, tmp_path):
    scan = scan_and_heart(np.zeros((8, 8, 8), np.int16), np.ones((8, 8, 8), bool))
    with pytest.raises(CTError, match="does not exist"):
        replace(encoder, file=tmp_path / "none.pt")
    with pytest.raises(CTError, match="impossible"):
        replace(encoder, low_hu=300)
    (tmp_path / "text.pt").write_text("no module", encoding="utf-8")
    with pytest.raises(CTError, match="no TorchScript encoder"):
        encoder_features(*scan, replace(encoder, file=tmp_path / "text.pt"))
    save_script(torch.nn.Identity(), tmp_path / "box.pt")
    with pytest.raises(CTError, match="no vector of numbers"):
        encoder_features(*scan, replace(encoder, file=tmp_path / "box.pt"))


def test_what_cannot_be_learned_from_is_told():
    features, labels, patients = data()
    with pytest.raises(CTError, match="60 scans with calcium and 0 without"):
        fit_classifier("logistic", features, np.ones(N, bool), patients, 0)
    with pytest.raises(CTError, match="at least two patients"):
        fit_classifier("logistic", features, labels, np.where(labels, "one", patients), 0)
    with pytest.raises(CTError, match="not numbers"):
        fit_classifier("logistic", np.full((N, 2), np.nan), labels, patients, 0)


def test_age_and_sex_of_few_patients_are_learned_too():
    ages, calcified = np.array([[40.0], [45.0], [50.0], [70.0], [75.0], [80.0]]), np.arange(6) >= 3
    probabilities, called = RadiomicsStudy.fit_factors(None, ages, calcified)(ages).T
    assert probabilities[3:].min() > probabilities[:3].max()
    assert called[5] > called[0]


NAMES = ("heart_a", HEART_ML, THRESHOLD_FEATURE, "candidate_d")
PATIENTS = 80


@pytest.fixture
def tables(tmp_path, monkeypatch):
    """Tables in which every second patient has calcium, predicted by heart_a."""

    def features_of(scans, folder, workers, progress, encoder):
        generator = np.random.default_rng(3)
        values = generator.normal(size=(len(scans), len(NAMES)))
        values[:, 0] = [3.0 * (scan.total > 0) + 0.3 * generator.normal() for scan in scans]
        values[:, 2] = [float(int(scan.patient) % 4 == 1) for scan in scans]
        rows = [n for n, scan in enumerate(scans) if scan.name != "p2"]
        failed = {"p2": "no heart"} if len(rows) < len(scans) else {}
        return feature_table([scans[n] for n in rows], NAMES, values[rows]), failed

    monkeypatch.setattr(fitting, "features_of", features_of)
    return {
        "data": write_table(tmp_path / "data" / "table.csv", PATIENTS, digital=False, totals=(0, 50)),
        "contrast": write_table(tmp_path / "contrast" / "table.csv", PATIENTS, contrast=PATIENTS, totals=(0, 50)),
        "others": write_table(tmp_path / "others" / "table.csv", 10, 900, totals=(0,)),
    }


def train(tmp_path, data, *options, **settings):
    command = ["train", "radiomics", "--output", tmp_path / "model", "--workers", "1", "--data", data]
    return cli.main([*map(str, command), *options, "--settings", json.dumps(settings, default=str)])


def test_model_is_trained_evaluated_once_and_written(tables, tmp_path):
    assert train(tmp_path, tables["data"], sources={"noncoronary_controls": tables["others"]}) == 0
    card = read_card(tmp_path / "model.json")
    test = card.validation["test"]
    test_names = held_out(read_cts(tables["data"]))
    assert test["patients"] == len(test_names) - ("p2" in test_names)
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
    fit = fitting.fit_classifier

    def record_patients(kind, features, labels, patients, *options):
        learned.extend(patients)
        return fit(kind, features, labels, patients, *options)

    monkeypatch.setattr(fitting, "fit_classifier", record_patients)
    assert train(tmp_path, tables["data"], contrast_data=tables["contrast"]) == 0
    scans = read_cts(tables["data"])
    test_names = {scan.patient for scan in scans if scan.name in held_out(scans)}
    assert not test_names & set(learned)
    assert len(learned) > 1.5 * len(set(learned))
