"""Errors of the library with Python arguments in place of options."""

import re

import pytest

from CACScoringLib.core.ct import MaskError
from CACScoringLib.core.files import OutputError
from CACScoringLib.core.python_words import in_python, python_words
from CACScoringLib.core.warning_codes import ADVICE


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("Check the heart; give --heart MASK if it is wrong.", "Check the heart; give heart=MASK if it is wrong."),
        ("It is no folder. Choose another --output.", "It is no folder. Choose another folder."),
        ("No GPU. Choose --device cpu or auto.", 'No GPU. Choose device="cpu".'),
        ("There is no model. Name one with --model.", "There is no model."),
        ("-- 130 HU -- is the limit.", "-- 130 HU -- is the limit."),
    ],
)
def test_options_become_arguments(message, expected):
    assert in_python(message) == expected


def test_advice_names_no_option_beside_other_sentences():
    for code, advice in ADVICE.items():
        assert not re.search(r"--[a-z]", in_python(f"This is so. {advice}")), code


@pytest.mark.parametrize("kind", [MaskError, OutputError])
def test_errors_keep_their_type(kind):
    with pytest.raises(kind, match=r"^Give lesions=LABELS\.$"), python_words():
        raise kind("Give --lesions.")
