"""Rule that chooses the series to score where a folder or study holds several.

Calcium scores are defined on unenhanced slices of 2.5 to 3 mm with a soft kernel, acquired in diastole (Agatston 1990;
McCollough 2007, 10.1148/radiol.2432050808). So the rule compares series by these properties, in this order: their
slices make one stack; the images are as the scanner reconstructed them; no contrast agent; length of a heart; kernel;
slice thickness; field of view; cardiac phase. Of two series that are equal in all of them none is chosen.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass

from ..core.acquisition import agent_named
from ..core.ct import ScanWarning
from ..core.errors import CTError
from ..core.text import printable
from .dicom import DicomSlice, first_value
from .headers import check_headers, computed_warnings, density_of_kernel
from .series_acquisition import contrast_agent_of, free_text
from .stack import stack_of, without_strays

THICKNESS_MM = (2.5, 3.0)
"""Slice thickness of the scoring protocols."""

FULL_FIELD_MM = 300.0
"""Width of a field of view that shows the chest; smaller ones are zoomed to the heart."""

HEART_LENGTH_MM = 80.0
"""Length along the patient below which a series does not cover a heart."""

PHASE_PERCENT = (60.0, 80.0)
"""Cardiac phases of diastole, in % of the cycle."""

SOFTEST_SHARP = 50
"""Lowest Siemens kernel number that enhances edges: B45f is soft enough, B50f is not."""

_SOFT = re.compile(r"SOFT|STANDARD|STND|X?C?[ABC]|EB|FC(0\d|1\d|4[1-9])")
_SHARP = re.compile(r"DETAIL|CHEST|LUNG|BONE ?PLUS|BONE|EDGE|ULTRA|[DEL]|Y[A-D]|XC?[DEL]|FC([2-9]\d)")
_NUMBERED = re.compile(r"[A-Z]{1,2}(\d\d)[A-Z]?\b")
"""Kernels of GE, Philips and Canon by name, of Siemens by number."""


def is_soft_kernel(kernel: str | None) -> bool | None:
    """Return True for a soft kernel's name, False for one that enhances edges, None for an unknown name.

    Examples:
        >>> [is_soft_kernel(name) for name in ("B35f", "Br59d", "STANDARD", "FC51", "custom")]
        [True, False, True, False, None]
    """
    name = (kernel or "").split("\\")[0].strip().upper()
    if _SOFT.fullmatch(name):
        return True
    if _SHARP.fullmatch(name):
        return False
    match = _NUMBERED.match(name)
    return int(match[1]) < SOFTEST_SHARP if match else None


@dataclass(frozen=True)
class SeriesFacts:
    """Properties of a CT series, or of one of its cardiac phases, by which the rule chooses.

    Attributes:
        label: Name in a choice: series number, and a rank where several share it.
        uid: Series instance UID.
        description: Series description.
        kernel: Convolution kernel.
        thickness_mm: Slice thickness, or the spacing where it is not stated.
        spacing_mm: Distance of the slices; None if they make no stack.
        slices: Number of images, without localizers.
        length_mm: Length along the patient.
        field_mm: Width of the images.
        phase_percent: Cardiac phase in % of the cycle.
        contrast_agent: Contrast agent, if one is stated.
        is_computed: True if the images were computed from others.
        fault: Reason why the slices make no stack, or their headers state no HU; empty if they can be scored.
        acquisition: Acquisition number, where the series has others.
        folder: Folder that holds all files.
        patient: Patient ID, else the name; empty without both. It stands in no warning.
        acquired: Date and time of the acquisition, else of the study, as DICOM writes them; empty if not stated.
    """

    label: str
    uid: str
    description: str | None
    kernel: str | None
    thickness_mm: float | None
    spacing_mm: float | None
    slices: int
    length_mm: float
    field_mm: float | None
    phase_percent: float | None
    contrast_agent: str | None
    is_computed: bool
    fault: str
    acquisition: str | None = None
    folder: str = ""
    patient: str = ""
    acquired: str = ""

    @property
    def rank(self) -> tuple[float, ...]:
        """Distance from the rule's protocol, property by property in the rule's order."""
        field_mm = FULL_FIELD_MM if self.field_mm is None else self.field_mm
        return (
            bool(self.fault),
            self.is_computed,
            self.contrast_agent is not None,
            self.length_mm < HEART_LENGTH_MM,
            {True: 0, None: 1, False: 2}[is_soft_kernel(self.kernel)],
            _distance(self.thickness_mm, THICKNESS_MM),
            round(max(0.0, FULL_FIELD_MM - field_mm), -1),
            _distance(self.phase_percent, PHASE_PERCENT),
        )

    @property
    def properties(self) -> list[str]:
        """The rule's properties in words."""
        kind = {True: "soft kernel", None: "kernel", False: "sharp kernel"}[is_soft_kernel(self.kernel)]
        return [
            *(["computed images"] if self.is_computed else []),
            *([f"contrast agent {self.contrast_agent}"] if self.contrast_agent else []),
            f"{kind} {self.kernel or 'unknown'}",
            "unknown thickness" if self.thickness_mm is None else f"{self.thickness_mm:g} mm thick",
            "unknown field of view" if self.field_mm is None else f"field of view {self.field_mm:.0f} mm",
            *([] if self.phase_percent is None else [f"{self.phase_percent:g} % of the cycle"]),
            *([f"acquisition {self.acquisition}"] if self.acquisition else []),
            f"{self.slices} slices over {self.length_mm:.0f} mm",
        ]

    @property
    def origin(self) -> str:
        """Patient, acquisition and folder, for those who may see whose scan it is."""
        patient, acquired = self.patient or "unknown", self.acquired or "at an unknown time"
        return f"patient {printable(patient)}, acquired {printable(acquired)}, in {printable(self.folder)}"

    @property
    def name(self) -> str:
        """Name that tells the series from others of its study."""
        thickness = None if self.thickness_mm is None else f"{self.thickness_mm:g} mm"
        phase = None if self.phase_percent is None else f"{self.phase_percent:g} %"
        acquisition = f"acquisition {self.acquisition}" if self.acquisition else None
        return " ".join(filter(None, (self.label, self.description, self.kernel, thickness, phase, acquisition)))

    def __str__(self) -> str:
        return f"{self.label} ({', '.join([self.description or 'no description', *self.properties])})"


def series_properties(label: str, uid: str, slices: Sequence[DicomSlice]) -> SeriesFacts:
    """Return the properties of one series or cardiac phase."""
    from .multi_frame import single_frames  # loads pydicom

    spacing_mm, length_mm, fault = None, 0.0, ""
    images = list(slices)
    try:
        images, _ = without_strays(single_frames(slices))
        if len(images) == 1:
            fault = "It has 1 slice."
        else:
            spacing_mm = stack_of(images)[2][2]
            length_mm = spacing_mm * len(images)
            check_headers(images)
    except CTError as error:
        fault = str(error)

    first = images[0]
    pixel_mm, columns = first.numbers("PixelSpacing", 2), first.number("Columns")
    phases = {slice_.number("NominalPercentageOfCardiacPhase") for slice_ in images}
    return SeriesFacts(
        label=label,
        uid=uid,
        description=free_text(images, "SeriesDescription"),
        kernel=first_value(images, DicomSlice.text, "ConvolutionKernel"),
        thickness_mm=first_value(images, DicomSlice.number, "SliceThickness") or spacing_mm,
        spacing_mm=spacing_mm,
        slices=len(images),
        length_mm=length_mm,
        field_mm=pixel_mm[1] * columns if pixel_mm and columns else None,
        phase_percent=phases.pop() if len(phases) == 1 else None,
        contrast_agent=agent_named(contrast_agent_of(images)),
        is_computed=bool(computed_warnings(images) or density_of_kernel(images)),
        fault=fault,
        folder=os.path.commonpath([slice_.path.parent for slice_ in images]),
        patient=patient_id_or_name(first),
        acquired=" ".join(filter(None, (_acquired(first, "Date"), _acquired(first, "Time").partition(".")[0]))),
    )


def patient_id_or_name(slice_: DicomSlice) -> str:
    """Return the patient's ID, else the name; empty without both."""
    return slice_.text("PatientID") or slice_.text("PatientName") or ""


def _acquired(slice_: DicomSlice, part: str) -> str:
    return slice_.text(f"Acquisition{part}") or slice_.text(f"Study{part}") or ""


def best_series(series: Sequence[SeriesFacts]) -> SeriesFacts | None:
    """Return the series that comes nearest to the rule's protocol; None if two are equal or none makes a stack."""
    ranked = sorted(series, key=lambda facts: facts.rank)
    is_clear = len(ranked) == 1 or ranked[0].rank < ranked[1].rank
    return ranked[0] if is_clear and not ranked[0].fault else None


def choice_warning(best: SeriesFacts, series: Sequence[SeriesFacts]) -> ScanWarning:
    """Return the warning that names the chosen series and all others, with their properties."""
    rejected = "; ".join(f"{facts}{f': {facts.fault}' if facts.fault else ''}" for facts in series if facts is not best)
    message = (
        f"The folder holds {len(series)} CT series, cardiac phases or acquisitions. The one nearest to the scoring "
        f"protocol (no contrast, soft kernel, {THICKNESS_MM[0]:g} to {THICKNESS_MM[1]:g} mm, full field of view, "
        f"{PHASE_PERCENT[0]:g} to {PHASE_PERCENT[1]:g} % of the cycle) is scored: {best}. Not scored: {rejected}. "
        "Choose another by its number or UID (--series, or the column series of a table), or score all: cac info "
        "--table lists them for cac cohort."
    )
    return ScanWarning("series-chosen", message)


def _distance(value: float | None, limits: tuple[float, float]) -> float:
    """Return how far a value lies outside limits; an unknown value counts as inside."""
    return 0.0 if value is None else max(limits[0] - value, value - limits[1], 0.0)
