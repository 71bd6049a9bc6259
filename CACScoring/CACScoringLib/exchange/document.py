"""The report as an A4 page in PDF, and that as an Encapsulated PDF (PS3.3 A.45.1)."""

from __future__ import annotations

import io
from collections.abc import Sequence

from fpdf import FPDF, FontFace
from highdicom import SOPClass
from highdicom.sr import CodedConcept
from pydicom import Dataset
from pydicom.uid import EncapsulatedPDFStorage, ExplicitVRLittleEndian

from ..core.labels import Artery, Site
from ..core.text import RESEARCH_ONLY
from ..core.version import VERSION
from ..report import pictures
from ..report.files import models_as_json
from ..results import AGATSTON_TITLES, CLINICAL_TITLES, METHOD_TITLES, STATUSES, MethodResult, ScoreResult
from ..scoring.scores import Score
from . import codes as cac
from .conclusion import conclusion, plain
from .key_slices import key_picture, key_slices
from .source import SourceSeries

SERIES = 5
"""Place of its series number."""

_MARGIN_MM, _WIDTH_MM, _PICTURE_MM = 18.0, 174.0, 84.0
_HEADINGS = FontFace(emphasis="BOLD", fill_color=(232, 238, 242))
_FONT = "latin-1"
"""Characters of PDF's own fonts."""
_INK, _FAINT, _ALARM = (30, 36, 40), (105, 115, 122), (176, 32, 32)


def pdf_of(result: ScoreResult, identify: bool = False) -> bytes:
    """The report of a result as PDF; with the patient's name, id and study date only where identify is set."""
    page = _Page(format="A4")
    page.set_title("Coronary calcium")
    page.set_creator(f"CAC {VERSION}")
    page.add_page()
    page.heading("Coronary calcium", 18)
    page.line_of(RESEARCH_ONLY, _FAINT)
    page.facts(_facts(result, identify))
    for n, sentence in enumerate(conclusion_lines(result)):
        page.line_of(sentence, _ALARM if sentence.startswith("Caution") else _INK, 12 if n == 0 else 10)
    for key, method in result.methods.items():
        page.heading(METHOD_TITLES[key])
        page.line_of(STATUSES[method.status].capitalize() + ".", _INK if method.reviewed else _ALARM)
        page.scores(CLINICAL_TITLES[key], _rows(method))
        if key != "threshold":
            page.line_of(f"{AGATSTON_TITLES[key]} score (no clinical scale): {method.total.agatston:.1f}", _FAINT, 8)
    elsewhere = result.non_coronary
    if elsewhere is not None and elsewhere.lesions.lesions:
        page.heading("Outside the coronary arteries")
        page.line_of("Reviewed." if elsewhere.reviewed else "Not reviewed. No part of the coronary score.", _FAINT)
        page.scores("Agatston", [(s.full_name, s, x) for s, x in elsewhere.scores.items() if x.lesions])
    page.pictures([(key_picture(result, k), _caption(result, k)) for k in key_slices(result)])
    others = [warning.message for warning in result.warnings if not warning.severe]
    if others:
        page.heading("Warnings")
        for message in others:
            page.line_of(f"- {message}", size=8.5)
    page.heading("How it was made")
    page.facts(_how(result))
    return bytes(page.output())


def conclusion_lines(result: ScoreResult) -> list[str]:
    """The sentences of `conclusion` without the last, which stands at the top of the page."""
    return conclusion(result)[:-1]


def encapsulated_pdf_of(result: ScoreResult, source: SourceSeries, identify: bool = False) -> Dataset:
    """The PDF of a result in a DICOM object, which refers to the images it was made from."""
    document = pdf_of(result, identify)
    header = source.images[0]
    made = SOPClass(
        study_instance_uid=header.StudyInstanceUID,
        sop_class_uid=EncapsulatedPDFStorage,
        modality="DOC",
        transfer_syntax_uid=ExplicitVRLittleEndian,
        series_description="CAC: report",
        **source.identity(SERIES, "report"),
    )
    made.ConversionType = "WSD"
    made.BurnedInAnnotation = "YES" if identify else "NO"
    made.AcquisitionDateTime = ""
    made.DocumentTitle = "Coronary calcium"
    made.ConceptNameCodeSequence = [CodedConcept.from_code(cac.IMAGING_REPORT)]
    made.VerificationFlag = "UNVERIFIED"
    made.MIMETypeOfEncapsulatedDocument = "application/pdf"
    made.EncapsulatedDocument = document + b"\0" * (len(document) % 2)
    made.EncapsulatedDocumentLength = len(document)
    made.SourceInstanceSequence = [_reference(image) for image in source.images]
    return source.finished(made)


def _reference(image: Dataset) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = image.SOPClassUID, image.SOPInstanceUID
    return item


class _Page(FPDF):
    """An A4 page in one face; text that this lacks is left out as "?"."""

    def __init__(self, **given: str) -> None:
        super().__init__(**given)
        self.set_margins(_MARGIN_MM, _MARGIN_MM)
        self.set_auto_page_break(True, _MARGIN_MM)
        self.set_font("Helvetica", size=10)

    def footer(self) -> None:
        self.set_y(-12)
        self.set_font("Helvetica", size=8)
        self.set_text_color(*_FAINT)
        self.cell(0, 5, f"CAC {VERSION} · {RESEARCH_ONLY} · page {self.page_no()} of {{nb}}", align="C")

    def heading(self, text: str, size: float = 12) -> None:
        if self.will_page_break(24):
            self.add_page()
        self.ln(2)
        self.set_font("Helvetica", "B", size)
        self.set_text_color(*_INK)
        self.cell(0, size * 0.6, plain(text, _FONT), new_x="LMARGIN", new_y="NEXT")

    def line_of(self, text: str, ink: tuple[int, int, int] = _INK, size: float = 10) -> None:
        self.set_font("Helvetica", size=size)
        self.set_text_color(*ink)
        self.multi_cell(0, size * 0.47, plain(text, _FONT), align="LEFT", new_x="LMARGIN", new_y="NEXT")

    def facts(self, facts: dict[str, str]) -> None:
        self.set_font("Helvetica", size=8.5)
        self.set_text_color(*_INK)
        self.ln(1)
        with self.table(
            col_widths=(45, 129), first_row_as_headings=False, line_height=4.6, borders_layout="NONE"
        ) as table:
            for name, value in facts.items():
                table.row((plain(name, _FONT), plain(value, _FONT)))
        self.ln(1)

    def scores(self, agatston: str, rows: Sequence[tuple[str, Site | None, Score]]) -> None:
        self.set_font("Helvetica", size=9)
        self.set_text_color(*_INK)
        titles = ("", "Lesions", agatston, "Volume mm³", "Mass mg", "Peak HU")
        with self.table(
            col_widths=(58, 20, 34, 24, 20, 18),
            text_align=("LEFT", *("RIGHT",) * 5),
            headings_style=_HEADINGS,
            line_height=5,
            borders_layout="HORIZONTAL_LINES",
        ) as table:
            table.row(titles)
            for name, site, score in rows:
                style = FontFace(emphasis="BOLD") if site is None else None
                table.row((plain(name, _FONT), *_cells(score)), style=style)
        self.ln(1)

    def pictures(self, figures: Sequence[tuple[object, str]]) -> None:
        if not figures:
            return
        if self.will_page_break(_PICTURE_MM + 25):
            self.add_page()
        self.heading("Slices with most of the score")
        low, high = pictures.WINDOW_HU
        window = f"Window {low:g} to {high:g} HU; the patient's left is on the right."
        self.line_of(f"{window} Slices are counted from 0 at the feet.", _FAINT, 8)
        for first in range(0, len(figures), 2):
            pair = figures[first : first + 2]
            height = max(_PICTURE_MM * picture.height / picture.width for picture, _ in pair)
            if self.will_page_break(height + 6):
                self.add_page()
            top = self.get_y() + 1
            for n, (picture, caption) in enumerate(pair):
                left = _MARGIN_MM + n * (_WIDTH_MM - _PICTURE_MM)
                stream = io.BytesIO()
                picture.save(stream, "PNG")
                self.image(stream, left, top, _PICTURE_MM)
                self.set_xy(left, top + height)
                self.set_font("Helvetica", size=8)
                self.cell(_PICTURE_MM, 4, plain(caption, _FONT))
            self.set_xy(_MARGIN_MM, top + height + 5)


def _caption(result: ScoreResult, k: int) -> str:
    here = [lesion for lesion in result.methods["threshold"].lesions.lesions if k in lesion.slice_indices]
    named = ", ".join(f"{lesion.id} {lesion.artery.key}" for lesion in here[:4])
    return f"Slice {k}: {named}{' and others' if len(here) > 4 else ''}"


def _rows(method: MethodResult) -> list[tuple[str, Site | None, Score]]:
    unassigned = method.arteries[Artery.UNASSIGNED].lesions
    rows: list[tuple[str, Site | None, Score]] = [
        (f"{artery.key}: {artery.full_name}", artery, score)
        for artery, score in method.arteries.items()
        if artery != Artery.UNASSIGNED or unassigned
    ]
    return [*rows, ("Total", None, method.total)]


def _cells(score: Score) -> tuple[str, ...]:
    mass = "-" if score.mass_mg is None else f"{score.mass_mg:.2f}"
    peak = "-" if score.peak_hu is None else f"{score.peak_hu:.0f}"
    return (str(score.lesions), f"{score.clinical_agatston:.1f}", f"{score.volume_mm3:.1f}", mass, peak)


def _facts(result: ScoreResult, identify: bool) -> dict[str, str]:
    seen, image = result.scan.acquisition, result.scan.image
    facts = {"Patient": f"{seen.patient_name or '?'}, {seen.patient_id or '?'}", "Study": seen.study_date or "?"}
    if not identify:
        facts = {"Patient and study": "as in the header of this DICOM object"}
    size = " × ".join(map(str, image.GetSize()))
    facts["Scan"] = f"{size} voxels of {' × '.join(f'{s:.3g}' for s in image.GetSpacing())} mm"
    made = [seen.manufacturer, seen.scanner_model, None if seen.kvp is None else f"{seen.kvp:g} kVp", seen.kernel]
    facts["Acquisition"] = ", ".join(text for text in made if text) or "unknown"
    return facts


def _how(result: ScoreResult) -> dict[str, str]:
    rules = result.methods["threshold"].rules
    calibration = rules.calibration_mg_per_mm3_hu
    how = {
        "Software": f"CAC {VERSION}",
        "Rule": f"{rules.name}; connectivity {rules.connectivity}, smallest area {rules.minimum_area_mm2:g} mm²",
        "Mass calibration": "none" if calibration is None else f"{calibration:g} mg/(mm³·HU)",
        "Heart": result.heart.source,
    }
    for model in models_as_json(result):
        how[f"Model for {model['network']}"] = f"{model['name']}, SHA-256 {model['sha256'][:16]}..."
    return how
