"""Layouts of tables of scores: the user's own, and tables that others published, with the meaning of their scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from CACScoringLib.core.tables import Line, Table


@dataclass(frozen=True)
class Layout:
    """Columns of a table of scores, and what its scores mean.

    Attributes:
        title: Title on pages.
        id: Column of participants or series, which are looked up in the folder of the scans.
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
        columns: Sequence[str] = self.name or ("name", self.id, "ct")
        texts = [text for column in columns if (text := line.text(column))]
        return " ".join(texts) if self.name else next(iter(texts), "")


OWN_TABLE = Layout("a table of scores")

DEEPCAC = Layout(
    title="DeepCAC's readers, NLST",
    id="PID",
    totals=("CAC_manual",),
    comparator="CAC_AI",
    other_title="DeepCAC",
    about="Manual scores of participants of NLST and those of the program DeepCAC (Zeleznik 2021, "
    "doi:10.1038/s41467-021-20966-2; AIM-Harvard/DeepCAC, stats/Results_NLST.csv, GPL-3.0). Both are Agatston scores: "
    "in each slice objects of more than 3 pixels, weighted by their peak from 130 HU, area times spacing over 3 mm, on "
    "images resampled to 0.68 × 0.68 × 2.5 mm. DeepCAC's authors compared the classes 0, to 100, to 300 and above; on "
    "all 396 participants they found 72 % in one class, and κ without weights 0.62.",
    sha256="c50d0acd1becadfeb6eb718fa92ba05dd3e794d70417d66bbc969a3bb6030e6d",
    classes=(0.0, 100.0, 300.0),
)

AI_CAC = Layout(
    title="AI-CAC, a program, on series of NLST",
    id="selected_series_uid",
    totals=("agatston_score",),
    name=("patient_id", "reconstruction"),
    patient="patient_id",
    about="The reference is not the truth: it is the Agatston score of another program, AI-CAC, of single series of "
    "NLST (zhurong2020/cac-plus-reproducibility, Apache-2.0). The page shows how far two programs agree. Where it has "
    "the words missed or wrong, read: differs from AI-CAC.",
)

_PUBLISHED = (DEEPCAC, AI_CAC)


def layout_of(table: Table) -> Layout:
    """Return the published layout whose columns a table has, else that of the user's own."""
    needed = ((layout.id, *layout.totals, *layout.name) for layout in _PUBLISHED)
    return next(
        (layout for layout, columns in zip(_PUBLISHED, needed, strict=True) if all(c in table for c in columns)),
        OWN_TABLE,
    )
