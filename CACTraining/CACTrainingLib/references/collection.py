"""Public collections of scans, a file each in Resources/Collections: contents, terms, traps, and where all is."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from CACScoringLib.core.decoding import restore
from CACScoringLib.core.files import read_json, write_text_atomically
from CACScoringLib.core.tables import Line

_FOLDER = Path(__file__).parents[1] / "Resources" / "Collections"


@dataclass(frozen=True)
class Layout:
    """Columns of a table of scores, and what its scores mean.

    Attributes:
        title: Title on pages.
        id: Column of patients or series, which are looked up in the folder of the scans.
        totals: Columns of the reference's total, of which one or all may exist.
        comparator: Column of another program's score of the same scan, if any.
        other_title: Name of that program.
        name: Columns that together name a scan; empty for the usual ones.
        patient: Column of the patient.
        about: Paragraph about the meaning of the scores.
        sha256: SHA-256 of the published file; empty if any file has the layout.
        classes: Lowest scores of the classes above the first by which its authors compared; an end belongs to the class
            below it.
    """

    title: str
    id: str = "id"
    totals: tuple[str, ...] = ("total", "agatston")
    comparator: str = "comparator"
    other_title: str = "Other program"
    name: tuple[str, ...] = ()
    patient: str = "patient"
    about: str = ""
    sha256: str = ""
    classes: tuple[float, ...] = ()

    def name_of(self, line: Line) -> str:
        """Return the name of a line's scan; empty if its cells are."""
        texts = [text for column in self.name or ("name", self.id, "ct") if (text := line.text(column))]
        return " ".join(texts) if self.name else next(iter(texts), "")


OWN_TABLE = Layout("a table of scores")


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
        reader: Reader of its folder, a key of `registry.READERS`.
        patient: Regular expression of a patient's ID in file and folder names; None if names hold none.
        places: File names or columns by which the reader finds scans and labels.
        vessels: Keys of arteries by the vessel that its labels distinguish.
        gated: True if all its scans are gated, False if none is, None if unknown.
        about: Sentence about its labels for a page of validation.
        tables: Tables of scores of its scans that others published.
    """

    name: str
    title: str
    content: str
    licence: str
    terms: str
    citation: str
    layout: str
    labels: dict[str, str]
    traps: tuple[str, ...]
    source: str
    reader: str
    patient: str | None = None
    places: dict[str, str] = field(default_factory=dict)
    vessels: dict[str, tuple[str, ...]] = field(default_factory=dict)
    gated: bool | None = None
    about: str = ""
    tables: tuple[Layout, ...] = ()

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


@cache
def collections() -> dict[str, Collection]:
    """Return all collections by name."""
    entries = [restore(read_json(path), Collection) for path in sorted(_FOLDER.glob("*.json"))]
    return {entry.name: entry for entry in entries}
