"""A simulated patient with calcium."""

import pytest

from CACTrainingLib.phantom.anatomy.patient import draw_patient


@pytest.fixture(scope="session")
def patient():
    return draw_patient(8, prevalence=1.0)
