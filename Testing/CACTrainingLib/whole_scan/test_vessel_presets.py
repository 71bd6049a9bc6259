"""Trainings of the paper's vessel networks are the paper's: nothing is changed, averaged or stopped early."""

import numpy as np
import pytest

from CACTrainingLib.whole_scan.vessels.fitting import vessel_settings
from CACTrainingLib.whole_scan.vessels.task import augment


@pytest.mark.parametrize("kind", ["cnn", "se-cnn", "vit"])
def test_the_papers_networks_learn_as_published(kind):
    paper, compact = (vessel_settings(name, kind).training for name in ("paper", "compact"))
    assert (paper.batch_size, paper.loop.average, paper.loop.patience) == (32, 0, None)
    assert compact.loop.average > 0
    assert compact.loop.patience is not None
    volume = np.random.default_rng(0).random((4, 8, 8), np.float32)
    generator = np.random.default_rng(1)
    assert np.array_equal(augment(volume, 4, paper.augmentation, (0, 0, 0), generator), volume)
    assert (paper.augmentation.shift, paper.augmentation.shift_slices) == (0, 0)
    changed = augment(volume, 4, compact.augmentation, (0, 0, 0), generator)
    assert not np.array_equal(changed, volume)
