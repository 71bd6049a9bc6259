"""A model loaded by a thread: the same network, waited for; what is wrong with it is told where it is used."""

from concurrent.futures import ThreadPoolExecutor
from threading import Event

import pytest
import torch
from handmade_networks import untrained

from CACScoringLib.models.cards import LoadedModel, ModelAhead, ModelError, StoredModel, load_model
from CACScoringLib.models.choice import ChosenModels, load_models


def test_card_is_there_before_the_network_is(tmp_path):
    path = untrained("slices", "tiny", tmp_path)
    free = Event()
    with ThreadPoolExecutor(1) as thread:
        thread.submit(free.wait)
        model = ModelAhead(path, "cpu", thread)
        assert isinstance(model, LoadedModel)
        assert model.card == load_model(path, "cpu").card
        free.set()
        own, other = model.network.state_dict(), load_model(path, "cpu").network.state_dict()
    assert own.keys() == other.keys()
    assert all(torch.equal(own[key], other[key]) for key in own)
    assert model.network is model.network


def test_damaged_weights_are_told_when_the_network_is_asked_for(tmp_path):
    path = untrained("slices", "tiny", tmp_path)
    weights = path.with_suffix(".safetensors")
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    with ThreadPoolExecutor(1) as thread:
        model = ModelAhead(path, "cpu", thread)
        with pytest.raises(ModelError, match="damaged"):
            _ = model.network


def test_scoring_takes_models_that_are_being_loaded(tmp_path):
    paths = {name: untrained(name, name, tmp_path) for name in ("slices", "decomposition")}
    stored = {name: StoredModel(load_model(path).card, path, "user") for name, path in paths.items()}
    with ThreadPoolExecutor(1) as thread:
        networks = load_models(ChosenModels(stored), thread=thread).networks
        assert networks.slices.card.name == "slices"
        assert networks.decomposition.network is not None
    assert networks.territories is None
