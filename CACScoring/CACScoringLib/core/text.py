"""Text for readers and terminals."""

from __future__ import annotations

from collections.abc import Iterable

RESEARCH_ONLY = "For research only. Not a medical device; not for diagnosis or treatment."


def percent(probability: float) -> str:
    """A model's probability for readers; never 0 or 100%, for no model is certain."""
    if probability < 0.01:
        return "below 1%"
    return "above 99%" if probability > 0.99 else f"{probability:.0%}"


def shown(text: str) -> str:
    """Text for a terminal, without control characters but the end of a line: a message may quote a file.

    Bytes of names that are no UTF-8 stay, for the stream to escape them.
    """
    return "".join(c if c.isprintable() or c == "\n" or "\ud800" <= c <= "\udfff" else " " for c in text)


def some(items: Iterable[str]) -> str:
    """The first five items, and how many more there are."""
    items = list(items)
    return ", ".join(items[:5]) + (f" and {len(items) - 5} more" if len(items) > 5 else "")
