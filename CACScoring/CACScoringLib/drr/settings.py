"""Settings of a radiograph of a CT: its view, geometry, spectrum and film."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .geometry import VIEWS, Geometry

if TYPE_CHECKING:
    from .projection import Film, Spectrum


@dataclass(frozen=True)
class DrrSettings:
    """Geometry, spectrum and film of a radiograph; `cac drr --settings` takes the same fields.

    Attributes:
        angle_degrees: Angle of the detector about the body's long axis: 0 in front of the chest, 90 at the patient's
            left, 180 at the back.
        tilt_degrees: Tilt of the detector towards the head.
        mirrored: Show the view from the source instead of from the detector, as an AP radiograph is shown, with the
            patient's right on the left of the image.
        source_detector_mm: Distance from source to detector, 1800 mm at a chest stand.
        source_isocentre_mm: Distance from source to the centre of the CT.
        detector_mm: Width and height of the detector.
        pixels: Rows and columns of the detector.
        kvp: Tube voltage behind 3 mm of aluminium; None for photons of 70 keV.
        linear: Show the intensity, as a linear film does, instead of its logarithm.
        scatter_fraction: Scattered part of the signal, from 0 to below 1; an anti-scatter grid leaves about 0.2.
        photons: Photons per pixel without a patient, which set the noise; None for no noise.
        table: Keep the table and clothes.
        parallel: Parallel rays instead of a cone beam.
    """

    angle_degrees: float = 0.0
    tilt_degrees: float = 0.0
    mirrored: bool = False
    source_detector_mm: float = 1800.0
    source_isocentre_mm: float = 1600.0
    detector_mm: float = 430.0
    pixels: int = 1024
    kvp: float | None = None
    linear: bool = False
    scatter_fraction: float = 0.0
    photons: float | None = None
    table: bool = False
    parallel: bool = False

    def geometry(self, isocentre_mm: tuple[float, float, float], pixels: int | None = None) -> Geometry:
        """Place source and detector around a point.

        Args:
            isocentre_mm: LPS.
            pixels: Number of pixels; None for that of the settings.

        Raises:
            ProjectionError: The settings give no view.
        """
        return Geometry(
            self.angle_degrees,
            self.tilt_degrees,
            self.mirrored,
            self.parallel,
            source_detector_mm=self.source_detector_mm,
            source_isocentre_mm=self.source_isocentre_mm,
            detector_mm=(self.detector_mm,) * 2,
            pixels=(pixels or self.pixels,) * 2,
            isocentre_mm=isocentre_mm,
        )

    def spectrum(self) -> Spectrum:
        """Return the photons' spectrum. Raises ProjectionError."""
        from .projection import Spectrum, tube_spectrum

        return Spectrum() if self.kvp is None else tube_spectrum(self.kvp)

    def film(self, pixels: int | None = None) -> Film:
        """Return the film. pixels: number in place of that of the settings; photons are then scaled by their area."""
        from .projection import Film

        photons = self.photons
        if photons is not None and pixels:
            photons = min(photons * (self.pixels / pixels) ** 2, 1e12)
        return Film(self.linear, self.scatter_fraction, photons)

    def view(self) -> str | None:
        """Return the name of the view ("PA", "lateral", "AP"); None for another angle or a tilt."""
        if self.tilt_degrees:
            return None
        return next((name for name, setting in VIEWS.items() if setting == (self.angle_degrees, self.mirrored)), None)

    def title(self) -> str:
        """Return a name such as "PA radiograph" or "radiograph at 30°, tilted by 10°"."""
        if view := self.view():
            return f"{view} radiograph"
        tilt = f", tilted by {self.tilt_degrees:g}°" if self.tilt_degrees else ""
        return f"radiograph at {self.angle_degrees:g}°{tilt}"
