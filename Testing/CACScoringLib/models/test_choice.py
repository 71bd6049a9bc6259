"""Models that a thread loads: the same networks, waited for; what is wrong with one is raised where it is used."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Event

import numpy as np
import pytest
from handmade_networks import labelled_model, untrained

from CACScoringLib.core.errors import ModelError
from CACScoringLib.models.cards import VERDICT, ModelAhead, StoredModel, load_model, read_card
from CACScoringLib.models.choice import ChosenModels, ModelChoice, chosen_models, load_models


def test_cards_are_there_before_the_networks_are(tmp_path):
    paths = {name: untrained(name, name, tmp_path) for name in ("slices", "decomposition")}
    stored = {name: StoredModel(read_card(path), path, "user") for name, path in paths.items()}
    free = Event()
    with ThreadPoolExecutor(1) as thread:
        thread.submit(free.wait)
        networks = load_models(ChosenModels(stored), thread=thread).networks
        assert networks.slices.card == stored["slices"].card
        free.set()
        x = np.ones((1, 6, 64, 64), np.float32)
        output, expected = (model.network.run(x) for model in (networks.slices, load_model(paths["slices"])))
    np.testing.assert_array_equal(output, expected)
    assert networks.territories is None


def test_a_model_that_scores_no_ct_is_refused():
    with pytest.raises(ModelError, match=r"scores no CT\. Leave it out, or name a model for territories"):
        chosen_models(ModelChoice(("sharpener-compact",)))


def test_a_card_is_named_by_its_path_and_warned_of_without_a_verdict(tmp_path):
    path = labelled_model(tmp_path)
    models = chosen_models(ModelChoice((str(path),)))
    assert models.networks["slices"].path == path
    assert [warning.code for warning in models.warnings] == ["model-without-verdict"]
    card = replace(read_card(path), validation={VERDICT: {"sentences": []}})
    path.write_text(card.to_json(), encoding="utf-8")
    assert not chosen_models(ModelChoice((str(path),))).warnings
    assert not chosen_models(ModelChoice()).warnings, "models that come with CAC saw no patient"
    with pytest.raises(ModelError, match="cannot be read"):
        chosen_models(ModelChoice((str(tmp_path / "none.json"),)))


def test_damaged_weights_are_an_error_at_the_first_use_of_the_network(tmp_path):
    path = untrained("slices", "tiny", tmp_path)
    weights = path.with_suffix(".safetensors")
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    with ThreadPoolExecutor(1) as thread:
        model = ModelAhead(path, "cpu", thread)
        with pytest.raises(ModelError, match="damaged"):
            _ = model.network
