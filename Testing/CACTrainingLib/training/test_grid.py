"""Test the training of a network with every combination of settings."""

import pytest

from CACScoringLib.core.errors import OutputError
from CACScoringLib.core.progress import Progress
from CACScoringLib.core.tables import read_table
from CACScoringLib.models.cards import Training, describe, read_card
from CACScoringLib.models.store import save_model
from CACScoringLib.networks.configs import GeneratorConfig, build
from CACTrainingLib.training.grid import as_settings, combinations, train_grid
from CACTrainingLib.training.settings import RunOptions


def test_every_combination_of_nested_settings():
    values = combinations({"loop": {"seed": [0, 1]}, "sparsity_weight": [0.1, 0.2, 0.3]})
    assert len(values) == 6
    assert values[1] == {"loop.seed": 0, "sparsity_weight": 0.2}
    assert as_settings({"loop.seed": 0, "loop.steps": 5, "a": 1}) == {"loop": {"seed": 0, "steps": 5}, "a": 1}


@pytest.mark.parametrize("grid", [{}, {"seed": []}, {"loop": {}}, {"seed": 1}])
def test_grid_without_values_is_refused(grid):
    with pytest.raises(OutputError, match="needs a list of values"):
        combinations(grid)


def train(options, settings, progress):
    """Write an untrained model with these settings."""
    config, training = GeneratorConfig(width=4, residual_blocks=1), Training("none", 0, settings, "")
    validation = {"without_rule": {"mass_true": 2.5}, "data": "none"}
    card = describe(options.output.name, config, "custom", training, validation, {}, "Apache-2.0", "Tests only.")
    return save_model(build(config), card, options.output.parent)


def test_resumed_grid_trains_only_new_combinations(tmp_path):
    def rows(weights, resume=False):
        trials = [({"sparsity_weight": weight}, {"sparsity_weight": weight}) for weight in weights]
        return read_table(train_grid(train, RunOptions((), tmp_path / "map", resume=resume), trials, Progress())).lines

    (row,) = rows([0.25])
    assert (row.text("model"), row.text("sparsity_weight")) == ("map-1", "0.25")
    assert row.number_in("without_rule.mass_true") == 2.5
    time_written = (tmp_path / "map-1.json").stat().st_mtime_ns
    with pytest.raises(OutputError, match="exists already"):
        rows([0.25])
    assert [row.text("model") for row in rows([0.25, 0.5], resume=True)] == ["map-1", "map-2"]
    assert (tmp_path / "map-1.json").stat().st_mtime_ns == time_written
    assert read_card(tmp_path / "map-2.json").training.settings["sparsity_weight"] == 0.5
