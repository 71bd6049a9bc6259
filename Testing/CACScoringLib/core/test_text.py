"""Texts for readers and terminals."""

import pytest

from CACScoringLib.core.text import abbreviated_list, percent, printable


@pytest.mark.parametrize(
    ("probability", "text"),
    [
        (0.0, "below 1%"),
        (0.0099, "below 1%"),
        (0.01, "1%"),
        (0.104, "10%"),
        (0.99, "99%"),
        (0.9901, "above 99%"),
        (1.0, "above 99%"),
    ],
)
def test_no_probability_is_certain(probability, text):
    assert percent(probability) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, ""), (1, "a"), (5, "a, b, c, d, e"), (6, "a, b, c, d, e and 1 more"), (8, "a, b, c, d, e and 3 more")],
)
def test_a_list_of_at_most_five(count, text):
    assert abbreviated_list("abcdefgh"[:count]) == text


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
