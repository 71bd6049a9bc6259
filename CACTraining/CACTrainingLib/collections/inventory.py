"""Inventory of an imported collection: a page with a picture of each scan, and the same facts as a table."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from CACScoringLib.core.errors import OutputError
from CACScoringLib.core.files import write_text_atomically
from CACScoringLib.core.tables import write_table
from CACScoringLib.core.warning_codes import ADVICE
from CACScoringLib.report.page import rendered

from ..project.project import NewScan
from ..project.split import USES
from ..references.collection import Collection
from .checks import ScanCheck

COLUMNS = (
    *("id", "name", "patient", "use", "slices", "spacing_mm", "thickness_mm", "kernel", "noise_hu", "labelled_slices"),
    *("note", "doubts", "left_out"),
)
"""Columns of the table."""


@dataclass(frozen=True)
class Entry:
    """Scan of a collection in the inventory.

    Attributes:
        scan: The scan.
        id: Id in the project; empty if it was left out.
        use: Use in the project.
        reason: Reason why it was left out; empty if it was not.
        check: Its facts; None if it could not be checked.
    """

    scan: NewScan
    id: str
    use: str
    reason: str
    check: ScanCheck | None

    def row(self) -> dict[str, object]:
        """Return the cells of the table by column."""
        facts = {} if self.check is None else vars(self.check) | {"doubts": " ".join(self.check.doubts)}
        return facts | vars(self.scan) | vars(self) | {"left_out": self.reason}

    def caption(self) -> str:
        """Return the facts below the picture."""
        check = self.check
        assert check is not None
        labels = "no labels" if check.labelled_slices is None else f"{check.labelled_slices} slices with labels"
        facts = (
            f"{check.slices} slices of {check.thickness_mm or check.spacing_mm:g} mm",
            check.kernel or "kernel unknown",
            "" if check.noise_hu is None else f"noise {check.noise_hu:.0f} HU",
            labels,
            self.scan.note,
            self.use,
        )
        return ", ".join(filter(None, facts))

    def jpeg(self) -> bytes:
        """Return the picture."""
        return b"" if self.check is None else base64.b64decode(self.check.picture)


def write_inventory(folder: Path, collection: Collection, entries: Sequence[Entry]) -> Path:
    """Write NAME.html and NAME.csv of a collection, and return the page. Raises OutputError."""
    added = [entry for entry in entries if entry.id]
    doubts = Counter(code for entry in added if entry.check for code in entry.check.doubts)
    uses = Counter(entry.use for entry in {entry.scan.patient: entry for entry in added}.values())
    page = folder / f"{collection.name}.html"
    html = rendered(
        "inventory.html",
        f"Inventory: {collection.title}",
        collection=collection,
        added=added,
        left_out={entry.scan.name: entry.reason for entry in entries if not entry.id},
        patients=sum(uses.values()),
        uses=[(use, uses[use]) for use in USES],
        doubts=[(code, count, ADVICE[code]) for code, count in doubts.most_common()],
    )
    try:
        write_table(page.with_suffix(".csv"), COLUMNS, [entry.row() for entry in entries], guarded=True)
        write_text_atomically(page, html)
    except OSError as error:
        raise OutputError(f"Cannot write {page}: {error.strerror}. Make room there, and rerun the command.") from error
    return page
