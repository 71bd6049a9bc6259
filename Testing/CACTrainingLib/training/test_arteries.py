"""Test the atlas of the arteries: counts, frame, and suggestions for patients it was not drawn from."""

import numpy as np
import pytest
from images import image_of

from CACScoringLib.core.ct import CTError
from CACScoringLib.core.files import OutputError
from CACScoringLib.core.labels import Artery
from CACScoringLib.core.progress import Progress
from CACScoringLib.scoring.arteries import SUGGESTED, bundled_atlas, log_rates_at, read_atlas, suggest_arteries
from CACScoringLib.scoring.lesions import Lesion, LesionSet
from CACTrainingLib.phantom.anatomy.body import draw_body
from CACTrainingLib.phantom.anatomy.heart import reference_frame
from CACTrainingLib.phantom.anatomy.patient import patient_heart
from CACTrainingLib.training import arteries as train_arteries
from CACTrainingLib.training.arteries import NOT_CORONARY, AtlasSettings, make_atlas, mask_frame, patient_deposits
from CACTrainingLib.training.settings import RunOptions

SETTINGS = AtlasSettings(seed=7, patients=2, draws=30)
NAMES = [artery.key for artery in SUGGESTED]


@pytest.fixture(scope="module")
def atlas():
    return make_atlas(SETTINGS)


@pytest.fixture(scope="module")
def new_deposits():
    """Deposits of patients with another seed than the bundled atlas's."""
    settings = AtlasSettings(seed=99, patients=6, draws=20)
    deposits = [d for number in range(settings.patients) for d in patient_deposits(number, settings)]
    return [d for d in deposits if d.mass_mg >= settings.least_mass_mg]


@pytest.mark.long
def test_rates_are_lesions_per_thousand_patients(atlas):
    rates = np.exp(atlas.log_rates.astype(float))
    deposits = atlas.provenance["deposits"]
    per_deposit = 1000 / (SETTINGS.patients * SETTINGS.draws)
    for number, name in enumerate(NAMES):  # arteries lie inside the atlas altogether
        assert rates[number].sum() == pytest.approx(deposits[name] * per_deposit, rel=1e-3)
    non_coronary = sum(count for kind, count in deposits.items() if kind not in NAMES)
    assert 0.2 < rates[NOT_CORONARY].sum() / (non_coronary * per_deposit) < 1


@pytest.mark.long
def test_frame_matches_a_mask_of_the_heart():
    """A lesion in the mask of a heart is looked up where the atlas counted it."""
    body = draw_body(np.random.default_rng(3))
    frame, (heart, _) = reference_frame(body), patient_heart(3, body)
    centre, radii = mask_frame(heart, frame)
    spacing, origin = np.array([2.0, 2.5, 3.0]), np.array([-90.0, -130.0, -110.0])
    size = (110, 90, 72)
    axes = (o + s * np.arange(n) for o, s, n in zip(origin, spacing, size, strict=True))
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), -1)
    inside = (heart.sample(frame.to_heart(grid.reshape(-1, 3)))[:, 0] < 0).reshape(size)
    mask = image_of(np.ascontiguousarray(inside.T.astype(np.uint8)), spacing.tolist(), origin.tolist())
    for place in ([0.5, -0.4, 0.5], [-0.6, -0.3, 0.1], [0.6, 0.4, 0.3]):  # left, posterior, superior
        i, j, k = np.rint((centre + place * radii - origin) / spacing).astype(int)
        ids = np.zeros(size[::-1], np.uint16)
        ids[k, j, i] = 1
        lesions = LesionSet((Lesion(1, Artery.UNASSIGNED, (), (0.0, 0.0, 0.0)),), ids)
        (suggestion,) = suggest_arteries(lesions, mask, mask)
        exact = ((origin + spacing * [i, j, k] - centre) / radii)[::-1]
        rates = np.exp(log_rates_at(bundled_atlas(), exact[None])[:, 0])
        assert suggestion.confidence == pytest.approx(rates[:4].max() / rates[:4].sum(), abs=0.02)
        assert suggestion.not_coronary_probability == pytest.approx(rates[4] / rates.sum(), abs=0.02)


@pytest.mark.long
def test_bundled_atlas_suggests_arteries_of_new_patients(new_deposits):
    coronary = [d for d in new_deposits if d.kind in NAMES]
    assert len(coronary) > 100
    rates = [log_rates_at(bundled_atlas(), d.places).mean(1) for d in coronary]
    right = [NAMES[int(rate[:4].argmax())] == d.kind for rate, d in zip(rates, coronary, strict=True)]
    assert np.mean(right) > 0.7
    right_artery = [r for r, d in zip(right, coronary, strict=True) if d.kind == "RCA"]
    assert np.mean(right_artery) > 0.9
    coronary_called_not = np.mean([rate[4] > rate[:4].max() for rate in rates])
    mitral_rates = [log_rates_at(bundled_atlas(), d.places).mean(1) for d in new_deposits if d.kind == "mitral annulus"]
    assert np.mean([rate[4] > rate[:4].max() for rate in mitral_rates]) > 0.8
    # The bundled atlas was made with ellipsoidal hearts, from which these differ.
    assert coronary_called_not < 0.4


@pytest.mark.parametrize("wrong", [{"patients": 0}, {"outlier_share": 0.0}])
def test_settings_that_make_no_atlas(wrong):
    with pytest.raises(CTError):
        AtlasSettings(**wrong)


@pytest.mark.long
def test_the_command_writes_the_atlas(tmp_path, atlas, monkeypatch):
    monkeypatch.setattr(train_arteries, "make_atlas", lambda settings, _: atlas)
    path = tmp_path / "atlas.npz"
    assert train_arteries.train(RunOptions((), path), SETTINGS, Progress()) == path
    assert read_atlas(path).log_rates == pytest.approx(atlas.log_rates, rel=1e-3, abs=1e-3)
    for output, message in ((path, "exists already"), (tmp_path / "nowhere" / "atlas.npz", "cannot be written")):
        with pytest.raises(OutputError, match=message):
            train_arteries.train(RunOptions((), output), SETTINGS, Progress())
