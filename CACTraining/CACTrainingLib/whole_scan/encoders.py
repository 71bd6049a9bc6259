"""Features of CTs by kind, made once: radiomics, and what encoders see, this project's and others'."""

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
from CACScoringLib.models.preprocessing import (
    MAX_NEIGHBOURS,
    TERRITORY_PATCH,
    TERRITORY_SPACING_MM,
    heart_slices,
    on_grid,
    slice_input,
    territory_input,
)

from ..data.scan_table import TableScan
from .prepared import load, prepare

if TYPE_CHECKING:
    import torch

    from CACScoringLib.networks.radiomics import RadiomicsConfig

FEATURES = {
    "both": "Radiomics of heart and candidates",
    "heart": "Radiomics of the heart",
    "candidates": "Radiomics of the candidates",
    "own": "CAC's own networks",
    "ct-fm": "CT-FM",
    "radimagenet": "RadImageNet",
}
FROM_FILES = ("ct-fm", "radimagenet")
"""Kinds whose weights the user gives."""

CT_FM_MM = (1.0, 1.0, 3.0)
"""Voxels (i, j, k) that CT-FM is shown; it learned from such."""

SLICES_AT_ONCE = 8
_BEGINNINGS = {"heart": ("heart_",), "candidates": ("candidate_",), "both": ("heart_", "candidate_")}
_STRIDE = 16
"""Sides of CT-FM's input are multiples of it."""


@dataclass(frozen=True)
class FeatureTable:
    """scans: names, n of them. features: names, f of them. values: float64 [n, f]."""

    scans: tuple[str, ...]
    features: tuple[str, ...]
    values: np.ndarray


def features_of(
    scans: Sequence[TableScan],
    folder: Path,
    kinds: Sequence[str],
    files: Mapping[str, Path] | None = None,
    workers: int | None = None,
    device: str = "cpu",
    progress: Progress | None = None,
    config: RadiomicsConfig | None = None,
) -> tuple[dict[str, FeatureTable], dict[str, str]]:
    """Tables by kind, all of the same scans in the order given, and why the others were left out, by name.

    folder: where they are kept (`prepared.prepare`); made before, they are not made again. kinds: of FEATURES. files:
    weights by kind, of FROM_FILES. device: of the encoders, "cpu" or "cuda". config: of radiomics. Raises CTError where
    no scan can be prepared, EncoderError or PretrainedError where a file is missing or another network's.
    """
    works = {}
    for kind in kinds:
        if kind not in FEATURES:
            raise ValueError(f"{kind!r} is not a kind of features; choose one of {', '.join(FEATURES)}.")
        works.setdefault("radiomics" if kind in _BEGINNINGS else kind, _work_of(kind, files or {}, device, config))
    failed: dict[str, str] = {}
    made = {}
    for name, (work, key) in works.items():
        prepared = prepare(scans, folder, name, work, key, workers, progress)
        failed |= {scan: f"{name}: {reason}" for scan, reason in prepared.failed.items() if scan not in failed}
        made[name] = prepared.files
    kept = [scan.name for scan in scans if scan.name not in failed]
    tables = {}
    for name, found in made.items():
        arrays = [load(found[scan]) for scan in kept]
        titles = tuple(map(str, arrays[0]["names"])) if arrays else ()
        values = np.array([one["values"] for one in arrays], float).reshape(len(kept), len(titles))
        if name != "radiomics":
            tables[name] = FeatureTable(tuple(kept), titles, values)
            continue
        for kind in set(kinds) & set(_BEGINNINGS):
            own = [n for n, title in enumerate(titles) if title.startswith(_BEGINNINGS[kind])]
            tables[kind] = FeatureTable(tuple(kept), tuple(titles[n] for n in own), values[:, own])
    return {kind: tables[kind] for kind in kinds}, failed


def radiomics_work(scan: CTScan, region: HeartRegion, config: RadiomicsConfig | None = None) -> dict[str, np.ndarray]:
    """`radiomics.radiomic_features` as arrays, for `prepared.prepare`."""
    from CACScoringLib.whole_scan.radiomics import radiomic_features

    return _arrays(radiomic_features(scan, region, config))


def own_work(scan: CTScan, region: HeartRegion, device: str = "cpu") -> dict[str, np.ndarray]:
    """What the bundled networks' deepest features are in the heart, mean and highest.

    Of the slice classifier over all slices of the heart (its answer for each slice too), and of the territories'
    network over the heart.
    """
    import torch

    slices_network, config, territories_network = _own_networks(device)
    slices = heart_slices(scan.image, region.mask)
    means, highest, logits = [], [], []
    with torch.inference_mode():
        for start in range(0, len(slices), SLICES_AT_ONCE):
            chosen = np.arange(start, min(start + SLICES_AT_ONCE, len(slices)))
            x = torch.from_numpy(slice_input(slices, chosen, config.neighbours, config.position, config.size))
            z, features = slices_network(x.to(device), logits=True, features=True)
            means.append(features.mean((2, 3)))
            highest.append(features.amax((2, 3)))
            logits.append(z[:, 1] - z[:, 0])
        mean, high, logit = torch.cat(means).mean(0), torch.cat(highest).amax(0), torch.cat(logits)
        x, inside = _heart_box(scan, region)
        deep = territories_network.features(torch.from_numpy(x).to(device))[-1][0]
        within = torch.from_numpy(inside).to(device)
        found = {
            **_numbered("slices_mean", mean),
            **_numbered("slices_highest", high),
            "slices_logit_mean": float(logit.mean()),
            "slices_logit_highest": float(logit.amax()),
            **_numbered("heart_mean", deep[:, within].mean(1)),
            **_numbered("heart_highest", deep[:, within].amax(1)),
        }
    return _arrays(found)


def file_work(scan: CTScan, region: HeartRegion, kind: str, file: Path, device: str = "cpu") -> dict[str, np.ndarray]:
    """What an encoder from a file sees of the heart: CT-FM of the box around it, RadImageNet of its slices, mean and
    highest over every second one of the slice networks' grid (3 mm apart, 224 × 224 mm)."""
    import torch

    encoder = _encoder(kind, file, device)
    with torch.inference_mode():
        if kind == "ct-fm":
            return _arrays(_numbered("ct_fm", encoder(torch.from_numpy(_ct_fm_box(scan, region)).to(device))[0]))
        slices = heart_slices(scan.image, region.mask)
        hu = slices.hu[MAX_NEIGHBOURS : MAX_NEIGHBOURS + len(slices) : 2]
        parts = [hu[n : n + SLICES_AT_ONCE] for n in range(0, len(hu), SLICES_AT_ONCE)]
        found = torch.cat([encoder(torch.from_numpy(part).to(device)) for part in parts])
        return _arrays({**_numbered("mean", found.mean(0)), **_numbered("highest", found.amax(0))})


def _work_of(kind: str, files: Mapping[str, Path], device: str, config: RadiomicsConfig | None) -> tuple:
    """What `prepare` does, and what it depends on."""
    if kind in _BEGINNINGS:
        from CACScoringLib.networks.radiomics import RadiomicsConfig
        from CACScoringLib.whole_scan import radiomic_texture, radiomics

        config = config or RadiomicsConfig()
        return partial(radiomics_work, config=config), f"{config!r} {_stamp(radiomics, radiomic_texture)}"
    from CACScoringLib.models.cards import find_model

    if kind == "own":
        hashes = " ".join(find_model(name).card.sha256 for name in ("slices", "territories"))
        return partial(own_work, device=device), f"2 {hashes}"
    from .encoder_files import EncoderError, load_encoder

    if kind not in files:
        raise EncoderError(f"The weights of {FEATURES[kind]} are missing. Give their file.")
    file = Path(files[kind])
    load_encoder(kind, file)  # so that a wrong file is told before every scan fails
    return partial(file_work, kind=kind, file=file, device=device), f"1 {hashlib.sha256(file.read_bytes()).hexdigest()}"


def _stamp(*modules: object) -> str:
    """Of the sources that make features: changed, they are made anew."""
    sources = b"".join(Path(module.__file__).read_bytes() for module in modules)
    return hashlib.sha256(sources).hexdigest()[:16]


def _arrays(found: Mapping[str, float]) -> dict[str, np.ndarray]:
    return {"names": np.array(list(found)), "values": np.array(list(found.values()), float)}


def _numbered(name: str, values: torch.Tensor) -> dict[str, float]:
    return {f"{name}_{n}": float(value) for n, value in enumerate(values.float().cpu())}


@lru_cache(maxsize=1)
def _own_networks(device: str) -> tuple:
    """Slice classifier, its configuration, and the territories' network: as trained, in single precision, whatever the
    processor could do faster."""
    from CACScoringLib.models.cards import find_model, read_network
    from CACScoringLib.networks.van_velzen import SliceClassifierConfig

    card, slices = read_network(find_model("slices").path)
    _, territories = read_network(find_model("territories").path)
    return slices.eval().to(device), SliceClassifierConfig(**card.config), territories.eval().to(device)


@lru_cache(maxsize=1)
def _encoder(kind: str, file: Path, device: str) -> torch.nn.Module:
    from .encoder_files import load_encoder

    return load_encoder(kind, file).to(device)


def _heart_box(scan: CTScan, region: HeartRegion) -> tuple[np.ndarray, np.ndarray]:
    """The patch around the heart as the territories' network sees it, [1, 2, k, j, i]; and where the heart is on an
    eighth of that grid, bool."""
    from CACScoringLib.networks.territories import STRIDE
    from CACScoringLib.whole_scan.radiomics import grid_around

    grid = grid_around(scan.image, region.mask, TERRITORY_SPACING_MM, TERRITORY_PATCH)
    x = territory_input(on_grid(scan.image, grid, float(AIR_HU)))
    inside = on_grid(region.mask != 0, grid, 0.0)
    coarse = inside.reshape(*(m for n in inside.shape for m in (n // STRIDE, STRIDE))).mean((1, 3, 5))
    return x[None], coarse >= min(0.5, coarse.max())


def _ct_fm_box(scan: CTScan, region: HeartRegion) -> np.ndarray:
    """The heart's box in HU, [1, 1, k, j, i]."""
    from CACScoringLib.whole_scan.radiomics import grid_around

    grid = grid_around(scan.image, region.mask, CT_FM_MM, _STRIDE)
    return on_grid(scan.image, grid, float(AIR_HU))[None, None]
