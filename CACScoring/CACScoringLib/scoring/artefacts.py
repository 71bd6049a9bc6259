"""Doubts about dense lesions that may be no calcium: metal, and noise."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..core.ct import ScanWarning
from ..core.text import abbreviated_list
from ..record.findings import BloodPool
from ..record.scores import Lesion, MethodScore

METAL_HU = 2000.0
"""Calcium does not get this dense in a CT of the chest; stents, leads, clips and wires do."""

POSSIBLE_METAL_HU = 1300.0
"""Peak above which a lesion may be metal: of 828 coronary lesions of digital patients 2 exceed it, of 109 clips 52."""

NOISE_REACH_SDS = 5.0
"""Noise SDs above blood that noise alone reaches in one voxel of 3.5 million, as many as a heart has in a thin scan."""

NOISE_CANDIDATES = 20
"""Candidates of noise that a reader would still reject singly."""


def dense_warning(lesions: Sequence[Lesion]) -> list[ScanWarning]:
    """Warn, severely, of lesions that count although they are denser than nearly all calcium."""
    dense = [lesion for lesion in lesions if lesion.peak_hu > POSSIBLE_METAL_HU]
    if not dense:
        return []
    ids = abbreviated_list(str(lesion.id) for lesion in dense)
    message = (
        f"{len(dense)} of {len(lesions)} counted lesions peak above {POSSIBLE_METAL_HU:g} HU, as clips, stents "
        f"and wires do and calcium hardly ever does (lesion {ids}; up to {max(x.peak_hu for x in dense):.0f} HU)."
    )
    return [ScanWarning("possible-metal", message)]


def noise_warnings(method: MethodScore, blood: BloodPool | None) -> Iterator[ScanWarning]:
    """Warn if noise alone explains many and most lesions; severely of those of the arteries.

    A lesion is explained where its peak is no more than NOISE_REACH_SDS above the blood; the doubt is raised where more
    than NOISE_CANDIDATES and more than half of all are. Of 130 HU and blood of 40 HU this can only be from 18 HU of
    noise on. Nothing is said of enhanced blood, which is a candidate itself, or where blood was not measured.

    Args:
        method: Clinical score that nobody has reviewed.
        blood: Blood and noise; None if not measured.
    """
    if blood is None or blood.enhanced:
        return
    reach = blood.median_hu + NOISE_REACH_SDS * blood.noise_hu

    def explained(lesions: Sequence[Lesion], words: str) -> str:
        count, total = sum(lesion.peak_hu <= reach for lesion in lesions), len(lesions)
        if count <= max(NOISE_CANDIDATES, total / 2):
            return ""
        return (
            f"{count} of {total} {words} are no denser than noise alone can be (up to {reach:.0f} HU in blood of "
            f"{blood.median_hu:.0f} HU with noise of {blood.noise_hu:.0f} HU), so their total proves no calcium."
        )

    if message := explained(method.lesions, "candidates"):
        advice = "Reconstruct the scan with a softer kernel or thicker slices."
        yield ScanWarning("noise-candidates", f"{message} {advice}")
    elsewhere = () if method.non_coronary is None else method.non_coronary.lesion_list
    if message := explained(elsewhere, "lesions outside the coronary arteries"):
        yield ScanWarning("noise-elsewhere", message)
