"""Models on disk: saved and loaded unchanged; damaged ones and those that do not fit are refused."""

import dataclasses
import hashlib
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from handmade_networks import untrained
from safetensors.numpy import load, save

from CACScoringLib.calcium_map.decomposition import CALIBRATED, DecompositionSettings
from CACScoringLib.cli.model_trial import TRIALS, identity
from CACScoringLib.core.decoding import content_of
from CACScoringLib.core.errors import ModelError
from CACScoringLib.models import cards as models
from CACScoringLib.models import preprocessing
from CACScoringLib.models.cards import (
    SAMPLE,
    Training,
    bundled_folder,
    describe,
    find_model,
    list_models,
    load_model,
    read_card,
    read_network,
    verify_model,
)
from CACScoringLib.models.graph import write_graph
from CACScoringLib.models.store import install_model, save_model
from CACScoringLib.networks.configs import JUDGES, SCORING, GeneratorConfig, build
from CACScoringLib.quality.calibration import FACTS, Repeatability
from CACScoringLib.scoring.judge import candidate_evidence
from CACScoringLib.scoring.uncertainty import COUNTS_FROM, ScoreCalibration

BUNDLED = Path(__file__).parents[3] / "CACScoring" / "CACScoringLib" / "Resources" / "Models"

CONFIG = GeneratorConfig(width=4, residual_blocks=1, upsampling="resize", skips=True, neighbours=1)
DEEP = dataclasses.asdict(CONFIG) | {"residual_blocks": 40}


def card_for():
    return describe(
        "tiny",
        CONFIG,
        preset="custom",
        training=Training(data="none: random weights", seed=3, settings={"steps": 0, "rates": [0.1]}, commit="0" * 40),
        validation={"n": 0},
        calibration={"floor_hu": 10.0},
        licence="Apache-2.0",
        intended_use="Tests only.",
    )


def network_for():
    torch.manual_seed(3)
    network = build(CONFIG)
    network(torch.rand(2, 3, 16, 16) * 5)  # running statistics
    return network


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    return save_model(network_for(), card_for(), tmp_path_factory.mktemp("models") / "made")


@pytest.fixture
def saved(made, tmp_path) -> Path:
    """Copy of a model, to be changed."""
    return shutil.copytree(made.parent, tmp_path / "made") / made.name


def change(path: Path, **fields) -> None:
    content = json.loads(path.read_text(encoding="utf-8"))
    content.update(fields)
    path.write_text(json.dumps(content), encoding="utf-8")


def test_card_comes_back(saved):
    card = read_card(saved)
    weights = saved.with_suffix(".safetensors").read_bytes()
    graph = write_graph(build(CONFIG))
    assert card == dataclasses.replace(card_for(), sha256=hashlib.sha256(weights).hexdigest(), graph=graph)
    assert sorted(f.name for f in saved.parent.iterdir()) == ["tiny.json", "tiny.safetensors"]


def test_network_comes_back_in_half_precision(saved):
    card, network = read_network(saved)
    assert card.config == dataclasses.asdict(CONFIG)
    original = network_for().state_dict()
    for key, tensor in network.state_dict().items():
        expected = original[key].half().to(tensor.dtype) if tensor.ndim > 1 else original[key]
        torch.testing.assert_close(tensor, expected, rtol=0, atol=0, msg=key)
    size = saved.with_suffix(".safetensors").stat().st_size
    assert size < 2.5 * sum(p.numel() for p in network.parameters()) + 8000


class TestRefused:
    def test_exchanged_weights(self, saved):
        weights = saved.with_suffix(".safetensors")
        data = bytearray(weights.read_bytes())
        data[-1] ^= 1
        weights.write_bytes(data)
        for use in (verify_model, load_model):
            with pytest.raises(ModelError, match="SHA-256"):
                use(saved)

    @pytest.mark.parametrize(
        ("fields", "message"),
        [
            ({"preprocessing_version": preprocessing.VERSION + 1}, r"version 2 of the preprocessing.*version 1"),
            ({"config": dataclasses.asdict(CONFIG) | {"neighbours": 0}}, "the input has 3 channels instead of 1"),
            ({"graph": ""}, "earlier version"),
            ({"graph": "x"}, "graph cannot be read"),
        ],
    )
    def test_cards_of_networks_that_cannot_run(self, saved, fields, message):
        change(saved, **fields)
        with pytest.raises(ModelError, match=message):
            load_model(saved, "cpu")

    def test_other_weights_under_a_right_hash(self, saved):
        """A pickle is never opened."""
        weights = saved.with_suffix(".safetensors")
        torch.save(network_for().state_dict(), weights)
        change(saved, sha256=hashlib.sha256(weights.read_bytes()).hexdigest())
        with pytest.raises(ModelError, match="safetensors"):
            load_model(saved)

    @pytest.mark.parametrize(
        ("fields", "message"),
        [
            ({"schema": "cac-model/9"}, "schema cac-model/1"),
            ({"network": "kidney"}, "'kidney'"),
            ({"colour": "red"}, "no valid colour"),
            ({"training": {"data": "x"}}, "no valid training.seed"),
            ({"config": {"width": 4}}, "residual_blocks"),
            ({"config": dataclasses.asdict(CONFIG) | {"dropout": 0.5}}, "dropout"),
            ({"config": dataclasses.asdict(CONFIG) | {"upsampling": "bicubic"}}, "bicubic"),
            ({"config": dataclasses.asdict(CONFIG) | {"width": "four"}}, "No network can be built"),
            ({"config": dataclasses.asdict(CONFIG) | {"width": 8}}, "do not fit"),
            ({"config": dataclasses.asdict(CONFIG) | {"residual_blocks": 2}}, "do not fit"),
            ({"name": "other"}, "'other'"),
            ({"repeatability": 1}, "no valid repeatability"),
            # A network larger than memory is not made.
            ({"config": DEEP | {"width": 5000}}, "values above 4096: width"),
            ({"config": DEEP | {"width": 4096}}, "do not fit"),
        ],
    )
    def test_card_that_does_not_fit(self, saved, fields, message):
        change(saved, **fields)
        with pytest.raises(ModelError, match=message):
            verify_model(saved)

    @pytest.mark.parametrize(("value", "message"), [(np.nan, "not finite"), (0, "all zero")])
    def test_weights_that_cannot_work(self, saved, value, message):
        """A generator of zeros returns an empty map, and one of NaN a map without lesions."""
        weights = saved.with_suffix(".safetensors")
        tensors = load(weights.read_bytes())
        name = max(tensors, key=lambda name: tensors[name].size)
        tensors[name][...] = value
        if value:
            tensors[name][1:] = 1  # one number of many
        weights.write_bytes(save(tensors))
        change(saved, sha256=hashlib.sha256(weights.read_bytes()).hexdigest())
        for use in (verify_model, read_network, install_model, lambda path: load_model(path, "cpu")):
            with pytest.raises(ModelError, match=f"{re.escape(name)} of tiny .*{message}"):
                use(saved)

    def test_calibration_that_is_not_finite(self, saved):
        change(saved, calibration={"evidence_weights": {"intercept": np.nan}})
        with pytest.raises(ModelError, match="not finite"):
            read_card(saved)

    @pytest.mark.parametrize("value", [0, "1", True])
    def test_a_temperature_that_is_not_above_0(self, saved, value):
        change(saved, calibration={"temperature": value})
        with pytest.raises(ModelError, match=r"The temperature on the model card .*tiny\.json is .*, not above 0"):
            read_card(saved)

    def test_missing_files(self, saved):
        saved.with_suffix(".safetensors").unlink()
        with pytest.raises(ModelError, match="weights of tiny cannot be read"):
            verify_model(saved)
        with pytest.raises(ModelError, match=r"none\.json"):
            verify_model(saved.with_name("none.json"))
        saved.write_text("{", encoding="utf-8")
        with pytest.raises(ModelError, match="cannot be read"):
            verify_model(saved)


class TestInstalled:
    def test_installing_writes_the_graph_anew(self, saved, bundled):
        card = read_card(saved)
        change(saved, graph="of another program")
        assert install_model(saved).card == card

    def test_bundled_model_is_the_default_and_a_users_has_to_be_named(self, bundled, tmp_path):
        # Discriminators have no graph, which takes time to write.
        install_model(untrained("discriminator", "tiny", tmp_path / "made"))
        with pytest.raises(ModelError, match="0 models"):
            find_model("discriminator")
        untrained("discriminator", "shipped", bundled)
        assert find_model("discriminator").card.name == "shipped"
        assert [(m.card.name, m.origin) for m in list_models()] == [("shipped", "bundled"), ("tiny", "user")]
        untrained("discriminator", "second", bundled)
        with pytest.raises(ModelError, match=r"2 models.*second \(bundled\), shipped"):
            find_model("discriminator")

    def test_bundled_models_are_undamaged_and_small(self):
        """The models of the repository take 36 MB at most."""
        for path in sorted(bundled_folder().rglob("*.json")):
            verify_model(path)
        assert sum(f.stat().st_size for f in bundled_folder().rglob("*") if f.is_file()) < 36e6


@pytest.fixture(scope="module")
def shipped():
    """Bundled models that score a CT."""
    stored = [models.StoredModel(models.read_card(p), p, "bundled") for p in sorted(BUNDLED.glob("*.json"))]
    return [model for model in stored if model.card.network in SCORING]


class TestModelsThatComeWithCAC:
    def test_cards_state_intended_use_and_origin(self, shipped):
        for model in shipped:
            assert "For research; not a medical device." in model.card.intended_use
            assert model.card.licence == "Apache-2.0"
            data = model.card.training.data
            assert re.search(r"numbers \d+(-| to )\d+", data)
            # Real scans are named with their collections and licences.
            assert "no real scan" in data or re.search(r"TCIA .*, CC BY \d", data)
            assert model.card.validation
            assert not re.search(r"/(home|root|tmp|work)/", model.path.read_text(encoding="utf-8"))

    def test_the_whole_method_is_calibrated(self, shipped):
        card = next(model.card for model in shipped if model.card.network == "decomposition")
        classifier = next(model.card for model in shipped if model.card.network == "slices")
        stored_classes = {"candidates", "uncertainty", "known"}
        assert {*card.calibration, *classifier.calibration} == {*CALIBRATED, *stored_classes}
        stored = card.calibration_as(ScoreCalibration)
        assert stored.candidates is not None
        assert {"automatic", "decomposition"} <= set(stored.uncertainty)
        assert set(classifier.calibration) == {"slice_threshold"}
        used = {model.card.network: model.card.sha256 for model in shipped}
        judges = {network: used[network] for network in ("territories", "lesions")}
        assert card.validation["automatic_score"]["models"] == judges
        assert card.validation["whole_method"]["models"] | judges == used

    def test_shipped_cards_cite_shipped_models(self, shipped):
        """Networks, settings and calibrations that figures were measured with are those of today; else measure again.

        The commands are those of `docs/training/networks.md` and `docs/user/serial-comparison.md`.
        """
        current = {model.card.network: model.card for model in shipped}
        for path in sorted(BUNDLED.rglob("*.json")):
            if (card := models.read_card(path)).network == "decomposition":
                used = {name: of_network.sha256 for name, of_network in current.items()} | {card.network: card.sha256}
                for name, networks in (("whole_method", used), ("automatic_score", {n: used[n] for n in JUDGES})):
                    assert card.validation[name]["models"] == networks, f"{path} has stale {name}: run cac calibrate"
                assert card.validation["automatic_score"].get("counts_from", COUNTS_FROM) == COUNTS_FROM, (
                    f"{path} was calibrated with another limit of counting: run cac calibrate"
                )
                assert stale_limits(card, current["slices"], used) == [], (
                    f"{path} has limits of other models or settings: run cac evaluate reproducibility with store_limits"
                )
            if card.network in TRIALS and (card.network != "radiomics" or SAMPLE in card.validation):  # it needs mirp
                partners = {name: identity(partner) for name, partner in current.items() if name != card.network}
                assert card.validation.get(SAMPLE, {}).get("models") == partners, (
                    f"{path} lacks a trial beside today's models: run cac models install on it, and copy the card back"
                )
            assert set(card.calibration.get("known", {}).get("ranges", FACTS)) <= set(FACTS), f"{path}: cac calibrate"

    def test_scores_can_be_compared_with_those_of_earlier_scans(self, shipped):
        """Each score has the repeatability limits stated on the page of serial comparison."""
        card = next(model.card for model in shipped if model.card.network == "decomposition")
        study = card.repeatability_as(Repeatability)
        assert all(set(parts) == {"total", "artery"} for kinds in study.limits.values() for parts in kinds.values())
        page = (Path(__file__).parents[3] / "docs" / "user" / "serial-comparison.md").read_text(encoding="utf-8")
        titles = {"threshold": "reviewed", "automatic": "automatic", "decomposition": "calcium map"}
        stored = {titles[kind]: study.limits[kind]["agatston"]["total"] for kind in titles if kind in study.limits}
        assert f"| score | {' | '.join(stored)} |" in page
        for score in (100, 300):
            assert f"| {score} | {' | '.join(f'{limit.at(score):.0f}' for limit in stored.values())} |" in page


def stale_limits(card, slices, used):
    """Return the kinds of scores whose stored limits were measured with others than the shipped models and settings."""
    study = card.repeatability_as(Repeatability)
    kinds = {} if study is None else study.limits
    settings = content_of(DecompositionSettings.of(slices, card))
    is_stale = {
        "automatic": any(study.models[name] != used[name] for name in JUDGES)
        or study.candidate_evidence != candidate_evidence(card),
    }
    is_stale["decomposition"] = is_stale["automatic"] or study.models != used or study.settings != settings
    return [kind for kind in kinds if is_stale.get(kind, False)]
