"""Features of CTs by name, made once: radiomics, and what encoders from the user's files see of the heart."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from CACScoringLib.anatomy.heart_region import HeartRegion
from CACScoringLib.core.ct import AIR_HU, CTScan
from CACScoringLib.core.progress import Progress
from CACScoringLib.models.preprocessing import MAX_NEIGHBOURS, heart_slices, on_grid
from CACScoringLib.networks.radiomics import RadiomicsConfig
from CACScoringLib.whole_scan import radiomic_texture, radiomics
from CACScoringLib.whole_scan.radiomics import PSEUDO_FEATURE, pseudo_label

from ...data.scan_table import TableScan
from ..prepared import Work, load, prepare
from .encoders import load_encoder

if TYPE_CHECKING:
    import torch

BEGINNINGS: dict[str, tuple[str, ...]] = {
    "both": (radiomics.HEART, radiomics.CANDIDATE),
    "heart": (radiomics.HEART,),
    "candidates": (radiomics.CANDIDATE,),
    "ct-fm": ("ct-fm_",),
    "radimagenet": ("radimagenet_",),
}
"""Beginnings of the names of the features of each set."""

RADIOMICS = ("both", "heart", "candidates")

HEART_ML = "heart_volume_ml"

CT_FM_MM = (1.0, 1.0, 3.0)
"""Voxels (i, j, k) that CT-FM is shown; it learned from such."""

CT_FM_MULTIPLE = 16
"""Sides of CT-FM's input are multiples of it."""

SLICES_AT_ONCE = 8


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
        """Names of the features of a set of BEGINNINGS."""
        return [feature for feature in self.names if feature.startswith(BEGINNINGS[name])]

    def columns(self, names: Sequence[str]) -> np.ndarray:
        """Values of some of the features, [n, f]."""
        return self.values[:, [self.names.index(name) for name in names]]


def features_of(
    scans: Sequence[TableScan],
    folder: Path,
    encoders: Mapping[str, Path] | None = None,
    workers: int | None = None,
    device: str = "cpu",
    progress: Progress | None = None,
) -> tuple[FeatureTable, dict[str, str]]:
    """Features of the scans in the order given, and why scans were left out, by name.

    Args:
        scans: Of a table.
        folder: Where features are kept (`prepared.prepare`); made before, they are not made again.
        encoders: Files of weights, by "ct-fm" or "radimagenet".
        workers: Processes.
        device: Of the encoders, "cpu" or "cuda".
        progress: Is told of each scan.

    Raises:
        CTError: No scan can be prepared.
        EncoderError: A file is missing or another network's.
        PretrainedError: A file is no file of weights.
    """
    works: dict[str, tuple[Work, str]] = {"radiomics": (radiomics_work, f"{RadiomicsConfig()!r} {_source_digest()}")}
    for kind, file in (encoders or {}).items():
        load_encoder(kind, file)  # so that a wrong file is reported before every scan fails
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        works[kind] = (partial(encoder_work, kind=kind, file=file, device=device), f"1 {digest}")
    failed: dict[str, str] = {}
    prepared = {}
    for kind, (work, key) in works.items():
        found = prepare(scans, folder, kind, work, key, workers, progress)
        failed = {name: f"{kind}: {reason}" for name, reason in found.failed.items()} | failed
        prepared[kind] = found.files
    used = [scan for scan in scans if scan.name not in failed]
    names, parts = [], []
    for kind, files in prepared.items():
        arrays = [load(files[scan.name]) for scan in used]
        titles = [str(name) for name in arrays[0]["names"]] if arrays else []
        names += titles if kind == "radiomics" else [f"{kind}_{title}" for title in titles]
        parts.append(np.array([one["values"] for one in arrays], float).reshape(len(used), len(titles)))
    return FeatureTable(tuple(used), tuple(names), np.concatenate(parts, 1)), failed


def radiomics_work(scan: CTScan, region: HeartRegion) -> dict[str, np.ndarray]:
    """`radiomics.radiomic_features` as arrays, for `prepared.prepare`."""
    return _arrays(radiomics.radiomic_features(scan, region, RadiomicsConfig()))


def encoder_work(
    scan: CTScan, region: HeartRegion, kind: str, file: Path, device: str = "cpu"
) -> dict[str, np.ndarray]:
    """What an encoder sees of the heart: CT-FM of the box around it, RadImageNet of its slices, mean and highest over
    every second one of the slice networks' grid (3 mm apart, 224 × 224 mm)."""
    import torch

    encoder = _encoder(kind, file, device)
    with torch.inference_mode():
        if kind == "ct-fm":
            grid = radiomics.grid_around(scan.image, region.mask, CT_FM_MM, CT_FM_MULTIPLE)
            box = on_grid(scan.image, grid, float(AIR_HU))[None, None]
            return _arrays(_numbered("mean", encoder(torch.from_numpy(box).to(device))[0]))
        slices = heart_slices(scan.image, region.mask)
        hu = slices.hu[MAX_NEIGHBOURS : MAX_NEIGHBOURS + len(slices) : 2]
        parts = [hu[n : n + SLICES_AT_ONCE] for n in range(0, len(hu), SLICES_AT_ONCE)]
        values = torch.cat([encoder(torch.from_numpy(part).to(device)) for part in parts])
        return _arrays({**_numbered("mean", values.mean(0)), **_numbered("highest", values.amax(0))})


def _source_digest() -> str:
    """Digest of the sources that make radiomic features: changed, they are made anew."""
    sources = b"".join(Path(module.__file__).read_bytes() for module in (radiomics, radiomic_texture))
    return hashlib.sha256(sources).hexdigest()[:16]


def _arrays(features: Mapping[str, float]) -> dict[str, np.ndarray]:
    return {"names": np.array(list(features)), "values": np.array(list(features.values()), float)}


def _numbered(name: str, values: torch.Tensor) -> dict[str, float]:
    return {f"{name}_{n}": float(value) for n, value in enumerate(values.float().cpu())}


@lru_cache(maxsize=1)
def _encoder(kind: str, file: Path, device: str) -> torch.nn.Module:
    return load_encoder(kind, file).to(device)
