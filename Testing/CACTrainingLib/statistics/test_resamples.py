"""Resamples of patients that several models share, against the bootstrap of their items."""

from types import SimpleNamespace

import numpy as np
import pytest

from CACTrainingLib.statistics.bootstrap import Bootstrap, estimate
from CACTrainingLib.statistics.resamples import Resamples


@pytest.fixture
def sample():
    """30 patients with 1 to 3 scans of 5 to 20 slices, scores with ties."""
    generator = np.random.default_rng(5)
    patients = [p for p in range(30) for _ in range(generator.integers(1, 4))]
    scans = np.repeat(np.arange(len(patients)), generator.integers(5, 21, len(patients)))
    truth = generator.random(len(scans)) < 0.3
    scores = np.round(generator.normal(truth * 1.0), 1)
    bootstrap = Bootstrap(patients, np.random.default_rng(8))
    weights = bootstrap.weights([patients[scan] for scan in scans])
    return SimpleNamespace(
        resamples=Resamples(patients, np.random.default_rng(8)),
        owners=[patients[scan] for scan in scans],
        **{"bootstrap": bootstrap, "weights": weights, "scans": scans, "truth": truth, "scores": scores},
    )


def test_shares_are_those_of_the_bootstrap(sample):
    hits = sample.scores > 0.5
    for of in (sample.truth, ~sample.truth):
        found = sample.resamples.proportion(sample.scans, hits, of).estimate
        assert found == pytest.approx(sample.bootstrap.proportion(sample.owners, hits, of), abs=1e-12)
    always = np.ones(len(hits), bool)
    for hit in (always, ~always):
        found = sample.resamples.proportion(sample.scans, hit, sample.truth).estimate
        assert found == sample.bootstrap.proportion(sample.owners, hit, sample.truth)


def test_statistics_of_items_come_in_parts(sample, monkeypatch):
    monkeypatch.setattr("CACTrainingLib.statistics.resamples._CHUNK", 5000)
    found = sample.resamples.over_items(sample.scans, lambda w: w @ sample.scores)
    assert found.values == pytest.approx(sample.weights @ sample.scores)


def test_means_leave_out_what_is_not_known(sample):
    values = np.where(sample.truth, sample.scores, np.nan)
    found = sample.resamples.mean(sample.scans, values)
    assert found.estimate.value == pytest.approx(sample.scores[sample.truth].mean())
    assert found.n == sample.truth.sum()
    assert found.estimate == estimate(found.values, found.n, found.patients)
