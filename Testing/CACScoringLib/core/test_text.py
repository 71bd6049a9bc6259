"""Texts for readers and terminals."""

import pytest

from CACScoringLib.core.text import percent, printable


@pytest.mark.parametrize(
    ("probability", "text"),
    [
        (0.0099, "below 1%"),
        (0.01, "1%"),
        (0.99, "99%"),
        (0.9901, "above 99%"),
    ],
)
def test_no_probability_is_certain(probability, text):
    assert percent(probability) == text


@pytest.mark.parametrize(
    ("text", "label", "message"),
    [
        (" ä\tb\n", "ä b", " ä b\n"),
        ("a\x1b[2J\udcff", "a [2J", "a [2J\udcff"),
        ("x" * 201, "x" * 200, "x" * 201),
        ("\ud7ffb\ue000", "b", " b "),  # beside the surrogates
    ],
)
def test_text_without_control_characters(text, label, message):
    assert printable(text) == label
    assert printable(text, message=True) == message
