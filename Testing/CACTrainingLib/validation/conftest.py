"""Few resamples of patients, as no test here is of intervals to the digit."""

import pytest


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch):
    monkeypatch.setattr("CACScoringLib.statistics.bootstrap.RESAMPLES", 200)
