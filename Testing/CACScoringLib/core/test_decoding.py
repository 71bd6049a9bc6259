"""Decoding of stored values."""

import pytest

from CACScoringLib.core.decoding import restore
from CACScoringLib.core.errors import WrongValueError
from CACScoringLib.scoring.uncertainty import Uncertainty


@pytest.mark.parametrize("value", [[], None])
def test_only_objects_are_decoded_as_objects(value):
    with pytest.raises(WrongValueError):
        restore(value, Uncertainty)


def test_a_wrong_value_is_named_by_its_place():
    with pytest.raises(WrongValueError, match="artery"):
        restore({"total": {"spread": 0.1, "level": 0.9}, "artery": [0.1, 0.9]}, Uncertainty)
