"""Findings of a scan, as `scores.json` holds them: image quality, calibration, classes, and features of lesions."""

from __future__ import annotations

from dataclasses import dataclass, field, fields

from ..core.ct import ScanWarning


@dataclass(frozen=True, kw_only=True)
class DensityFeatures:
    """Density of the voxels of a lesion, of an artery or of all lesions, read from the CT.

    Attributes:
        sd_hu: Standard deviation, the square root of IBSI's intensity variance (ECT3).
        p10_hu: 10th percentile (IBSI QG58).
        median_hu: Median (IBSI Y12H).
        p90_hu: 90th percentile (IBSI 8DWT).
        volume_130_199_mm3: Volume of voxels from 130 to below 200 HU, as are the next four.
        volume_from_1000_mm3: Volume of voxels from 1000 HU.
        mean_weight: Density weight of the Agatston score, averaged over the area (Criqui 2014,
            doi:10.1001/jama.2013.282535).
    """

    sd_hu: float
    p10_hu: float
    median_hu: float
    p90_hu: float
    volume_130_199_mm3: float
    volume_200_299_mm3: float
    volume_300_399_mm3: float
    volume_400_999_mm3: float
    volume_from_1000_mm3: float
    mean_weight: float


@dataclass(frozen=True, kw_only=True)
class LesionFeatures(DensityFeatures):
    """Features of a lesion.

    Attributes:
        id: Lesion's ID.
        slices: Number of slices; the only feature that depends on their spacing.
        sphericity: Surface of the sphere of equal volume over that of the ellipsoid with the lesion's second moments.
            IBSI's sphericity (QCFX) takes a mesh instead, which shows the voxels of small lesions.
        nearest_lesion_mm: Distance from the nearest other lesion, between the nearest voxels; None for a single one.
        ostium_mm: Distance of its middle from the ostium along the artery's course (`anatomy.courses`); None without
            territories and off the artery.
        length_mm: Extent along this course.
        in_proximal_third: Share of its mass in the proximal third of the artery; all of the left main is proximal.
    """

    id: int
    slices: int
    sphericity: float
    nearest_lesion_mm: float | None = None
    ostium_mm: float | None = None
    length_mm: float | None = None
    in_proximal_third: float | None = None


@dataclass(frozen=True, kw_only=True)
class ArteryFeatures(DensityFeatures):
    """Features of an artery, or of all lesions.

    Attributes:
        mass_share: Share of the patient's mass by the clinical rule.
        proximal_share: Share of its mass in the proximal third.
        largest_lesion_mm3: Volume of the largest lesion.
        first_mm: Distance from the ostium at which the artery begins, None of all lesions and without territories.
        last_mm: Distance from the ostium at which it ends.
        calcified_share: Share of its length along which there is calcium, of what lies on its course; None of all
            lesions and without territories.
    """

    mass_share: float
    proximal_share: float | None = None
    largest_lesion_mm3: float
    first_mm: float | None = None
    last_mm: float | None = None
    calcified_share: float | None = None


@dataclass(frozen=True)
class Features:
    """Features of the lesions of a method.

    Attributes:
        diseased_arteries: Number of LM, LAD, LCX and RCA with calcium; None if lesions are not assigned, as of the
            next two.
        diffusivity: 1 − the Agatston share of the most diseased artery (Blaha 2016, doi:10.1016/j.jcmg.2016.03.001);
            None without calcium.
        left_main: True for calcium in the left main.
        extent_score: Ordinal score by extent, 0 to 12: of each of the four arteries 0 without calcium, and 1, 2 or 3
            for calcium along up to a third, two thirds, or more of its length (Shemesh 2010,
            doi:10.1148/radiol.10100383); None where a length is unknown.
        total: All lesions; None without calcium.
        arteries: Arteries with calcium, by key.
        lesions: Lesions, in their order.
    """

    diseased_arteries: int | None
    diffusivity: float | None
    left_main: bool | None
    extent_score: int | None = None
    total: ArteryFeatures | None = None
    arteries: dict[str, ArteryFeatures] = field(default_factory=dict)
    lesions: tuple[LesionFeatures, ...] = ()

    @property
    def patient(self) -> dict[str, float | None]:
        """Values of PATIENT_FEATURES; None for what needs calcium, without any."""
        return {name: getattr(self, name, getattr(self.total, name, None)) for name in PATIENT_FEATURES}


_OF_ONE_ARTERY = ("mass_share", "first_mm", "last_mm", "calcified_share")
PATIENT_FEATURES = (
    *("diseased_arteries", "diffusivity", "left_main", "extent_score"),
    *(f.name for f in fields(ArteryFeatures) if f.name not in _OF_ONE_ARTERY),
)
"""Names of the features of a patient."""


ENHANCED_BLOOD_HU = 110.0
"""No unenhanced blood comes within 20 HU, one usual noise SD, of THRESHOLD_HU; enhanced scans start at about 150."""


@dataclass(frozen=True)
class BloodPool:
    """Blood and noise, measured in homogeneous windows of the heart's upper half.

    Attributes:
        median_hu: Median of the windows.
        bright_hu: 90th percentile, which also rises if only some chambers are enhanced.
        noise_hu: SD within a window.
        windows: Number of windows.
    """

    median_hu: float
    bright_hu: float
    noise_hu: float
    windows: int

    @property
    def enhanced(self) -> bool:
        return self.bright_hu >= ENHANCED_BLOOD_HU


@dataclass(frozen=True)
class Normalisation:
    """Measured kernel and slices of a scan, and their normalisation.

    Attributes:
        mode: One of `quality.normalisation.MODES`.
        sharpness: Mean MTF at 0.25 to 0.35 per mm; None if it could not be measured.
        limit: Sharpness above which the kernel is out of range.
        gain: Gain of the filter at multiples of step_per_mm, from one step on; at zero it is 1. Empty without a filter.
        step_per_mm: Step of the gain's frequencies.
        slice_weights: Weights of a slice and its neighbours, an odd number; empty if slices are not averaged.
        noise_hu: Noise in the heart before; None if nothing was done or it could not be measured.
    """

    mode: str
    sharpness: float | None
    limit: float
    gain: tuple[float, ...]
    step_per_mm: float
    slice_weights: tuple[float, ...]
    noise_hu: float | None = None

    @property
    def out_of_range(self) -> bool:
        return self.sharpness is not None and self.sharpness > self.limit

    @property
    def changes(self) -> bool:
        """True if the scan is scored otherwise than as it is."""
        return bool(self.gain or self.slice_weights)

    @property
    def in_words(self) -> str:
        """Description for a report."""
        measured = "not measured" if self.sharpness is None else f"MTF {self.sharpness:.2f} at 0.3/mm"
        if not self.changes:
            return f"{measured}; scored as it is"
        before = "" if self.noise_hu is None else f", noise {self.noise_hu:.0f} HU before"
        done = [*(["a soft kernel"] if self.gain else []), *(["slices of 3 mm"] if self.slice_weights else [])]
        return f"{measured}{before}; brought to {' and '.join(done)}"


@dataclass(frozen=True)
class Familiarity:
    """Distance of a scan from the calibration range.

    Attributes:
        distance: Largest excess over a range, in widths of its scale; 0 inside all ranges.
        causes: Facts that exceed their range, in words, the largest excess first.
        limit: Distance from which the scan is out of range.
    """

    distance: float
    causes: tuple[str, ...]
    limit: float

    @property
    def out_of_range(self) -> bool:
        return self.distance >= self.limit

    def flag(self, cause: str) -> Familiarity:
        """Return the rating of a scan that is out of range by a cause that has no range, such as metal."""
        return Familiarity(max(self.distance, self.limit), (cause, *self.causes), self.limit)

    @property
    def warnings(self) -> list[ScanWarning]:
        """Warnings about automatic scores of a scan with a distance, which a review does not remove."""
        if not self.distance:
            return []
        unlike = f"The scan is out of the calibration range of the models: {'; '.join(self.causes)}."
        if self.out_of_range:
            message = f"{unlike} Categories and intervals of automatic scores are withheld."
            return [ScanWarning("beyond-calibration", message)]
        return [
            ScanWarning("unlike-calibration", f"{unlike} Automatic scores are less certain; their intervals are wider.")
        ]


@dataclass(frozen=True)
class CalibratedOn:
    """Scans with reference scores that a model was calibrated on, in place of digital patients.

    Attributes:
        reference: Title of the scores' format.
        scans: Number of scans.
        patients: Number of patients.
        date: ISO 8601 date.
    """

    reference: str
    scans: int
    patients: int
    date: str

    def __str__(self) -> str:
        return f"{self.patients} patients with reference scores ({self.reference}, {self.date})"


@dataclass(frozen=True)
class MassCalibration:
    """Mass calibration of a scan.

    Attributes:
        source: "insert", "given", "dicom-patient", "dicom-device", "table" or "published".
        mg_per_cm3_per_hu: Density of hydroxyapatite, mg/cm³, per HU above the background.
        uncertainty_percent: Standard deviation; None if unknown.
        lateral_width_cm: Width of the body; None if not measured.
    """

    source: str
    mg_per_cm3_per_hu: float
    uncertainty_percent: float | None = None
    lateral_width_cm: float | None = None

    @property
    def of_scanner(self) -> bool:
        """True if it was made for this scan or scanner, so that the clinical mass may use it."""
        return self.source != "published"


@dataclass(frozen=True)
class EpicardialFat:
    """Fat within the pericardium.

    Attributes:
        volume_cm3: Volume.
        mean_hu: Mean attenuation before the median; None without fat.
        indexed_cm3_per_m2: Volume by body surface; None where the scan's header lacks height or weight.
        source: Network that outlined the pericardium, or "given".
    """

    volume_cm3: float
    mean_hu: float | None
    indexed_cm3_per_m2: float | None
    source: str

    @property
    def in_words(self) -> str:
        """One line, such as "Epicardial fat 98 cm³ (52 cm³/m²), −86 HU"."""
        index = "" if self.indexed_cm3_per_m2 is None else f" ({self.indexed_cm3_per_m2:.0f} cm³/m²)"
        attenuation = "" if self.mean_hu is None else f", {self.mean_hu:.0f} HU".replace("-", "−")
        return f"Epicardial fat {self.volume_cm3:.0f} cm³{index}{attenuation}"


@dataclass(frozen=True)
class Percentile:
    """Between which percentiles of a reference population a score lies; None where it is outside the table."""

    at_least: float | None
    below: float | None
    table: str

    def __str__(self) -> str:
        if self.at_least is None:
            return f"below percentile {self.below:g}"
        if self.below is None:
            return f"at or above percentile {self.at_least:g}"
        return f"from percentile {self.at_least:g} to below percentile {self.below:g}"


@dataclass(frozen=True)
class Categories:
    """Published classes of the clinical Agatston score.

    Attributes:
        method: Key of the method.
        status: Status of the score: "reviewed", "given" or "automatic".
        risk_class: One of `scoring.scores.RISK_CLASSES`.
        cac_drs: CAC-DRS category, as "A2/N3".
        arterial_age_years: Arterial age, years.
        percentile: Place of a reviewed score in the user's reference population; None if not asked for.
        probabilities: Probability of the categories "0", "1-99", "100-399" and "400+".
        probabilities_withheld: True if the score is too high for probabilities.
        rounding: Description of how scores are rounded for classes.
    """

    method: str
    status: str
    risk_class: str
    cac_drs: str
    arterial_age_years: float
    percentile: Percentile | None = None
    probabilities: dict[str, float] = field(default_factory=dict)
    probabilities_withheld: bool = False
    rounding: str = ""

    @property
    def in_words(self) -> str:
        """Classes with the limits that distinguish them from the categories of `probabilities`."""
        return f"Risk class {self.risk_class} (limits 0, 10, 100, 400), CAC-DRS {self.cac_drs} (A: limits 0, 99, 299)"
