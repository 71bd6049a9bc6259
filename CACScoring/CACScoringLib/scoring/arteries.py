"""Suggested artery of a lesion, from its place in the heart.

An atlas of the heart holds, for every place, how many lesions per 1000 patients lie there: in the left main, the
descending, the circumflex and the right artery, and elsewhere (aorta, valves, mitral annulus, nodes, pericardium).
Places are relative to the heart mask: 0 is its centre of mass and ±1 the edge of the ellipsoid with its second moments,
along the scan's axes. These survive both a tight mask and the generous region found from the lungs; the heart's long
axis would not (between the two masks it turned by 18° in the median of 40 digital patients). A suggestion is Bayes'
rule and no more: nothing but the place counts, so it is for a reader to confirm or to change.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from ..core.ct import CTError, MaskError
from ..core.files import parse_json, resource_folder
from ..core.labels import Artery
from ..models.preprocessing import ELLIPSOID_RADII_PER_SD, heart_moments
from .lesions import LesionSet

SCHEMA = "cac-artery-atlas/1"

SUGGESTED = (Artery.LM, Artery.LAD, Artery.LCX, Artery.RCA)
"""The first classes of an atlas, in its order; the last is what is not coronary."""

SECOND_ARTERY = 0.3
"""Probability above which an artery is named beside a likelier one, if that one's is above it too."""

LIMIT = 1.6
CELLS = 33
"""An atlas is a cube from -LIMIT to LIMIT heart radii with CELLS points along each axis, 0.1 radii (6 mm) apart."""


class AtlasError(CTError):
    """The atlas of the arteries is missing or damaged. The message says what to do."""


@dataclass(frozen=True)
class ArteryAtlas:
    """Distribution of lesions in the heart's frame.

    Attributes:
        log_rates: Natural logarithm of the lesions per 1000 patients and cell, for SUGGESTED and for what is not
            coronary, float32 [5, k, j, i]; k towards superior, j posterior, i left.
        provenance: Origin, for people.
    """

    log_rates: np.ndarray
    provenance: dict[str, object]


@dataclass(frozen=True)
class ArterySuggestion:
    """Suggested artery of a lesion.

    Attributes:
        lesion_id: ID of the lesion.
        artery: Likeliest of SUGGESTED.
        confidence: Probability of the artery if the lesion is coronary.
        not_coronary_probability: Probability that the lesion is not coronary, if it is calcium found by a threshold in
            the heart region. No atlas holds noise, bone and metal. In a calcium map, which holds less of what is not
            coronary, it is lower.
        evidence: Features that the probability was computed from, by name (`scoring.evidence`); empty for place alone.
        second: Another artery that is nearly as likely (SECOND_ARTERY); None if the artery is not doubtful.
    """

    lesion_id: int
    artery: Artery
    confidence: float
    not_coronary_probability: float
    evidence: Mapping[str, float] = field(default_factory=dict)
    second: Artery | None = None

    @property
    def arteries(self) -> str:
        """Name of the artery, or names of both likely ones, such as "LAD or LM"."""
        return self.artery.key if self.second is None else f"{self.artery.key} or {self.second.key}"


def suggest_arteries(
    lesions: LesionSet, image: sitk.Image, heart_mask: sitk.Image, atlas: ArteryAtlas | None = None
) -> list[ArterySuggestion]:
    """Suggest an artery for each lesion, in the lesions' order, from the place of all its voxels.

    Args:
        lesions: The lesions.
        image: The scan that the lesions were found in, with axes as in `CTScan`.
        heart_mask: 0 outside, on the image's grid, from whatever source.
        atlas: The atlas; None for the bundled one.

    Raises:
        MaskError: If mask or lesions are on another grid, or the mask is empty.
        AtlasError: The atlas cannot be read.
    """
    if lesions.shape != image.GetSize()[::-1]:
        shapes = f"{lesions.shape}, the scan {image.GetSize()[::-1]}"
        raise MaskError(f"The lesions were found in another scan: their map has the shape {shapes}.")
    centre_ijk, spread_ijk, _ = heart_moments(heart_mask, image)
    centre, radii = np.array(centre_ijk[::-1]), ELLIPSOID_RADII_PER_SD * np.array(spread_ijk[::-1])
    if not lesions.lesions:
        return []
    atlas = atlas or bundled_atlas()
    ids = lesions.voxel_ids
    places = (np.stack(np.unravel_index(lesions.flat, lesions.shape), axis=1) - centre) / radii
    rates = log_rates_at(atlas, places)
    # A lesion is one thing: the mean of its voxels' logarithms counts a large one no more often than a small one.
    sizes = np.bincount(ids)
    means = np.stack([np.bincount(ids, weights=rate) for rate in rates]) / np.maximum(sizes, 1)
    return [_suggestion(lesion.id, means[:, lesion.id]) for lesion in lesions.lesions]


def log_rates_at(atlas: ArteryAtlas, places: np.ndarray) -> np.ndarray:
    """Interpolate the atlas at places [n, 3] in the heart's frame (superior, posterior, left): float64 [5, n].

    Beyond the atlas its edge continues.
    """
    cells = (np.asarray(places, float).T + LIMIT) * (CELLS - 1) / (2 * LIMIT)
    return np.stack(
        [ndimage.map_coordinates(rates, cells, float, order=1, mode="nearest") for rates in atlas.log_rates]
    )


@lru_cache(maxsize=1)
def bundled_atlas() -> ArteryAtlas:
    """Return the atlas that comes with CAC. Raises AtlasError."""
    return read_atlas(resource_folder("Atlas") / "arteries.npz")


def read_atlas(path: Path) -> ArteryAtlas:
    """Read an atlas from one .npz file, a format that cannot run code. Raises AtlasError."""
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            log_rates = file["log_rates"].astype(np.float32)
            provenance = parse_json(str(file["provenance"]))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise AtlasError(f"The artery atlas {path} cannot be read ({error}). Install CAC again.") from error
    shape = (len(SUGGESTED) + 1, CELLS, CELLS, CELLS)
    if not isinstance(provenance, dict) or provenance.get("schema") != SCHEMA:
        raise AtlasError(f"The artery atlas {path} is not of schema {SCHEMA}. Install CAC again.")
    if log_rates.shape != shape or not np.isfinite(log_rates).all():
        raise AtlasError(f"The artery atlas {path} does not hold finite numbers of shape {shape}. Install CAC again.")
    return ArteryAtlas(log_rates, provenance)


def second_artery(probabilities: np.ndarray, artery: Artery) -> Artery | None:
    """Return the artery beside a suggested one if both are likely (SECOND_ARTERY).

    probabilities: Of each of SUGGESTED, [4].
    """
    likely = [SUGGESTED[n] for n in np.argsort(-probabilities) if probabilities[n] > SECOND_ARTERY]
    return next((name for name in likely if name != artery), None) if artery in likely else None


def _suggestion(lesion_id: int, log_rates: np.ndarray) -> ArterySuggestion:
    rates = np.exp(log_rates - log_rates.max())
    coronary = rates[:-1] / rates[:-1].sum()
    best = int(coronary.argmax())
    not_coronary, second = float(rates[-1] / rates.sum()), second_artery(coronary, SUGGESTED[best])
    return ArterySuggestion(lesion_id, SUGGESTED[best], float(coronary[best]), not_coronary, second=second)
