"""Report as A4 pages in PDF, and as a DICOM Encapsulated PDF (PS3.3 A.45.1)."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Literal

from fpdf import FPDF, FontFace
from highdicom import SOPClass
from highdicom.sr import CodedConcept
from pydicom import Dataset
from pydicom.uid import EncapsulatedPDFStorage, ExplicitVRLittleEndian

from ..core.labels import WINDOW_HU
from ..core.text import RESEARCH_ONLY
from ..core.version import VERSION
from ..report import headline, pictures
from ..report.page import interval_bar, largest_pictures, provenance_text
from ..results import CalciumResult
from ..scoring.doubt import at_most_99_percent, left_out_candidates
from . import codes as cac
from .codes import plain
from .source import SourceSeries

_MARGIN_MM, _PICTURE_MM, _GAP_MM, _BAR_MM = 18.0, 42.0, 2.0, 110.0
_HEADINGS = FontFace(emphasis="BOLD", fill_color=(232, 238, 242))
_FONT = "latin-1"
"""Characters of PDF's own fonts."""
_INK, _FAINT, _ALARM = (30, 36, 40), (105, 115, 122), (176, 32, 32)


def pdf_of(result: CalciumResult, identify: bool = False) -> bytes:
    """Return the report of a result as PDF.

    It holds headline, table, largest lesions and warnings as on the page, then calcium elsewhere and the methods.
    identify: True to print the patient's name, ID and study date.
    """
    record, method = result.record, result.methods["threshold"]
    head = headline.headline(record.methods, record.categories, record.warnings)
    page = _Page()
    page.set_title("Coronary calcium")
    page.set_creator(f"CAC {VERSION}")
    page.add_page()
    page.line_of(f"Coronary calcium. {RESEARCH_ONLY}", _FAINT)
    page.heading(head.score, 20)
    page.line_of(f"{head.state[0].upper()}{head.state[1:]}.", _INK if head.reviewed else _ALARM, 12)
    page.line_of(head.summary, size=11)
    if (interval := method.total.interval_90) is not None:
        page.bar(interval_bar(method.total.clinical_agatston, *interval, ink="#1e2428"))
    lines = headline.warning_lines(result.warnings, result.methods)
    for line in lines:
        if line.severe:
            page.line_of(f"Caution: {line.line} {line.why}", _ALARM)
    table = headline.score_table(record.methods, record.truth)
    page.scores(table.titles, [(row.name, *row.cells) for row in table.rows])
    doubts = [f"{row.name} {row.note}" for row in table.rows if row.note]
    if doubts:
        page.line_of(f"Lesions with a probability below 90 %: {', '.join(doubts)}.")
    if where := headline.features_sentence(method):
        page.line_of(f"{where}.")
    page.pictures(largest_pictures(result))
    if candidates := left_out_candidates(result.methods["threshold"])[: pictures.MAX_DRAWN]:
        count = len(method.left_out)
        listed = "" if count == len(candidates) else f", the first {len(candidates)} of {count}"
        with page.unbreakable() as block:
            block.heading("Left out as probably not coronary calcium")
            block.line_of(f"Those that would probably add most to the score come first{listed}.", _FAINT)
            block.scores(
                ("Reason", "Candidate", "Near", "Agatston", "Probability"),
                [
                    (v.reason, str(x.id), v.artery.key, f"{x.agatston:.1f}", at_most_99_percent(v.probability))
                    for x, v in candidates
                ],
            )
    if remarks := [line for line in lines if not line.severe]:
        page.heading("Warnings")
        for line in remarks:
            page.line_of(f"- {line.line} {line.why}", size=8.5)
    elsewhere = result.record.non_coronary
    if elsewhere is not None and elsewhere.lesion_list:
        rows = [
            (s.full_name, f"{x.agatston:.1f}", f"{x.volume_mm3:.1f}") for s, x in elsewhere.scores.items() if x.lesions
        ]
        with page.unbreakable() as block:
            block.heading("Outside the coronary arteries")
            block.line_of("Reviewed." if elsewhere.reviewed else "Not reviewed. No part of the coronary score.", _FAINT)
            block.scores(("Site", "Agatston", "Volume mm³"), rows)
    with page.unbreakable() as block:  # no page of a line or two
        block.heading("How it was made")
        block.facts({**_facts(result, identify), **_how(result, identify)})
    return bytes(page.output())


def encapsulated_pdf_of(result: CalciumResult, source: SourceSeries, identify: bool = False) -> Dataset:
    """Return the PDF of a result in a DICOM object that refers to the scan's images."""
    document = pdf_of(result, identify)
    header = source.images[0]
    encapsulated = SOPClass(
        study_instance_uid=header.StudyInstanceUID,
        sop_class_uid=EncapsulatedPDFStorage,
        modality="DOC",
        transfer_syntax_uid=ExplicitVRLittleEndian,
        series_description="CAC: report",
        **source.identity("report"),
    )
    encapsulated.ConversionType = "WSD"
    encapsulated.BurnedInAnnotation = "YES" if identify else "NO"
    encapsulated.AcquisitionDateTime = ""
    encapsulated.DocumentTitle = "Coronary calcium"
    encapsulated.ConceptNameCodeSequence = [CodedConcept.from_code(cac.IMAGING_REPORT)]
    encapsulated.VerificationFlag = "UNVERIFIED"
    encapsulated.MIMETypeOfEncapsulatedDocument = "application/pdf"
    encapsulated.EncapsulatedDocument = document + b"\0" * (len(document) % 2)
    encapsulated.EncapsulatedDocumentLength = len(document)
    encapsulated.SourceInstanceSequence = [_reference(image) for image in source.images]
    return source.complete(encapsulated)


def _reference(image: Dataset) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = image.SOPClassUID, image.SOPInstanceUID
    return item


class _Page(FPDF):
    """A4 page in one font; characters that the font lacks become "?"."""

    def __init__(self) -> None:
        super().__init__(format="A4")
        self.set_margins(_MARGIN_MM, _MARGIN_MM)
        self.set_auto_page_break(True, _MARGIN_MM)
        self.set_font("Helvetica", size=10)

    def _pen(self, size: float, ink: tuple[int, int, int] = _INK, style: Literal["", "B"] = "") -> None:
        self.set_font("Helvetica", style, size)
        self.set_text_color(*ink)

    def footer(self) -> None:
        self.set_y(-12)
        self._pen(8, _FAINT)
        self.cell(0, 5, f"CAC {VERSION} · {RESEARCH_ONLY} · page {self.page_no()} of {{nb}}", align="C")

    def heading(self, text: str, size: float = 12) -> None:
        if self.will_page_break(24):
            self.add_page()
        self.ln(2)
        self._pen(size, style="B")
        self.cell(0, size * 0.6, plain(text, _FONT), new_x="LMARGIN", new_y="NEXT")

    def line_of(self, text: str, ink: tuple[int, int, int] = _INK, size: float = 10) -> None:
        self._pen(size, ink)
        self.multi_cell(0, size * 0.47, plain(text, _FONT), align="LEFT", new_x="LMARGIN", new_y="NEXT")

    def facts(self, facts: dict[str, str]) -> None:
        self._pen(8.5)
        self.ln(1)
        with self.table(
            col_widths=(45, 129), first_row_as_headings=False, line_height=4.6, borders_layout="NONE"
        ) as table:
            for name, value in facts.items():
                table.row((plain(name, _FONT), plain(value, _FONT)))
        self.ln(1)

    def bar(self, svg: str) -> None:
        """Draw an interval bar (`report.page.interval_bar`)."""
        self.image(io.BytesIO(svg.encode()), w=_BAR_MM)
        self.ln(1)

    def scores(self, titles: Sequence[str], rows: Sequence[tuple[str, ...]]) -> None:
        """Write a table whose first column has twice the width of the others; the row "Total" is bold."""
        self._pen(9)
        with self.table(
            col_widths=(2, *(1,) * (len(titles) - 1)),
            text_align=("LEFT", *("RIGHT",) * (len(titles) - 1)),
            headings_style=_HEADINGS,
            line_height=5,
            borders_layout="HORIZONTAL_LINES",
        ) as table:
            table.row([plain(title, _FONT) for title in titles])
            for row in rows:
                style = FontFace(emphasis="BOLD") if row[0] == "Total" else None
                table.row([plain(cell, _FONT) for cell in row], style=style)
        self.ln(1)

    def pictures(self, figures: Sequence[pictures.Picture]) -> None:
        """Draw pictures in one row, with their captions."""
        if self.will_page_break(_PICTURE_MM + 10):
            self.add_page()
        low, high = WINDOW_HU
        window = f"Window {low:g} to {high:g} HU; the patient's left is on the right."
        self.line_of(f"{window} Slices are counted from 0 at the feet.", _FAINT, 8)
        top, bottom = self.get_y() + 1, 0.0
        for n, figure in enumerate(figures):
            x = _MARGIN_MM + n * (_PICTURE_MM + _GAP_MM)
            image = self.image(io.BytesIO(figure.jpeg), x, top, _PICTURE_MM)
            self.set_xy(x, top + image.rendered_height)
            self.set_font("Helvetica", size=7)
            self.multi_cell(_PICTURE_MM, 3, plain(figure.caption, _FONT), align="LEFT")
            bottom = max(bottom, self.get_y())
        self.set_xy(_MARGIN_MM, bottom + 2)


def _facts(result: CalciumResult, identify: bool) -> dict[str, str]:
    acquisition, image = result.scan.acquisition, result.scan.image
    facts = {"Patient and study": "as in the header of this DICOM object"}
    if identify:
        patient = f"{acquisition.patient_name or '?'}, {acquisition.patient_id or '?'}"
        facts = {"Patient": patient, "Study": acquisition.study_date or "?"}
    size = " × ".join(map(str, image.GetSize()))
    facts["Scan"] = f"{size} voxels of {' × '.join(f'{s:.3g}' for s in image.GetSpacing())} mm"
    kvp = None if acquisition.kvp is None else f"{acquisition.kvp:g} kVp"
    parts = [acquisition.manufacturer, acquisition.scanner_model, kvp, acquisition.kernel]
    facts["Acquisition"] = ", ".join(text for text in parts if text) or "unknown"
    return facts


def _how(result: CalciumResult, identify: bool) -> dict[str, str]:
    rules = result.methods["threshold"].rules
    calibration = rules.calibration_mg_per_mm3_hu
    how = {
        "Software": f"CAC {VERSION}",
        "Rule": f"{rules.name}; connectivity {rules.connectivity}, smallest area {rules.minimum_area_mm2:g} mm²",
        "Mass calibration": "none" if calibration is None else f"{calibration:g} mg/(mm³·HU)",
        "Heart": result.region.source,
    }
    for model in result.record.models:
        how[f"Model for {model.network}"] = f"{model.name}, SHA-256 {model.sha256[:16]}..."
    # Without identity nobody is named in words.
    if text := provenance_text(result if identify else result.stating(review=None), identify):
        how["Provenance"] = text
    return how
