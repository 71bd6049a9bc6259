"""Settings of a radiograph to score: its views and the clinical factors of its patient."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..core.options import Row, option

_TOGETHER = "Age, sex and body mass index are used together, or not at all."


@dataclass(frozen=True)
class RadiographInput:
    """Radiographs and clinical factors of a patient: section "radiograph" of the settings.

    The clinical factors are used only if all three are known; None takes age and sex from DICOM.

    Attributes:
        pa: File of the posteroanterior view.
        lateral: File of the lateral view.
        age_years: Age in years.
        sex: "F" or "M".
        bmi_kg_m2: Body mass index in kg/m².
    """

    pa: Path | None = option(
        None, row=Row("File:", "Choose a PA radiograph: DICOM, PNG, or the picture of a radiograph made from a CT.")
    )
    lateral: Path | None = option(
        None,
        row=Row(
            "Lateral:",
            "Choose a lateral radiograph of the same visit for models that use both views, or leave this empty.",
        ),
    )
    age_years: float | None = option(None, row=Row("Age:", _TOGETHER, "unknown", unit=" years", limits=(0, 120)))
    sex: str | None = option(None, row=Row("Sex:", _TOGETHER))
    bmi_kg_m2: float | None = option(
        None, row=Row("Body mass index:", _TOGETHER, "unknown", decimals=1, unit=" kg/m²", limits=(0, 100))
    )

    @property
    def pictures(self) -> dict[str, Path]:
        """Files by view."""
        return {view: path for view, path in (("PA", self.pa), ("lateral", self.lateral)) if path is not None}
