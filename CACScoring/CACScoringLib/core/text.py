"""Text for readers and terminals."""

from __future__ import annotations

from collections.abc import Iterable

RESEARCH_ONLY = "For research only. Not a medical device; not for diagnosis or treatment."


def percent(probability: float) -> str:
    """Return a model's probability for readers; never 0 or 100%, because no model is certain."""
    if probability < 0.01:
        return "below 1%"
    return "above 99%" if probability > 0.99 else f"{probability:.0%}"


def printable(text: str, message: bool = False) -> str:
    """Return text from a file fit for terminals and pages: no control characters, at most 200 characters.

    Args:
        text: Text from outside.
        message: Keep the length, the line breaks, and surrogates of names that are not UTF-8, which streams escape.
    """
    cleaned = "".join(
        c if c.isprintable() or (message and (c == "\n" or "\ud800" <= c <= "\udfff")) else " " for c in text
    )
    return cleaned if message else cleaned.strip()[:200]


def abbreviated_list(items: Iterable[str]) -> str:
    """Return the first five items and the number of the others."""
    items = list(items)
    return ", ".join(items[:5]) + (f" and {len(items) - 5} more" if len(items) > 5 else "")
