"""The models that lie in a folder, as the pages offer them."""

# Slicer's naming.
# ruff: noqa: N802

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from CACScoringLib.core.ct import CTError

if TYPE_CHECKING:
    from CACScoringLib.models.cards import ModelCard


def cardsIn(folder: Path) -> dict[str, ModelCard]:
    """The cards in a folder of models, by path; those that cannot be read are passed over, for nothing can use them."""
    from CACScoringLib.models.cards import read_card

    cards = {}
    for path in sorted(folder.glob("*.json")):
        try:
            cards[str(path)] = read_card(path)
        except CTError:
            continue
    return cards
