"""Features of calcium by lesion, artery and patient; `scoring.features` measures them, `scores.json` holds them."""

from __future__ import annotations

from dataclasses import dataclass, field, fields


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
    """

    mass_share: float
    proximal_share: float | None = None
    largest_lesion_mm3: float
    first_mm: float | None = None
    last_mm: float | None = None


@dataclass(frozen=True)
class Features:
    """Features of the lesions of a method.

    Attributes:
        diseased_arteries: Number of LM, LAD, LCX and RCA with calcium; None if lesions are not assigned, as of the
            next two.
        diffusivity: 1 − the Agatston share of the most diseased artery (Blaha 2016, doi:10.1016/j.jcmg.2016.03.001);
            None without calcium.
        left_main: True for calcium in the left main.
        total: All lesions; None without calcium.
        arteries: Arteries with calcium, by key.
        lesions: Lesions, in their order.
    """

    diseased_arteries: int | None
    diffusivity: float | None
    left_main: bool | None
    total: ArteryFeatures | None = None
    arteries: dict[str, ArteryFeatures] = field(default_factory=dict)
    lesions: tuple[LesionFeatures, ...] = ()

    @property
    def patient(self) -> dict[str, float | None]:
        """Values of PATIENT_FEATURES; None for what needs calcium, without any."""
        return {name: getattr(self, name, getattr(self.total, name, None)) for name in PATIENT_FEATURES}


PATIENT_FEATURES = (
    *("diseased_arteries", "diffusivity", "left_main"),
    *(f.name for f in fields(ArteryFeatures) if f.name not in ("mass_share", "first_mm", "last_mm")),
)
"""Names of the features of a patient."""
