"""Radiomic features of CTs by name, made once."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from CACScoringLib.anatomy.heart_region import HeartRegion
from CACScoringLib.core.ct import CTScan
from CACScoringLib.core.progress import Progress
from CACScoringLib.networks.radiomics import RadiomicsConfig
from CACScoringLib.whole_scan import radiomic_texture, radiomics
from CACScoringLib.whole_scan.radiomics import PSEUDO_FEATURE, pseudo_label

from ...data.scan_table import TableScan
from ..prepared import load, prepare

FEATURE_SETS: dict[str, tuple[str, ...]] = {
    "both": (radiomics.HEART, radiomics.CANDIDATE),
    "heart": (radiomics.HEART,),
    "candidates": (radiomics.CANDIDATE,),
}
"""Beginnings of the names of the features of each set."""

HEART_ML = "heart_volume_ml"


@dataclass(frozen=True)
class FeatureTable:
    """scans: n of them. names: of the features, f of them. values: float64 [n, f]."""

    scans: tuple[TableScan, ...]
    names: tuple[str, ...]
    values: np.ndarray

    @property
    def patients(self) -> np.ndarray:
        return np.array([scan.patient for scan in self.scans])

    @property
    def truth(self) -> np.ndarray:
        """True where there is any coronary calcium: bool [n]."""
        return np.array([scan.total > 0 for scan in self.scans], bool)

    @property
    def pseudo_labels(self) -> np.ndarray:
        """`radiomics.pseudo_label` of each scan: bool [n]."""
        return np.array([pseudo_label({PSEUDO_FEATURE: value}) for value in self.columns([PSEUDO_FEATURE])[:, 0]], bool)

    def rows(self, keep: Sequence[int] | np.ndarray) -> FeatureTable:
        """The table of some of the scans, by index."""
        keep = np.asarray(keep, int)
        return FeatureTable(tuple(self.scans[n] for n in keep), self.names, self.values[keep])

    def without(self, patients: Sequence[str]) -> FeatureTable:
        """The table without the scans of some patients."""
        return self.rows(np.flatnonzero(~np.isin(self.patients, patients)))

    def joined(self, other: FeatureTable | None) -> FeatureTable:
        """Both tables, one below the other."""
        if other is None:
            return self
        values = np.concatenate([self.values, other.columns(self.names)])
        return FeatureTable(self.scans + other.scans, self.names, values)

    def of_set(self, name: str) -> list[str]:
        """Names of the features of a set of FEATURE_SETS."""
        return [feature for feature in self.names if feature.startswith(FEATURE_SETS[name])]

    def columns(self, names: Sequence[str]) -> np.ndarray:
        """Values of some of the features, [n, f]."""
        return self.values[:, [self.names.index(name) for name in names]]


def features_of(
    scans: Sequence[TableScan], folder: Path, workers: int | None = None, progress: Progress | None = None
) -> tuple[FeatureTable, dict[str, str]]:
    """Radiomic features of the scans in the order given, and why scans were left out, by name.

    folder: Where features are kept (`prepared.prepare`); made before, they are not made again. Raises CTError where no
    scan can be prepared.
    """
    key = f"{RadiomicsConfig()!r} {_source_digest()}"
    prepared = prepare(scans, folder, "radiomics", radiomics_work, key, workers, progress)
    used = tuple(scan for scan in scans if scan.name in prepared.files)
    arrays = [load(prepared.files[scan.name]) for scan in used]
    names = tuple(map(str, arrays[0]["names"]))
    return FeatureTable(used, names, np.array([one["values"] for one in arrays], float)), prepared.failed


def radiomics_work(scan: CTScan, region: HeartRegion) -> dict[str, np.ndarray]:
    """`radiomics.radiomic_features` as arrays, for `prepared.prepare`."""
    features = radiomics.radiomic_features(scan, region, RadiomicsConfig())
    return {"names": np.array(list(features)), "values": np.array(list(features.values()), float)}


def _source_digest() -> str:
    """Digest of the sources that make radiomic features: changed, they are made anew."""
    sources = b"".join(Path(module.__file__).read_bytes() for module in (radiomics, radiomic_texture))
    return hashlib.sha256(sources).hexdigest()[:16]
