"""Scoring of radiographs by networks with known outputs: probabilities, saliency, warnings, models."""

from pathlib import Path

import numpy as np
import pytest
import radiograph_models
import torch
from radiograph_files import chest
from radiograph_models import spot_model

from CACScoringLib.core.acquisition import Acquisition
from CACScoringLib.core.errors import CTError
from CACScoringLib.models import cards as models
from CACScoringLib.networks.radiograph import RadiographNetConfig
from CACScoringLib.radiograph.score import Factors, model_for, score_radiograph
from CACScoringLib.radiograph.view import ChestRadiograph


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


@pytest.mark.parametrize("values", [(17, "F", 25), (50, "O", 25), (50, "F", 5)])
def test_factors_of_others_than_adults_are_refused(values):
    with pytest.raises(CTError):
        Factors(*values)


def test_two_views_keep_the_models_order():
    model = spot_model(centres=((266, 235), (268, 183)), views=("PA", "lateral"))
    lateral = radiograph(chest(432, 432)[:, ::-1].copy(), view="lateral")
    result = score_radiograph({"lateral": lateral, "PA": radiograph()}, None, model)
    assert list(result.views) == ["PA", "lateral"]
    assert result.views["lateral"].heart_centre == (268, 183)
    assert np.array_equal(result.views["lateral"].standard, lateral.standard())


@pytest.mark.parametrize(("given_as", "is_one"), [("PA", "lateral"), ("lateral", "AP")])
def test_a_view_given_as_another(given_as, is_one):
    model = spot_model(views=(given_as,))
    with pytest.raises(CTError, match=f"is a {is_one} radiograph"):
        score_radiograph({given_as: radiograph(view=is_one)}, None, model)


@pytest.mark.parametrize(
    ("centre", "code"),
    [((266, 235), None), ((60, 235), "heart-place"), ((266, 400), "heart-place"), ((266, 180), None)],
)
def test_a_heart_at_an_odd_place(centre, code):
    warnings = codes(score_radiograph({"PA": radiograph()}, None, spot_model(centres=(centre,))))
    assert (warnings[1:] or [None]) == [code]


def test_the_saliency_has_the_place_of_the_answer():
    centre, spots = (266, 235), ((0, 0), (-40, 0), (0, 50))
    result = score_radiograph({"PA": radiograph()}, None, spot_model((centre,), spots))
    maps = result.views["PA"].saliency
    assert maps.shape == (3, 432, 432)
    y, x = np.mgrid[:432, :432]
    for pixels, spot in zip(maps, spots, strict=True):
        assert pixels.min() >= 0
        assert pixels.max() == pytest.approx(1)
        mass = pixels / pixels.sum()
        assert (mass * y).sum() == pytest.approx(centre[0] + spot[0], abs=1.5)
        assert (mass * x).sum() == pytest.approx(centre[1] + spot[1], abs=1.5)
        assert mass[np.hypot(y - centre[0] - spot[0], x - centre[1] - spot[1]) > 20].sum() < 0.01


def test_the_bundled_model_for_the_views_given(tmp_path, monkeypatch):
    monkeypatch.setenv("CAC_MODEL_DIR", str(tmp_path / "own"))
    monkeypatch.setattr(models, "bundled_folder", lambda: tmp_path / "bundled")
    for name, views in (("pa", ("PA",)), ("both", ("PA", "lateral")), ("side", ("lateral",))):
        config = RadiographNetConfig(views=views, size=32, width=4)
        radiograph_models.save_untrained(tmp_path / "bundled", name, config)
    assert model_for({"PA"}).card.name == "pa"
    assert model_for({"PA", "lateral"}).card.name == "both"
    assert model_for({"lateral"}).card.name == "side"
