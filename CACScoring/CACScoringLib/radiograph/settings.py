"""Settings of a radiograph to score: its views and the clinical factors of its patient."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class RadiographInput:
    """Radiographs and clinical factors of a patient: section "radiograph" of the settings.

    The clinical factors are used only if all three are known; None takes age and sex from DICOM.

    Attributes:
        pa: File of the posteroanterior view: DICOM, PNG, or the picture of a radiograph made from a CT.
        lateral: File of the lateral view of the same visit, for models that use both views.
        age_years: Age in years; used together with sex and body mass index, or not at all.
        sex: "F" or "M"; used together with age and body mass index, or not at all.
        bmi_kg_m2: Body mass index in kg/m²; used together with age and sex, or not at all.
    """

    pa: Path | None = None
    lateral: Path | None = None
    age_years: float | None = None
    sex: str | None = None
    bmi_kg_m2: float | None = None

    @property
    def pictures(self) -> dict[str, Path]:
        """Files by view."""
        return {view: path for view, path in (("PA", self.pa), ("lateral", self.lateral)) if path is not None}
