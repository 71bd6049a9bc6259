"""Models that come with CAC score the sample; a model that scores it wrongly is not installed."""

import dataclasses
import re

import pytest
import radiograph_models
import torch

from CACScoringLib.cli import main as cli
from CACScoringLib.cli import model_trial
from CACScoringLib.core.errors import CTError, ModelError
from CACScoringLib.core.labels import MAIN_ARTERIES
from CACScoringLib.io.reading import read_ct
from CACScoringLib.models.cards import LoadedModel, StoredModel, find_model, list_models, read_card, read_network
from CACScoringLib.models.choice import ModelChoice, chosen_models, load_models, load_networks
from CACScoringLib.models.inference import prepared
from CACScoringLib.models.store import save_model
from CACScoringLib.mrml.sample_data import sample_file
from CACScoringLib.networks.configs import LESION_KINDS, SCORING
from CACScoringLib.pipeline import score_scan
from CACScoringLib.whole_scan.run import estimate_whole_scan

_ALTERNATIVES = [
    model.card.name for network in SCORING for model in list_models(network) if model.origin == "alternative"
]


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Empty folder of the user's models."""
    monkeypatch.setenv("CAC_MODEL_DIR", str(tmp_path / "installed"))
    return tmp_path / "installed"


@pytest.mark.long
@pytest.mark.parametrize("name", ["", *_ALTERNATIVES])
def test_every_model_that_comes_with_cac_finds_calcium_in_the_sample(installed, name):
    choice = ModelChoice((name,) if name else (), device="cpu", estimates=("vessels",))
    models = load_models(chosen_models(choice))
    result = score_scan(read_ct(sample_file()), networks=models.networks)
    clinical, calcium_map = result.methods["threshold"], result.methods["decomposition"]
    assert clinical.total.agatston == pytest.approx(195.84, rel=0.02), "its card calibrates what counts"
    assert clinical.has_intervals
    assert calcium_map.total.clinical_agatston > 50
    assert calcium_map.has_intervals
    # Other classifiers and lesion networks than the maps were calibrated with come with CAC, too.
    is_map = name in ("", models.networks.decomposition.card.name)
    assert ("map-calibrated-for-others" in {warning.code for warning in result.warnings}) is not is_map
    whole_scan = estimate_whole_scan(result.scored_scan, result.region, result.methods, models.estimates, False)
    assert whole_scan.estimates


def _loaded(stored):
    card, network = read_network(stored.path)
    return LoadedModel(dataclasses.replace(card, validation={}), prepared(network, "cpu"))


def _exchanged(first, second):
    def change(layer):
        layer.data[[first, second]] = layer.data[[second, first]].clone()

    return change


def _times(factor):
    return lambda layer: layer.data.mul_(factor)


def _without_calcium(layer):
    """Make everything in vessel regression something else than coronary calcium."""
    if layer.ndim == 1:
        layer.data[len(MAIN_ARTERIES)] = 100


def _shuffled(layer):
    generator = torch.Generator().manual_seed(0)
    layer.data = layer.flatten()[torch.randperm(layer.numel(), generator=generator)].view_as(layer)


@pytest.fixture(scope="module")
def bench():
    networks = load_networks(chosen_models(ModelChoice(device="cpu")).networks, "cpu")
    return model_trial.Bench.of(networks)


@pytest.fixture
def measured(bench, monkeypatch):
    monkeypatch.setattr(model_trial.Bench, "of", lambda networks: bench)
    return lambda model: model_trial.measure_on_sample(model)["sample"]["figures"]


@pytest.mark.long
def test_calcium_placed_in_each_artery_counts_there(bench):
    arteries = bench.usual.methods["threshold"].arteries
    assert all(arteries[artery].agatston > 150 for artery in MAIN_ARTERIES)
    assert min(arteries[artery].lesions for artery in MAIN_ARTERIES[1:]) >= 3


@pytest.mark.long
@pytest.mark.parametrize(
    "stored", [model for model in list_models() if model.origin != "user"], ids=lambda stored: stored.card.name
)
def test_every_model_that_comes_with_cac_passes_its_trial(measured, stored):
    assert measured(_loaded(stored))


_FAULTS = [
    ("lesions", _exchanged(1, 3), "probability of LAD is 0"),
    ("lesions", _exchanged(1, 15), "probability of LAD is"),
    ("lesions", _times(1.5), "scale of answers is 1.4"),
    ("territories", _exchanged(3, 4), "territory agreement of LAD is 0"),
    ("territories", _exchanged(0, 3), "territory agreement of"),
    ("slices", _times(-1), "slice contrast is -"),
    ("decomposition", _times(-1), "map agreement"),
    ("super_resolution", _times(2), "scale of added detail is 1.9"),
    ("super_resolution", _times(0.5), "scale of added detail is 0.4"),
    ("vessels", _without_calcium, "response by artery is 0"),
]


@pytest.mark.long
@pytest.mark.parametrize(("network", "change", "fault"), _FAULTS)
def test_a_model_with_wrong_outputs_is_refused(measured, network, change, fault):
    model = _loaded(find_model(network))
    weight, bias = [layer for name, layer in model.network.named_parameters() if "finder" not in name][-2:]
    for layer in (weight, bias):
        change(layer)
    with pytest.raises(CTError, match=re.escape(fault)):
        measured(model)


@pytest.mark.long
def test_a_radiograph_model_with_exchanged_thresholds_is_refused(measured, tmp_path):
    model = _loaded(StoredModel(None, radiograph_models.save_untrained(tmp_path), "user"))
    *_, bias = [layer for name, layer in model.network.named_parameters() if "finder" not in name]
    bias.data[:] = torch.tensor([3.0, 0.0, -3.0])
    assert measured(model)
    _exchanged(0, 1)(bias)
    with pytest.raises(CTError, match="order of thresholds is -"):
        measured(model)


def _shifted(by, number=slice(None)):
    return lambda weight, bias: bias.data[number].add_(by)


def _scaled(factor):
    return lambda weight, bias: (weight.data.mul_(factor), bias.data.mul_(factor))


@pytest.mark.long
@pytest.mark.parametrize(
    ("network", "change", "fault"),
    [
        ("lesions", _scaled(0.75), "log probability of LAD is"),
        ("lesions", _shifted(1.5, LESION_KINDS.index("aortic valve and root")), "log probability of aortic valve"),
        ("decomposition", _shifted(-0.4), "map agreement in LAD is"),
        ("slices", _scaled(0.3), "slice contrast is"),
        ("super_resolution", _shifted(0.05), "offset of added detail in HU is"),
    ],
)
def test_model_unlike_its_card_is_refused(measured, network, change, fault):
    model = _loaded(find_model(network))
    stated = LoadedModel(find_model(network).card, model.network)
    change(*[layer for name, layer in model.network.named_parameters() if "finder" not in name][-2:])
    with pytest.raises(CTError, match=re.escape(fault)):
        measured(stated)


@pytest.mark.long
@pytest.mark.parametrize("network", ["lesions", "territories"])
def test_a_model_with_shuffled_weights_is_refused(measured, network):
    model = _loaded(find_model(network))
    for layer in model.network.parameters():
        if layer.ndim > 1:
            _shuffled(layer)
    with pytest.raises(CTError):
        measured(model)


@pytest.mark.long
def test_a_map_without_calibration_is_not_installed(measured):
    model = _loaded(find_model("decomposition"))
    with pytest.raises(ModelError, match="not calibrated"):
        measured(LoadedModel(dataclasses.replace(model.card, calibration={}), model.network))


@pytest.mark.long
@pytest.mark.parametrize(("factor", "fault"), [(1, None), (3, "map agreement")])
def test_a_model_is_installed_by_its_figures_on_the_sample(installed, tmp_path, capsys, factor, fault):
    """Weights are finite and not zero, whatever the score; figures stand on the card, and hold there."""
    card, module = read_network(find_model("decomposition").path)
    [layer.data for layer in module.parameters() if layer.ndim > 1][-1].mul_(factor)
    path = save_model(module, dataclasses.replace(card, name="made"), tmp_path / "made")
    code = cli.main(["models", "install", str(path)])
    if fault is not None:
        assert code == cli.BAD_INPUT
        assert re.search(rf"With the model made .*{fault}", capsys.readouterr().err)
        assert not [*installed.glob("*")]
        return
    assert code == 0
    stored = read_card(installed / "made.json")
    stored.validation["sample"]["figures"]["map score"] *= 2
    changed = tmp_path / "made" / "made.json"
    changed.write_text(stored.to_json(), encoding="utf-8")
    assert cli.main(["models", "install", str(changed), "--overwrite"]) == cli.BAD_INPUT
    assert "and the card states" in capsys.readouterr().err
