"""A plaque's clinical score by its mass: in proportion where it is large, and less by partial volume where small."""

import numpy as np
import pytest

from CACScoringLib.scoring.equivalent import (
    AGATSTON_PER_MG,
    HALF_MG,
    calcium_hu_per_mg_cm3,
    equivalent_agatston,
    usual_calibration,
)


def test_curve():
    assert equivalent_agatston(0.0) == 0
    assert equivalent_agatston(-3.0) == 0
    assert equivalent_agatston(HALF_MG) == pytest.approx(AGATSTON_PER_MG * HALF_MG / 2)
    assert equivalent_agatston(200.0) == pytest.approx(AGATSTON_PER_MG * 200, rel=0.01)
    assert np.all(np.diff(equivalent_agatston(np.linspace(0, 50, 200))) > 0)
    assert equivalent_agatston(1.0) < 0.1, "what never reaches 130 HU scores next to nothing"


@pytest.mark.parametrize(("kvp", "hu"), [(120.0, 1.385), (80.0, 1.385 * 177 / 130), (None, 1.385), (60.0, 1.385)])
def test_usual_calibration(kvp, hu):
    assert usual_calibration(kvp) == pytest.approx(1 / (1000 * hu))


def test_tube_voltage_beyond_what_is_known():
    with pytest.raises(ValueError, match="70 to 140"):
        calcium_hu_per_mg_cm3(60.0)
