"""Test the training of a network with every combination of settings."""

from dataclasses import replace

import pytest

from CACScoringLib.core.errors import OutputError
from CACScoringLib.core.progress import Progress
from CACScoringLib.core.tables import read_table
from CACScoringLib.models.cards import read_card
from CACScoringLib.networks.configs import GeneratorConfig
from CACTrainingLib.data.augmentation import SliceAugmentation
from CACTrainingLib.training import decomposition
from CACTrainingLib.training.cyclegan import CycleTraining
from CACTrainingLib.training.grid import as_settings, combinations, train_grid
from CACTrainingLib.training.settings import LoopSettings, RunOptions

CYCLE = CycleTraining(
    LoopSettings(steps=2, validate_every=2, half_precision=False, validation_share=0.5, seed=2),
    GeneratorConfig(width=4, residual_blocks=1, upsampling="resize", skips=True),
    batch_size=2,
    augmentation=SliceAugmentation(crop=64, shift_pixels=20),
    validation_slices=4,
)


def test_every_combination_of_nested_settings():
    values = combinations({"loop": {"seed": [0, 1]}, "sparsity_weight": [0.1, 0.2, 0.3]})
    assert len(values) == 6
    assert values[1] == {"loop.seed": 0, "sparsity_weight": 0.2}
    assert as_settings({"loop.seed": 0, "loop.steps": 5, "a": 1}) == {"loop": {"seed": 0, "steps": 5}, "a": 1}


@pytest.mark.parametrize("grid", [{}, [], {"seed": []}, {"loop": {}}, {"seed": 1}])
def test_grid_without_values_is_refused(grid):
    with pytest.raises(OutputError, match="needs a list of values"):
        combinations(grid)


def test_resumed_grid_trains_only_new_combinations(cohort, cache, tmp_path):
    output = tmp_path / "map"

    def rows(weights, resume=False):
        options = RunOptions((cohort,), output, device="cpu", resume=resume)
        trials = [({"sparsity_weight": w}, replace(CYCLE, sparsity_weight=w)) for w in weights]
        return read_table(train_grid(decomposition.train, options, trials, Progress())).lines

    (row,) = rows([0.25])
    validation = read_card(tmp_path / "map-1.json").validation
    assert (row.text("model"), row.text("sparsity_weight")) == ("map-1", "0.25")
    assert row.number_in("without_rule.mass_true") == pytest.approx(validation["without_rule"]["mass_true"])
    time_written = (tmp_path / "map-1.json").stat().st_mtime_ns
    with pytest.raises(OutputError, match="exists already"):
        rows([0.25])
    assert [row.text("model") for row in rows([0.25, 0.5], resume=True)] == ["map-1", "map-2"]
    assert (tmp_path / "map-1.json").stat().st_mtime_ns == time_written
    assert read_card(tmp_path / "map-2.json").training.settings["sparsity_weight"] == 0.5
    with pytest.raises(OutputError, match=r"map-1.json exists already"):
        rows([0.75, 0.5], resume=True)
