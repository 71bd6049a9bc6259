"""Fit of a network for vessel scores: from prepared scans and scores to a trained network."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from scipy import spatial

from CACScoringLib.anatomy.heart_region import HeartRegion
from CACScoringLib.core.ct import CTScan
from CACScoringLib.core.errors import DataError
from CACScoringLib.core.labels import ARTERIES
from CACScoringLib.core.progress import Progress
from CACScoringLib.core.voxels import voxels_of
from CACScoringLib.models.cards import ModelCard
from CACScoringLib.networks.configs import VESSEL_KINDS, VesselNetConfig
from CACScoringLib.networks.vessels import VesselNet, preset
from CACScoringLib.whole_scan.estimates import NONE_BELOW
from CACScoringLib.whole_scan.vessels import vessel_grid, vessel_input

from ...data.scan_samples import image_beside
from ...data.scan_table import TableScan
from ...project.training_scan import read_truth
from ...training.loop import Outcome, train
from ...training.runs import read_start
from ...training.settings import LoopSettings
from ..sources import SourceSettings, load, prepare
from .task import VesselTask, VesselTraining, VolumeAugmentation, Volumes, mean_squared, scores_of

KIND = "vessels"
"""Folder of the prepared scans."""

_WORK = 3
"""Version of the data that `vessel_work` returns, raised with every change."""

_INPUT_FIELDS = ("slices", "size", "field", "field_mm", "slice_mm", "around_mm", "low_hu", "high_hu", "territories")


@dataclass(frozen=True)
class VesselSettings:
    """Settings of a model.

    Attributes:
        config: Network; its `output` is the scale of scores, "linear" or "log".
        training: Its training.
        sources: Tables and cache.
        start: Card of a model with the initial weights; None for random ones.
    """

    config: VesselNetConfig
    training: VesselTraining
    sources: SourceSettings = field(default_factory=SourceSettings)
    start: Path | None = None

    @property
    def seed(self) -> int:
        return self.training.loop.seed


@dataclass(frozen=True)
class VesselFit:
    """Trained network, in eval mode on the CPU.

    Attributes:
        network: Network of the best validation.
        largest: Agatston score of the normalisation.
        training: Mean squared error over training patients and arteries in shares of the largest score, on the linear
            scale, for unaugmented volumes.
        validation: The same for validation patients.
        outcome: Outcome of the training.
        least_certainty: `VesselNet.certainty` from which a score is stated (`least_certainty`).
    """

    network: VesselNet
    largest: float
    training: float
    validation: float
    outcome: Outcome
    least_certainty: float

    @property
    def seconds(self) -> float:
        """Duration of the training."""
        return round(self.outcome.seconds, 1)


SUPERVISED = "voxel-sum-supervised"
"""Network "voxel-sum" trained on the location of the calcium too, with territories and more features."""

TRAINABLE = (*VESSEL_KINDS, SUPERVISED)

_LOOP = LoopSettings(240, validate_every=1, patience=15, average=0.95, half_precision=False)
_SUPERVISED_LOOP = LoopSettings(4000, validate_every=10, average=0.98, half_precision=False)
"""Settings of the loop. bfloat16 is off: on processors it slows such small networks. Supervised networks score 0 until
hundreds of steps have made them certain, so that nothing stops them early."""

_PAPER_LOOP = LoopSettings(240, validate_every=1, decay_from=1.0, average=0.0, half_precision=False)
_UNCHANGED = VolumeAugmentation(shift=0, shift_slices=0, noise=0.0, blur=0.0)
"""Training of the paper's networks, which neither changes volumes nor averages weights nor stops early."""

_LEARNING_RATES = {"vit": 3e-4, "voxel-sum": 3e-3}


def vessel_settings(preset_name: str, kind: str, output: str | None = None) -> VesselSettings:
    """Return the settings of a network of TRAINABLE in a preset's size. output: None for the preset's."""
    config = preset(preset_name, "voxel-sum" if kind == SUPERVISED else kind)
    if kind == SUPERVISED:
        config = replace(config, width=2 * config.width, territories=True, least_probability=0.3)
        training = VesselTraining(_SUPERVISED_LOOP, learning_rate=5e-3, supervised=True)
    elif preset_name == "paper" and kind != "voxel-sum":
        training = VesselTraining(_PAPER_LOOP, 32, _LEARNING_RATES.get(kind, 1e-3), augmentation=_UNCHANGED)
    else:
        training = VesselTraining(_LOOP, 32 if preset_name == "paper" else 8, _LEARNING_RATES.get(kind, 1e-3))
    return VesselSettings(replace(config, output=output or config.output), training)


def input_key(config: VesselNetConfig) -> str:
    """Return a text of all settings on which a network's input depends."""
    return json.dumps({name: getattr(config, name) for name in _INPUT_FIELDS})


def prepare_vessels(
    scans: Sequence[TableScan],
    folder: Path,
    config: VesselNetConfig,
    workers: int | None = None,
    progress: Progress | None = None,
) -> tuple[dict[str, Path], dict[str, str]]:
    """Prepare scans as inputs of a network; networks with equal inputs share them. See `prepare`."""
    work = partial(vessel_work, config=config)
    return prepare(scans, folder, KIND, work, f"{_WORK} {input_key(config)}", workers, progress)


def vessel_work(scan: CTScan, region: HeartRegion, config: VesselNetConfig) -> dict[str, np.ndarray]:
    """Return the prepared data of a scan: `input` in half precision, `heart_ml`, and calcium (`true_calcium`)."""
    voxels = int(np.count_nonzero(region.mask))
    return {
        "input": vessel_input(scan, region.mask, config, region.territory_labels).astype(np.float16),
        "heart_ml": np.array(voxels * scan.voxel_volume_mm3 / 1000),
        **true_calcium(scan, region, config),
    }


def heart_ml(file: Path) -> float:
    """Return the heart's volume of a prepared scan."""
    return float(load(file)["heart_ml"])


def targets_of(scans: Sequence[TableScan]) -> dict[str, np.ndarray]:
    """Return Agatston scores [4] in the order of ARTERIES by scan name."""
    return {scan.name: np.array([scan.scores[artery] for artery in ARTERIES]) for scan in scans}


FitData = tuple[Mapping[str, Path], Mapping[str, np.ndarray], Sequence[str], Sequence[str]]
"""Files and scores by name, and names of training and validation scans, as of `fit_vessels`."""


def training_task(
    files: Mapping[str, Path],
    targets: Mapping[str, np.ndarray],
    training: Sequence[str],
    validation: Sequence[str],
    settings: VesselSettings,
) -> VesselTask:
    """Return the training of a network; arguments and errors are those of `fit_vessels`."""
    if len(training) < 2 or not validation:
        raise DataError(f"{len(training)} scans to train on and {len(validation)} to validate on are too few.")
    largest = float(max(np.max(targets[name]) for name in training))
    if largest <= 0:
        raise DataError("No scan to train on has any calcium. Give scans with calcium too.")
    torch.manual_seed(settings.training.loop.seed)
    network = VesselNet(settings.config) if settings.start is None else network_to_start_from(settings.start)[1]
    network.set_largest(largest)
    volumes = Volumes(files, training, settings.config), Volumes(files, validation, settings.config)
    return VesselTask(settings.training, network, *volumes, targets)


def network_to_start_from(path: Path) -> tuple[ModelCard, VesselNet]:
    """Read the card and the network of a vessel regression. Raises ModelError."""
    card, network = read_start(path, "vessels")
    return card, cast(VesselNet, network)


def fit_vessels(
    files: Mapping[str, Path],
    targets: Mapping[str, np.ndarray],
    training: Sequence[str],
    validation: Sequence[str],
    settings: VesselSettings,
    folder: Path,
    device: str = "auto",
    progress: Progress | None = None,
) -> VesselFit:
    """Train a network with early stopping.

    Args:
        files: Files of `prepare_vessels` by name.
        targets: Agatston scores [4] by name.
        training: Names of training scans.
        validation: Names of validation scans, of other patients.
        folder: Folder for checkpoint and curves; an interrupted training there resumes.

    Raises:
        DataError: The scans are too few, or without calcium.
        ModelError: The model to start from cannot be read, or is of another kind.
        CTError: The training failed.
    """
    task = training_task(files, targets, training, validation, settings)
    largest, volumes = task.largest, (task.training, task.validation)
    initial = copy.deepcopy(task.modules["vessels"].state_dict())
    outcome = train(task, task.loop, folder, progress or Progress(), device, resume=True)
    outcome = outcome.mixed_with(initial, settings.training.start_share)
    network = outcome.load_into(VesselNet(settings.config))
    if settings.training.supervised:
        _scale(network, volumes[1], targets)

    def error(part: Volumes) -> float:
        predicted = scores_of(network, part, part.names)
        return mean_squared(predicted, np.stack([targets[name] for name in part.names]), largest)

    training_error, validation_error = map(error, volumes)
    totals, certainties = predictions_of(network, files, validation).sum(1), certainties_of(network, files, validation)
    calcified = np.array([bool(targets[name].any()) for name in validation])
    limit = least_certainty(totals, certainties, calcified, HALF if settings.config.territories else 0.0)
    return VesselFit(network, largest, training_error, validation_error, outcome, limit)


FALSE_SHARE = 0.04
"""Share of patients without coronary calcium, at most, for whom a score is stated."""

HALF = 0.5
"""Least certainty of a score by territories in any case: what is undetermined may not exceed what counts."""


def least_certainty(totals: np.ndarray, certainties: np.ndarray, calcified: np.ndarray, floor: float) -> float:
    """Return the least certainty of a score: the floor, or more, so that at most FALSE_SHARE of scans without calcium
    have a score.

    Args:
        totals: Predicted totals of validation scans [n].
        certainties: Their certainties [n].
        calcified: True with coronary calcium, bool [n].
        floor: Least certainty in any case.
    """
    scored = totals >= NONE_BELOW
    false = np.sort(certainties[~calcified & scored])[::-1]
    allowed = math.floor(FALSE_SHARE * np.count_nonzero(~calcified))
    return max(floor, float(np.nextafter(false[allowed], 2))) if len(false) > allowed else floor


def _scale(network: VesselNet, volumes: Volumes, targets: Mapping[str, np.ndarray]) -> None:
    """Scale a network's amounts of calcium to scores by the median ratio of true and predicted totals of validation
    patients who have both, so that the largest do not decide for all.
    """
    predicted = scores_of(network, volumes, volumes.names).sum(1)
    true = np.array([targets[name].sum() for name in volumes.names])
    scored = (predicted >= NONE_BELOW) & (true > 0)
    if scored.any():
        network.multiply(float(np.median(true[scored] / predicted[scored])))


def predictions_of(network: VesselNet, files: Mapping[str, Path], names: Sequence[str]) -> np.ndarray:
    """Predict Agatston scores [n, 4] of prepared scans in the order of ARTERIES."""
    return scores_of(network, Volumes(files, [], network.config), names, batch_size=1)


def certainties_of(network: VesselNet, files: Mapping[str, Path], names: Sequence[str]) -> np.ndarray:
    """Return `VesselNet.certainty` of prepared scans [n]."""
    volumes = Volumes(files, [], network.config)
    with torch.inference_mode():
        return np.array([float(network.certainty(torch.from_numpy(volumes[name])[None])[0]) for name in names])


MAP, REGIONS, TRUTH = "calcium_map.nii.gz", "regions.nii.gz", "truth.json"
"""Files beside a digital patient's CT: calcium in mg/cm³, its arteries (from 1, by ARTERIES), and the truth."""

MIN_HU = 5.0
"""Least HU of stored calcium; less is below the noise."""


def true_calcium(scan: CTScan, region: HeartRegion, config: VesselNetConfig) -> dict[str, np.ndarray]:
    """Return the prepared truth of a scan by name; empty if it is unknown, or the field is not the heart's.

    Raises DataError if the truth is unreadable, or not on the scan's grid.
    """
    files = [] if scan.source is None else [scan.source.parent / name for name in (MAP, REGIONS, TRUTH)]
    if config.field != "heart" or not files or not all(file.is_file() for file in files):
        return {}
    calcium, regions = (image_beside(scan, file) for file in files[:2])
    truth = read_truth(files[2])
    grid = vessel_grid(scan, region.mask, config)
    hu = grid.resample(voxels_of(calcium), 0.0) * float(truth["calcium_hu_per_mg_cm3"])
    site = voxels_of(regions)
    labels = [grid.resample(site == n + 1, 0.0) for n in range(len(ARTERIES))]
    at = np.nonzero(hu >= MIN_HU)
    return {
        "calcium_at": np.ravel_multi_index(at, hu.shape).astype(np.int32),
        "calcium_artery": _nearest(np.array(labels), at, config, truth.get("mass_mg_by_artery", {})).astype(np.uint8),
        "calcium": (hu[at] / (config.high_hu - config.low_hu)).astype(np.float16),
    }


def _nearest(
    labels: np.ndarray, at: tuple[np.ndarray, ...], config: VesselNetConfig, masses: Mapping[str, Any]
) -> np.ndarray:
    """Return the artery of each calcified voxel: that of the nearest region, or the one with most calcium without any.

    Calcium extends beyond its region, and faint calcium has none. labels: share of each artery's regions in each voxel.
    masses: of calcium, by artery.
    """
    spacing = np.array([config.slice_mm, *[config.field_mm / config.size] * 2])
    labelled = np.nonzero(labels.max(0) > 0)
    if not len(labelled[0]):
        most = max(ARTERIES, key=lambda artery: masses.get(artery, 0.0))
        return np.full(len(at[0]), ARTERIES.index(most))
    _, nearest = spatial.cKDTree(np.transpose(labelled) * spacing).query(np.transpose(at) * spacing)
    k, j, i = labelled
    return labels[:, k, j, i].argmax(0)[nearest]
