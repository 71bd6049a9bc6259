"""Decoding of stored values."""

import pytest

from CACScoringLib.core.decoding import restore
from CACScoringLib.core.errors import WrongValueError
from CACScoringLib.record.score_record import ScoreRecord
from CACScoringLib.scoring.uncertainty import ScoreErrors, Uncertainty


@pytest.mark.parametrize("value", [[], "spread", 3, None])
@pytest.mark.parametrize("kind", [ScoreErrors, ScoreRecord])
def test_only_objects_are_decoded_as_objects(kind, value):
    with pytest.raises(WrongValueError):
        restore(value, kind)


def test_a_wrong_value_is_named_by_its_place():
    with pytest.raises(WrongValueError, match="artery"):
        restore({"total": {"spread": 0.1, "level": 0.9}, "artery": [0.1, 0.9]}, Uncertainty)
