"""Dense voxels in heart and territories, and what the lesion network answered about them: facts without a verdict."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..anatomy.territories import Territories
from ..core.labels import MAIN_ARTERIES
from ..record.scores import LesionSet


@dataclass(frozen=True)
class DenseVoxels:
    """Dense voxels in heart and territories.

    Attributes:
        flat: Indices into the scan's array, rising [n].
        sites: `Site` that each would belong to by its place, uint8 [n].
        places: Probability of each of TERRITORIES at each, float32 [n, 11]; no columns without territories.
    """

    flat: np.ndarray
    sites: np.ndarray
    places: np.ndarray

    @classmethod
    def of(cls, lesions: LesionSet, territories: Territories | None) -> DenseVoxels:
        """Return the voxels of lesions."""
        voxels = lesions.voxels
        sites = lesions.site_of_ids[voxels.ids]
        if territories is None:
            return cls(voxels.flat, sites, np.zeros((len(voxels.flat), 0), np.float32))
        return cls(voxels.flat, sites, territories.at(voxels.flat, voxels.shape))

    @property
    def arteries(self) -> np.ndarray:
        """Probability of the territory of each of MAIN_ARTERIES, float32 [n, 4]."""
        return self.places[:, 1 : 1 + len(MAIN_ARTERIES)]

    def where(self, selection: np.ndarray) -> DenseVoxels:
        """Return some of the voxels. selection: True for these, bool [n]."""
        return DenseVoxels(self.flat[selection], self.sites[selection], self.places[selection])


@dataclass(frozen=True)
class DenseAnswers:
    """The lesion network's answers, before any calibration.

    Attributes:
        voxels: Everything dense in heart and territories.
        is_asked: True for voxels that the network was asked about: those of possible lesions near arteries, bool [n].
        kinds: Probability of each of LESION_KINDS at each of these, float32 [asked, kinds].
    """

    voxels: DenseVoxels
    is_asked: np.ndarray
    kinds: np.ndarray
