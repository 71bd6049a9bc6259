"""Text for readers and terminals."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

RESEARCH_ONLY = "For research only. Not a medical device; not for diagnosis or treatment."

_COMMANDS = "calibrate|cohort|compare|data|drr|evaluate|insert|models|phantom|project|pull|review|score|train|validate"
_OF_THE_COMMAND_LINE = re.compile(rf"(?<![\w-])--[a-z]|(?<![\w./-])cac (?:{_COMMANDS})\b")
_SENTENCES = re.compile(r"[^.!?]*(?:[.!?](?!\s|$)[^.!?]*)*[.!?]*\s*")


def percent(probability: float) -> str:
    """A model's probability for readers; never 0 or 100%, for no model is certain."""
    if probability < 0.01:
        return "below 1%"
    return "above 99%" if probability > 0.99 else f"{probability:.0%}"


def printable(text: str, message: bool = False) -> str:
    """Text from a file, fit for terminals and pages: no control characters, at most 200 characters.

    message: of any length, whose lines stay, and bytes of names that are no UTF-8, for the stream to escape them.
    """
    cleaned = "".join(
        c if c.isprintable() or (message and (c == "\n" or "\ud800" <= c <= "\udfff")) else " " for c in text
    )
    return cleaned if message else cleaned.strip()[:200]


def abbreviated_list(items: Iterable[str]) -> str:
    """The first five items, and how many more there are."""
    items = list(items)
    return ", ".join(items[:5]) + (f" and {len(items) - 5} more" if len(items) > 5 else "")


def without_options(message: str, words: Mapping[str, str]) -> str:
    """Return a message without options and commands: in other words, or without the sentence that names one.

    A line all of whose sentences do stays as it is.

    Args:
        message: Text for the command line.
        words: What stands for a part of it, by its pattern.
    """
    return "\n".join(_line(line, words) for line in message.split("\n"))


def _line(text: str, words: Mapping[str, str]) -> str:
    if not _OF_THE_COMMAND_LINE.search(text):
        return text
    for pattern, replacement in words.items():
        text = re.sub(pattern, replacement, text)
    sentences = [sentence for sentence in _SENTENCES.findall(text) if not _OF_THE_COMMAND_LINE.search(sentence)]
    return "".join(sentences).rstrip() or text
