"""Cards of the models in a folder, for the pages' lists."""

# Slicer's naming.
# ruff: noqa: N802

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from CACScoringLib.core.errors import CTError

if TYPE_CHECKING:
    from CACScoringLib.models.cards import ModelCard


def cardsIn(folder: Path) -> dict[str, ModelCard]:
    """Read the cards in a folder, by path; unreadable ones are skipped."""
    from CACScoringLib.models.cards import read_card

    cards = {}
    for path in sorted(folder.glob("*.json")):
        try:
            cards[str(path)] = read_card(path)
        except CTError:
            continue
    return cards
