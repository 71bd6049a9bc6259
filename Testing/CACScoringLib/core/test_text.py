"""Texts for readers and terminals."""

import pytest

from CACScoringLib.core.text import counted, percent, printable, signed


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


def test_numbers_of_things_and_signed_numbers():
    assert [counted(count, "scan") for count in (0, 1, 2, 1200)] == ["0 scans", "1 scan", "2 scans", "1,200 scans"]
    assert [signed(value, 2) for value in (0.5, -3.53, -0.0)] == ["+0.50", "−3.53", "+0.00"]
