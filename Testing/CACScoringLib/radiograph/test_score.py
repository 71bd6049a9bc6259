"""Scoring of radiographs by networks with known outputs: probabilities, evidence, warnings, models."""

import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import radiograph_models
import torch
from radiograph_files import chest
from radiograph_models import spot_model

from CACScoringLib.core.acquisition import Acquisition
from CACScoringLib.core.errors import CTError, ModelError
from CACScoringLib.networks.configs import RadiographNetConfig
from CACScoringLib.radiograph.score import Factors, model_for, probabilities, score_radiograph
from CACScoringLib.radiograph.view import ChestRadiograph
from CACScoringLib.report.radiograph import result_as_html, result_as_json, result_as_text


def radiograph(picture=None, pixel_mm=(1.0, 1.0), view="PA", **facts) -> ChestRadiograph:
    picture = chest(432, 432) if picture is None else picture
    return ChestRadiograph(picture, pixel_mm, view, Acquisition("memory", **facts), source=Path("one.dcm"))


def codes(result) -> list[str]:
    return [warning.code for warning in result.warnings]


def logistic(z):
    return 1 / (1 + np.exp(-z))


def test_probabilities_are_the_networks_logits_calibrated():
    calibration = radiograph_models.calibration(offsets=(1.0, 0.0, -1.0))
    model = spot_model(fit=calibration)
    result = score_radiograph({"PA": radiograph()}, Factors(50, "M", 25), model)
    with torch.no_grad():
        logits = model.network(torch.from_numpy(radiograph().standard())[None, None])[0].numpy()
    expected = logistic(logits + np.array([1, 0, -1]))
    assert [t.agatston for t in result.thresholds] == [0, 100, 400]
    np.testing.assert_allclose([t.image for t in result.thresholds], expected, atol=1e-6)
    fused = [t.with_factors for t in result.thresholds]
    np.testing.assert_allclose(fused, logistic(logits + np.array([1, 0, -1]) + 1.0), atol=1e-6)
    assert result.factors == Factors(50, "M", 25)


def test_no_probability_of_the_image_where_tests_hardly_exceeded_chance():
    model = spot_model()
    areas = {"auc_above_0": 0.52, "auc_from_100": 0.6}
    card = replace(model.card, validation={**model.card.validation, **areas})
    result = score_radiograph({"PA": radiograph()}, Factors(50, "M", 25), replace(model, card=card))
    before = score_radiograph({"PA": radiograph()}, Factors(50, "M", 25), model)
    assert [t.image for t in result.thresholds] == [None, *(t.image for t in before.thresholds[1:])]
    assert [t.with_factors for t in result.thresholds] == [t.with_factors for t in before.thresholds]
    assert re.search("above 0 +cannot be told", result_as_text(result))
    assert result_as_html(result).count("cannot be told from this view") == 1
    assert result_as_json(result, {})["thresholds"][0]["probability_image"] is None


@pytest.mark.parametrize("values", [(50, "O", 25), (50, "F", 5)])
def test_factors_of_others_than_adults_are_refused(values):
    with pytest.raises(CTError):
        Factors(*values)


def test_two_views_keep_the_models_order():
    model = spot_model(centres=((532, 470), (536, 366)), views=("PA", "lateral"))
    lateral = radiograph(chest(432, 432)[:, ::-1].copy(), view="lateral")
    result = score_radiograph({"lateral": lateral, "PA": radiograph()}, None, model)
    assert (list(result.views), result.views["lateral"].heart_centre) == (["PA", "lateral"], (536, 366))
    assert np.array_equal(result.views["lateral"].standard, lateral.standard())


@pytest.mark.parametrize(("given_as", "is_one"), [("PA", "lateral"), ("lateral", "AP")])
def test_a_view_given_as_another(given_as, is_one):
    model = spot_model(views=(given_as,))
    with pytest.raises(CTError, match=f"is a {is_one} radiograph"):
        score_radiograph({given_as: radiograph(view=is_one)}, None, model)


@pytest.mark.parametrize(
    ("centre", "code"),
    [((532, 470), None), ((120, 470), "heart-place"), ((532, 800), "heart-place"), ((532, 360), None)],
)
def test_a_heart_at_an_odd_place(centre, code):
    warnings = codes(score_radiograph({"PA": radiograph()}, None, spot_model(centres=(centre,))))
    assert (warnings[1:] or [None]) == [code]


def test_the_evidence_has_its_place_on_the_radiograph():
    centre = (532, 470)
    model = spot_model((centre,))
    evidence = score_radiograph({"PA": radiograph()}, None, model).views["PA"].evidence
    assert evidence.shape == (864, 864)
    size, cell = model.network.config.size, 4
    # The middle of the brightest cell of the square about the heart.
    row, column = (
        c + 0.5 - size / 2 + (n + 0.5) * cell for c, n in zip(centre, model.network.BRIGHT_CELL, strict=True)
    )
    y, x = np.mgrid[:864, :864]
    assert (evidence * y).sum() / evidence.sum() == pytest.approx(row, abs=1.0)
    assert (evidence * x).sum() / evidence.sum() == pytest.approx(column, abs=1.0)
    assert evidence.max() > 0.7


def test_the_installed_model_for_the_views_given(tmp_path, monkeypatch):
    monkeypatch.setenv("CAC_MODEL_DIR", str(tmp_path / "own"))
    with pytest.raises(ModelError, match="cac train radiograph"):
        model_for({"PA"})
    for name, views in (("both", ("PA", "lateral")), ("side", ("lateral",))):
        config = RadiographNetConfig(views=views, size=32, width=4)
        radiograph_models.save_untrained(tmp_path / "own", name, config)
    with pytest.raises(ModelError, match=r"0 installed models read PA\..*setting radiograph\.lateral"):
        model_for({"PA"})
    assert (model_for({"lateral"}).card.name, model_for({"PA", "lateral"}).card.name) == ("side", "both")
    radiograph_models.save_untrained(
        tmp_path / "own", "other", RadiographNetConfig(views=("lateral",), size=32, width=4)
    )
    with pytest.raises(ModelError, match="2 installed models"):
        model_for({"lateral"})


CALIBRATION = {
    "image_100": {"offset": -1.0, "logit": 2.0},
    "factors_100": {"offset": -6.0, "logit": 1.0, "age_years": 0.1, "male": 0.5, "bmi_kg_m2": 0.0},
    "image_0": {"offset": 0.0, "logit": 1.0},
    "factors_0": None,
    "slice_threshold": 0.3,
}


def sigmoid(z):
    return 1 / (1 + math.exp(-z))


def test_from_the_image_alone():
    result = probabilities(np.array([[0.5, 1.5], [0.0, 0.5]]), None, CALIBRATION)
    np.testing.assert_allclose(result, [[sigmoid(0.5), sigmoid(2)], [0.5, 0.5]])


def test_with_factors():
    result = probabilities(np.array([[0.0, 0.5]]), np.array([[60.0, 1.0, 27.0]]), CALIBRATION)
    assert math.isnan(result[0, 0])  # the card has no fit with factors
    assert result[0, 1] == pytest.approx(sigmoid(1.0))
