"""Patients, and resamples of them drawn by hand."""

import numpy as np
import pytest


@pytest.fixture
def resamples():
    """Weights of 40 patients, and the same draws as lists of patients."""
    weights = np.random.default_rng(1).multinomial(40, np.full(40, 1 / 40), size=5).astype(float)
    return weights, [np.repeat(np.arange(40), row.astype(int)) for row in weights]


@pytest.fixture
def sample():
    """Two columns of skewed scores with ties and zeros, 40 patients."""
    g = np.random.default_rng(2)
    first = np.round(g.lognormal(1, 1.2, 40)) * (g.random(40) < 0.7)
    return np.stack([first, np.round(first * g.lognormal(0, 0.4, 40) + (g.random(40) < 0.2))], axis=1)
