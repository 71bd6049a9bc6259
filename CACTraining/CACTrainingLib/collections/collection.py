"""Facts of public collections, a file each in Resources/Collections: contents, terms, layout, labels and traps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from CACScoringLib.core.files import read_json, write_text_atomically

_FOLDER = Path(__file__).parents[1] / "Resources" / "Collections"


@dataclass(frozen=True)
class Collection:
    """A public collection of scans.

    Attributes:
        name: Name on the command line.
        title: Name in full.
        content: Paragraph on the scans and labels.
        licence: Licence of scans and labels.
        terms: Terms of use, in short.
        citation: Work to cite.
        layout: Files in a downloaded folder.
        labels: Meaning of its labels, by their names.
        traps: Known faults and pitfalls.
        source: Instructions for obtaining it.
        reader: Reader of its folder, a key of `scans.READERS`.
        idc: Name in the Imaging Data Commons, from which it can be fetched; None for others.
        patient: Regular expression of a patient's ID in file and folder names; None if names hold none.
    """

    name: str
    title: str
    content: str
    licence: str
    terms: str
    citation: str
    layout: str
    labels: Mapping[str, str]
    traps: tuple[str, ...]
    source: str
    reader: str
    idc: str | None
    patient: str | None = None

    def as_text(self) -> str:
        """Return all facts as text for a terminal or file."""
        labels = "; ".join(f"{name} = {meaning}" for name, meaning in self.labels.items())
        facts = {
            "Content": self.content,
            "Licence": self.licence,
            "Terms": self.terms,
            "Citation": self.citation,
            "Obtain": self.source,
            "Layout": self.layout,
            "Labels": labels or "none",
            "Traps": " ".join(self.traps),
        }
        return "\n".join([f"{self.name}: {self.title}", *(f"  {title}: {text}" for title, text in facts.items())])

    def write_terms(self, folder: Path) -> None:
        """Write the facts, terms among them, into a folder. Raises OSError."""
        folder.mkdir(parents=True, exist_ok=True)
        write_text_atomically(folder / f"TERMS-{self.name}.txt", self.as_text() + "\n")


def collections() -> dict[str, Collection]:
    """Return all collections by name."""
    entries = (read_json(path) for path in sorted(_FOLDER.glob("*.json")))
    return {entry["name"]: Collection(**entry | {"traps": tuple(entry["traps"])}) for entry in entries}
