"""Studies whose intervals rest on few resamples."""

import pytest


@pytest.fixture(autouse=True, scope="module")
def few_resamples():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("CACScoringLib.statistics.bootstrap.RESAMPLES", 100)
        yield
