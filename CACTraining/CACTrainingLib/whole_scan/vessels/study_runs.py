"""One training of the study of vessel regression, in a process of its own: what it predicts, and its saliency."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from CACScoringLib.anatomy.heart_region import HeartRegion
from CACScoringLib.core.ct import AIR_HU, CTScan
from CACScoringLib.core.files import whole

from ...experiments.engine import running_folder
from ...experiments.jobs import Prepared
from ...training.run_folder import TrainingError
from ..prepared import load
from .configurations import Configuration, VesselBudget, VesselRun, run_key

if TYPE_CHECKING:
    from CACScoringLib.networks.vessels import VesselNet, VesselNetConfig

    from .fitting import FitSettings, VesselFit

REGIONS = ("near calcium", "heart", "bone", "elsewhere")
"""Where saliency can lie: within NEAR_MM of true coronary calcium, in the rest of the heart, in bone outside it."""

NEAR_MM = 5.0
BONE_HU = 200.0
CALCIUM_SHARE = 0.2
"""Of a voxel of the input, from which on it counts as calcium: less spills over from its neighbours."""

PICTURES, PICTURED = "looked_at", 3
"""Folder of the slices that are shown of each network, and of how many patients."""


@dataclass(frozen=True)
class SaliencyPatient:
    """A patient whose saliency is looked at. regions: by field (`field_of`), as prepared by `input_regions`. calcium:
    mask of the true coronary calcium, on the scan's grid.
    """

    name: str
    regions: Mapping[str, Path]
    calcium: Path


@dataclass(frozen=True)
class Data:
    """inputs: prepared scans by field (`field_of`) and name, others among them. agatston: of those that are learned
    from, by ARTERIES. folds: names learned from and validated by. test: names held out. noncoronary_controls: names of
    patients whose calcium lies elsewhere, as in `inputs`. folder: of the study.
    """

    inputs: Mapping[str, Mapping[str, Path]]
    agatston: Mapping[str, tuple[float, ...]]
    folds: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...]
    test: tuple[str, ...]
    noncoronary_controls: tuple[str, ...]
    saliency_patients: tuple[SaliencyPatient, ...]
    folder: Path
    device: str = "cpu"


def config_of(configuration: Configuration, preset: str) -> VesselNetConfig:
    """The network of a configuration."""
    from .fitting import fit_settings

    config = fit_settings(preset, configuration.kind, configuration.output).config
    return replace(config, pooling=configuration.pooling) if configuration.kind in ("cnn", "se-cnn") else config


def field_of(config: VesselNetConfig) -> str:
    """Stands for all that a network's input depends on, beside the scan."""
    parts = (config.field, config.slices, config.size)
    if config.field == "heart":
        parts += (config.field_mm, config.slice_mm, config.around_mm, config.low_hu, config.high_hu)
    return " ".join(map(str, parts))


def input_regions(scan: CTScan, region: HeartRegion, config: VesselNetConfig) -> dict[str, np.ndarray]:
    """Where what lies in the input of a network; work of `prepared.prepare`.

    "regions": uint8 [slices, size, size], numbers in REGIONS, as far as they are known without the truth. "grid": float
    [2, 3], first voxel and step of the input in the voxel coordinates of the scan turned to LPS.
    """
    import SimpleITK as sitk

    from CACScoringLib.models.preprocessing import on_grid
    from CACScoringLib.whole_scan.vessel_input import vessel_grid

    image, mask = (sitk.DICOMOrient(one, "LPS") for one in (scan.image, region.mask))
    grid = vessel_grid(image, mask, config)
    middles = grid.first[2] + grid.step[2] * np.arange(grid.size[2])
    scanned = ((middles >= -0.5) & (middles <= image.GetDepth() - 0.5))[:, None, None]
    regions = np.full(grid.size[::-1], REGIONS.index("elsewhere"), np.uint8)
    regions[(on_grid(image, grid, AIR_HU) > BONE_HU) & scanned] = REGIONS.index("bone")
    regions[(on_grid(mask != 0, grid, 0.0) >= 0.5) & scanned] = REGIONS.index("heart")
    return {"regions": regions, "grid": np.array([grid.first, grid.step])}


def with_calcium(prepared: Mapping[str, np.ndarray], calcium: Path, spacing_mm: Sequence[float]) -> np.ndarray:
    """The regions of `input_regions` with those near true calcium. spacing_mm: of the input's voxels, [k, j, i]."""
    import SimpleITK as sitk
    from scipy import ndimage

    from CACScoringLib.io.reading import read_mask
    from CACScoringLib.models.preprocessing import Grid, on_grid

    regions = prepared["regions"].copy()
    first, step = (tuple(float(x) for x in line) for line in prepared["grid"])
    mask = sitk.DICOMOrient(read_mask(calcium), "LPS") != 0
    there = on_grid(mask, Grid(first, step, regions.shape[::-1]), 0.0) > CALCIUM_SHARE
    if there.any():
        near = ndimage.distance_transform_edt(~there, spacing_mm) <= NEAR_MM
        regions[near] = REGIONS.index("near calcium")
    return regions


def fit_settings_of(configuration: Configuration, budget: VesselBudget, device: str) -> FitSettings:
    """A configuration as the settings of its training."""
    from .fitting import fit_settings

    found = fit_settings(budget.preset, configuration.kind, configuration.output, device)
    training = found.training
    training = replace(training, loop=replace(training.loop, seed=budget.seed))
    if budget.steps is not None:
        training = replace(training, loop=replace(training.loop, steps=budget.steps))
    if configuration.rates is not None:
        training = replace(training, learning_rate=configuration.rates[0], weight_decay=configuration.rates[1])
    if not configuration.augmented:
        training = replace(training, augmentation=None)
    return replace(found, config=config_of(configuration, budget.preset), training=training)


def trainer(data: Data, budget: VesselBudget) -> Prepared:
    """What does a run: trains, and returns what the study keeps of it. Each process works on one core."""
    import torch

    torch.set_num_threads(1)
    return _Trainer(data, budget)


@dataclass(frozen=True)
class _Trainer:
    data: Data
    budget: VesselBudget

    def __call__(self, run: VesselRun) -> dict:
        try:
            return self._done(run)
        except TrainingError as error:
            if not run.grid:
                raise
            return {"fold": run.fold, "useless": str(error)}  # so that the grid can be whole without these rates

    def _done(self, run: VesselRun) -> dict:
        from .fitting import fit_vessels

        data, configuration = self.data, run.configuration
        settings = fit_settings_of(configuration, self.budget, data.device)
        files = data.inputs[field_of(settings.config)]
        training, validation = data.folds[run.fold]
        targets = {name: np.asarray(scores) for name, scores in data.agatston.items()}
        key = run_key(run, self.budget, str(sorted(files.items())))
        with running_folder(data.folder, f"{configuration.name}-{run.fold}", key) as folder:
            fitted = fit_vessels(files, targets, training, validation, settings, folder)
            network = fitted.network
            parts = {"training": training, "validation": validation}
            if run.evaluated:
                parts |= {"test": data.test, "others": data.noncoronary_controls}
            kept = {
                **{name: _predicted(network, files, names) for name, names in parts.items() if names},
                "fold": run.fold,
                "curves": _curves(fitted),
                "seconds": float(fitted.seconds),
                "steps": int(fitted.steps),
                "best_step": int(fitted.best_step),
                "weights": sum(p.numel() for p in network.parameters()),
                "largest": float(fitted.largest),
            }
            if run.saliency:
                kept["saliency"] = self._saliency(configuration, network, files)
                kept["slice_weights"] = _slice_weights(network, files, data.test)
        return kept

    def _saliency(self, configuration: Configuration, network: VesselNet, files: Mapping[str, Path]) -> dict | None:
        """Proportion of the saliency, and of the volume, in each of REGIONS, by patient; pictures of the first few."""
        from CACScoringLib.whole_scan.vessels import saliency

        config = network.config
        spacing = (config.slice_mm, *[config.field_mm / config.size] * 2)
        names, proportions, volumes, pictures = [], [], [], {}
        for patient in self.data.saliency_patients:
            x = load(files[patient.name])["input"].astype(np.float32)
            found = np.abs(saliency(network, x))
            if not found.sum() > 0:
                continue
            prepared = load(patient.regions[field_of(config)])
            if config.field == "scan":  # whose pixels are as large as the scanner made them
                spacing = _spacing_mm(patient.calcium, prepared["grid"])
            regions = with_calcium(prepared, patient.calcium, spacing)
            if len(names) < PICTURED:
                k = int((regions == 0).sum((1, 2)).argmax())
                pictures |= _picture(len(names), k, x[k], found[k] / found.max(), regions[k] == 0)
            each = [regions == n for n in range(len(REGIONS))]
            names.append(patient.name)
            proportions.append([float(found[one].sum() / found.sum()) for one in each])
            volumes.append([float(one.mean()) for one in each])
        if not names:
            return None
        write_arrays(self.data.folder / PICTURES / f"{configuration.name}.npz", pictures)
        return {"names": names, "shares": proportions, "volumes": volumes}


def write_arrays(file: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write a file of arrays, whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with whole(file) as half:
        np.savez_compressed(half, **arrays)


def _predicted(network: VesselNet, files: Mapping[str, Path], names: Sequence[str]) -> dict:
    from .fitting import predictions_of

    scores = predictions_of(network, files, names)
    if not np.isfinite(scores).all():
        raise TrainingError("A training gave no numbers. Choose fewer --steps, or another --seed.")
    return {"names": list(names), "agatston": np.round(scores, 3).tolist()}


def _curves(fitted: VesselFit) -> list[list[float]]:
    """Step, training and validation error of each epoch, on the linear scale, in squared Agatston units."""
    curves = fitted.curves
    values = [curves["step"], *(curves[n] * fitted.largest**2 for n in ("training_mse", "mse"))]
    return np.stack(values, 1).astype(float).tolist()


def _slice_weights(network: VesselNet, files: Mapping[str, Path], names: Sequence[str]) -> dict | None:
    """Mean and standard deviation over patients of each slice's weight; None of networks that have none."""
    import torch

    found = []
    for name in names:
        x = torch.from_numpy(load(files[name])["input"].astype(np.float32))[None]
        with torch.inference_mode():
            weights = network.slice_weights(x)
        if weights is None:
            return None
        found.append(weights[0].numpy())
    if not found:
        return None
    return {
        "mean": np.mean(found, 0).astype(float).tolist(),
        "sd": np.std(found, 0).astype(float).tolist(),
        "slice_mm": network.config.slice_mm,
    }


def _picture(number: int, k: int, x: np.ndarray, found: np.ndarray, near: np.ndarray) -> dict[str, np.ndarray]:
    low, high = np.percentile(x, (1, 99.7))
    grey = np.clip((x - low) / max(high - low, 1e-6), 0, 1)
    parts = {"grey": grey.astype(np.float16), "saliency": found.astype(np.float16), "near": near, "slice": np.array(k)}
    return {f"{name}_{number}": part for name, part in parts.items()}


def _spacing_mm(calcium: Path, grid: np.ndarray) -> tuple[float, float, float]:
    """Of an input's voxels, [k, j, i]. grid: of `input_regions`."""
    import SimpleITK as sitk

    from CACScoringLib.io.reading import read_mask

    spacing = sitk.DICOMOrient(read_mask(calcium), "LPS").GetSpacing()
    return tuple(float(a * b) for a, b in zip(spacing, grid[1], strict=True))[::-1]
