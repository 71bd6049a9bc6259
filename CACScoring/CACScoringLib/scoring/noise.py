"""Telling when the noise of a scan makes its candidates meaningless."""

from __future__ import annotations

from ..core.ct import ScanWarning
from .acquisition import BloodPool
from .lesions import LesionSet

NOISE_REACH_SDS = 5.0
"""So far above the blood noise reaches by itself: one voxel in 3.5 million, as many as a heart has in a thin scan."""

NOISE_CANDIDATES = 20
"""More candidates of noise than this a reader would not reject one by one."""


def noise_warning(found: LesionSet, blood: BloodPool | None) -> list[ScanWarning]:
    """The severe doubt about candidates that noise alone explains, if these are many and most.

    A candidate is explained where its peak is no more than NOISE_REACH_SDS above the blood; the doubt is raised where
    more than NOISE_CANDIDATES and more than half of all are. Of 130 HU and blood of 40 HU this can only be from 18 HU
    of noise on. Nothing is said of enhanced blood, which is a candidate itself, or where blood was not measured.
    """
    if blood is None or blood.enhanced:
        return []
    reach = blood.median_hu + NOISE_REACH_SDS * blood.noise_hu
    count, total = sum(lesion.peak_hu <= reach for lesion in found.lesions), len(found.lesions)
    if count <= max(NOISE_CANDIDATES, total / 2):
        return []
    message = (
        f"{count} of {total} candidates are no denser than noise reaches by itself (up to {reach:.0f} HU in blood of "
        f"{blood.median_hu:.0f} HU with noise of {blood.noise_hu:.0f} HU): the candidates and their total say nothing "
        "about calcium. Reconstruct the scan with a softer kernel or thicker slices."
    )
    return [ScanWarning("noise-candidates", message)]
