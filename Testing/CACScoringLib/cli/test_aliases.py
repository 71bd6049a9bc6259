"""Command lines of earlier versions, read as those of today."""

import pytest

from CACScoringLib.cli.aliases import current_names


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("score CT --second-opinion all", "score CT --whole-scan all"),
        ("cohort T --second-opinion=vessels", "cohort T --whole-scan=vessels"),
        ("radiographs sharpen D --model m", "radiographs super-resolution D --model m"),
        ("train vessels --kind summed-shown", "train vessels --kind voxel-sum-supervised"),
        ("train vessels --kind=summed", "train vessels --kind=voxel-sum"),
        ("train radiograph --sharpening learned", "train radiograph --super-resolution learned"),
        ("evaluate vessels --others T", "evaluate vessels --noncoronary-controls T"),
        ("evaluate vessels --kinds cnn,summed", "evaluate vessels --kinds cnn,voxel-sum"),
        ("evaluate radiograph --tables twins,fusion", "evaluate radiograph --tables counterfactual_pairs,fusion"),
        ("evaluate radiograph --only-folds sharpening=2", "evaluate radiograph --only-folds super_resolution=2"),
        ("evaluate vessels --only-folds grid=2", "evaluate vessels --only-folds grid=2"),
        ("score pseudo-hearts --output summed", "score pseudo-hearts --output summed"),
        ("score --kind", "score --kind"),
    ],
)
def test_old_names(old, new):
    assert current_names(old.split()) == new.split()
