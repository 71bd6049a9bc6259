"""Studies whose intervals rest on few resamples."""

import pytest


@pytest.fixture(autouse=True, scope="module")
def few_resamples():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("CACTrainingLib.statistics.bootstrap.RESAMPLES", 100)
        yield
