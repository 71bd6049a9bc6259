"""Train the lesion network on digital patients, on digital calcium in real scans without any, and on painted scans.

Each patient is scanned when it is first drawn (`data.lesion_rows`) and its patches are kept in the cache.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import nn
from torch.nn import functional

from CACScoringLib.cohort.workers import run_jobs
from CACScoringLib.core.errors import CTError, DataError
from CACScoringLib.core.progress import Progress
from CACScoringLib.models.cards import LoadedModel, find_model, load_model
from CACScoringLib.models.inference import Runner, predict
from CACScoringLib.networks.configs import LESION_KINDS, LesionNetConfig, build
from CACScoringLib.scoring.parts import CORONARY_KINDS

from ..data.datasets import default_cache, find_scans, split_by_patient
from ..data.lesion_batches import LesionAugmentation, LesionData, plain_batch, varied_batch
from ..data.lesion_rows import (
    ARTERY_KINDS,
    NOISE,
    NOT_CORONARY,
    NUMBERS_APART,
    annotated_rows,
    clean_rows,
    inserted_rows,
    patient_rows,
    patients,
)
from ..phantom import DIFFICULTIES
from ..project.training_scan import TrainingScan
from .distributed import in_turn
from .runs import TrainingData, check_start_share, start_from, training_run
from .settings import LoopSettings, RunOptions, read_presets
from .task import Task, channels_last

ROOT, MITRAL, STENT = (LESION_KINDS.index(kind) for kind in ("aortic valve and root", "mitral annulus", "stent"))
DEVICES = [STENT, *(LESION_KINDS.index(kind) for kind in ("lead", "wire", "clip", "catheter", "prosthetic valve"))]
NON_CORONARY = [n for n in range(len(LESION_KINDS)) if n not in CORONARY_KINDS]
"""Indices of LESION_KINDS."""

SMOOTHING = 0.04
"""Share of each label that is spread over all kinds, because simulated calcium is clearer than real one."""

CORONARY_WEIGHT = 0.7
"""Weight of the loss for coronary or not, beside that for the kind."""

INTENDED_USE = (
    "Names what every voxel at or above the clinical threshold is on non-contrast chest CT (an artery's calcium, other "
    "calcium, a device, or noise), as a step of calcium scoring with CAC. For research; not a medical device."
)


LOG_LIKELIHOOD = "log likelihood"
"""Name of the measure that chooses the best weights."""

LEAST_PROBABILITY = 1e-4
"""Least probability that a logarithm is taken of."""


@dataclass(frozen=True)
class LesionTraining:
    """Settings of the lesion network's training.

    Attributes:
        patients: Number of digital patients to train on, of all difficulties by turns.
        validation_patients: Number of digital patients to validate on.
        insertions: Times that each real scan gets digital calcium.
        views: Views of each real scan free of coronary calcium, in which nothing dense is coronary.
        batch_size: Patches per step.
        learning_rate: Learning rate of the AdamW optimiser.
        start: SHA-256 of the model with the initial weights, recorded by the training.
        start_share: Share of the initial weights in the means of these and the trained ones that become the model. With
            new patients alone a network loses some of what it knew of others (Wortsman et al. 2022,
            10.1109/CVPR52688.2022.00780, (2nd)).
        real_share: Share of patches from real scans free of coronary calcium, with digital calcium and without.
        annotated_share: Share of patches from a project's scans in which annotators painted regions; None for none.
        held_out: Patients of real scans free of coronary calcium that only validate.
    """

    loop: LoopSettings = LoopSettings(6_000, validate_every=400, decay_from=0.3)  # noqa: RUF009
    network: LesionNetConfig = field(default_factory=LesionNetConfig)
    patients: int = 300
    validation_patients: int = 54
    insertions: int = 6
    views: int = 8
    batch_size: int = 16
    learning_rate: float = 1.5e-3
    augmentation: LesionAugmentation = field(default_factory=LesionAugmentation)
    start: str | None = None
    start_share: float = 0.0
    real_share: float = 0.5
    annotated_share: float | None = None
    held_out: tuple[str, ...] = ()

    @property
    def shares(self) -> dict[str, float]:
        """Share of each group of patches but the digital patients' in a batch."""
        annotated = self.annotated_share or 0.0
        return {ANNOTATED: annotated, REAL: (1 - annotated) * self.real_share}


REAL, ANNOTATED = "real", "annotated"
"""Groups of patches: of real scans free of coronary calcium, and of a project's annotated scans."""

PRESETS = read_presets("lesions", LesionTraining())


class LesionTask(Task[LesionTraining]):
    """Training of the lesion network.

    Args:
        settings: Settings of the training.
        training: Patches to learn from.
        validation: Patches of other patients.
        start: Initial network.
    """

    exported = "lesions"
    better = LOG_LIKELIHOOD

    def __init__(
        self,
        settings: LesionTraining,
        training: LesionData,
        validation: LesionData,
        start: nn.Module | None = None,
    ) -> None:
        torch.manual_seed(settings.loop.seed)
        network = channels_last(build(settings.network) if start is None else start)
        self.settings, self.training, self.validation = settings, training, validation
        self.modules = {"lesions": network}
        self.optimizers = {
            "lesions": torch.optim.AdamW(network.parameters(), settings.learning_rate, weight_decay=1e-3)
        }
        self._chances = training.chances(settings.shares)

    def batch(self, generator: np.random.Generator) -> dict[str, torch.Tensor]:
        numbers = generator.choice(len(self.training), self.settings.batch_size, p=self._chances)
        return varied_batch(self.training.rows(numbers), self.settings.augmentation, generator)._asdict()

    def step(self, batch: dict[str, torch.Tensor], fabric: Fabric, number: int) -> dict[str, torch.Tensor]:
        x = batch["x"].contiguous(memory_format=torch.channels_last_3d)
        is_labelled = batch["labels"] > 0
        logits = self.modules["lesions"](x, voxels=is_labelled)
        loss = lesion_loss(logits, batch["labels"][is_labelled] - 1, batch["weights"][is_labelled])
        self.descend("lesions", loss, fabric, max_norm=5.0)
        return {"loss": loss.detach()}

    def validate(self, network: Runner | nn.Module) -> dict[str, float]:
        return lesion_metrics(network, self.validation)


def lesion_loss(logits: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Return the weighted cross entropy of kinds, of voxels where they are known, and that of coronary or not.

    Args:
        logits: Network output at dense voxels, [n, kinds].
        labels: Index of each voxel's kind, or NOT_CORONARY, [n].
        weights: Weight of each voxel, [n].
    """
    weights = weights / weights.sum().clamp(min=1e-6)
    log_kinds = functional.log_softmax(logits, 1)
    is_known = labels != NOT_CORONARY
    kinds = labels.clamp(max=NOT_CORONARY - 1)
    entropies = functional.nll_loss(log_kinds, kinds, reduction="none")
    entropies = (1 - SMOOTHING) * entropies - SMOOTHING * log_kinds.mean(1)
    # Stents lie in arteries: for "coronary or not" they count on neither side.
    coronary, elsewhere = log_kinds[:, :ARTERY_KINDS].logsumexp(1), log_kinds[:, NON_CORONARY].logsumexp(1)
    is_artery, is_elsewhere = labels < ARTERY_KINDS, (labels >= ARTERY_KINDS) & (labels != STENT)
    of_place = -(coronary * is_artery + elsewhere * is_elsewhere)
    return (weights * (torch.where(is_known, entropies, of_place) + CORONARY_WEIGHT * of_place)).sum()


EVALUATED_AT_ONCE = 16
"""Patches that a network answers for at once."""


def lesion_metrics(network: Runner | nn.Module, data: LesionData) -> dict[str, float]:
    """Compare a network's answers with the truth, voxel by voxel, weighted as in the loss.

    Returns:
        Mean log likelihood of each group of scans, and the groups' mean; of arteries' calcium the share taken for
        calcium of arteries or stents, for its own artery and for a device; of root, mitral annulus, noise and real
        scans without calcium the share taken for coronary.
    """
    return measures(*lesion_answers(network, data))


def lesion_answers(
    network: Runner | nn.Module, data: LesionData
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Ask a network about every labelled voxel of some scans.

    Returns:
        What `measures` takes: the probabilities [n, kinds], and of each voxel [n] its label (index of its kind, or
        NOT_CORONARY), its weight in the loss, and the group of scans that it is of.
    """
    kinds, labels, weights, groups = [], [], [], []
    for first in range(0, len(data), EVALUATED_AT_ONCE):
        batch = plain_batch(data.rows(np.arange(first, min(first + EVALUATED_AT_ONCE, len(data)))))
        answers = np.moveaxis(predict(network, batch.x.numpy(), EVALUATED_AT_ONCE)[0], 1, -1)
        is_labelled = (batch.labels > 0).numpy()
        kinds.append(answers[is_labelled])
        labels.append(batch.labels.numpy()[is_labelled] - 1)
        weights.append(batch.weights.numpy()[is_labelled])
        of_batch = data.group[first : first + EVALUATED_AT_ONCE]
        groups.append(np.repeat(of_batch, is_labelled.sum(axis=(1, 2, 3))))
    return np.concatenate(kinds), np.concatenate(labels), np.concatenate(weights), np.concatenate(groups)


def measures(kinds: np.ndarray, labels: np.ndarray, weights: np.ndarray, groups: np.ndarray) -> dict[str, float]:
    """Compute `lesion_metrics` of probabilities [n, kinds], labels, weights and groups [n] of voxels."""
    of_voxels = voxel_measures(kinds, labels)
    logs, by_group = of_voxels.pop(LOG_LIKELIHOOD)[1], {}
    for group in dict.fromkeys(groups.tolist()):
        is_in_group = groups == group
        by_group[group] = float(np.average(logs[is_in_group], weights=weights[is_in_group]))
    values = {LOG_LIKELIHOOD: float(np.mean([*by_group.values()]))}
    values |= {f"{LOG_LIKELIHOOD}, {group}": value for group, value in by_group.items()}
    shares = {name: (value[is_of], weights[is_of]) for name, (is_of, value) in of_voxels.items()}
    return values | {name: float(np.average(value, weights=w)) for name, (value, w) in shares.items() if w.sum() > 0}


def voxel_measures(kinds: np.ndarray, labels: np.ndarray) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return what `measures` are weighted means of.

    Args:
        kinds: Probability of each of LESION_KINDS at each voxel, [n, kinds].
        labels: Index of each voxel's kind, or NOT_CORONARY, [n].

    Returns:
        By name, the voxels that a measure is of, bool [n], and its values, [n].
    """
    coronary = kinds[:, CORONARY_KINDS].sum(axis=1)
    likeliest, is_found = kinds.argmax(axis=1), coronary > 0.5
    likelihood = np.where(
        labels == NOT_CORONARY,
        1 - coronary,
        np.take_along_axis(kinds, np.minimum(labels, NOT_CORONARY - 1)[:, None], 1)[:, 0],
    )
    result = {LOG_LIKELIHOOD: (np.full(len(labels), True), np.log(np.maximum(likelihood, LEAST_PROBABILITY)))}
    for number, kind in enumerate(LESION_KINDS[:ARTERY_KINDS]):
        result[f"{kind} found"] = labels == number, is_found
        result[f"{kind} named"] = labels == number, likeliest == number
    result["calcium as device"] = labels < ARTERY_KINDS, np.isin(likeliest, DEVICES)
    for number, name in ((ROOT, "root"), (MITRAL, "mitral"), (NOISE, "noise"), (NOT_CORONARY, "real")):
        result[f"{name} as coronary"] = labels == number, is_found
    return result


def train(options: RunOptions, settings: LesionTraining, progress: Progress) -> Path:
    """Train a lesion network, from the weights of another one if asked; return its card's path.

    Raises CTError, OutputError.
    """
    most = NUMBERS_APART * len(DIFFICULTIES)
    if not 1 <= settings.patients <= most or settings.validation_patients < 1 or settings.batch_size < 1:
        raise CTError(f"Give 1 to {most} patients, at least 1 to validate on, and at least 1 patch per step.")
    settings, card, start = start_from(options, settings, "lesions")
    check_start_share(settings.start_share, start is not None)
    initial = None if start is None else copy.deepcopy(start.state_dict())
    with training_run(options, "lesions", settings, PRESETS, progress) as run:
        with run.progress.step("scans"):
            training, validation, about = in_turn(run.fabric, lambda: _gather(options, settings, run.progress))
        task = LesionTask(settings, training, validation, start)
        outcome = run.train(task)
        if initial is not None:
            outcome = outcome.mixed_with(initial, settings.start_share)
        counts = {"training": settings.patients, "validation": settings.validation_patients}
        data = "; ".join(f"{use}: {_description(use, count)}" for use, count in counts.items())
        data += about

        def evaluate(model: LoadedModel) -> tuple[dict[str, object], dict[str, float]]:
            return {name: round(value, 4) for name, value in task.validate(model.network).items()}, {}

        return run.write_model(settings, data, outcome, evaluate, INTENDED_USE, card)


def _description(use: str, count: int) -> str:
    """Describe the digital patients of a use."""
    firsts = patients(use, min(count, len(DIFFICULTIES)))
    numbers = ", ".join(f"{number} ({difficulty or 'usual'})" for number, difficulty in firsts)
    return f"{count} digital patients, by turns from numbers {numbers} on"


_RowJob = Callable[[LoadedModel], np.ndarray]
"""Function that opens a scan's patches, and makes them if missing, given the territory network."""

_Annotated = tuple[list[TrainingScan], list[TrainingScan]]
"""Annotated scans for training and for validation."""


def _row_writer() -> Callable[[_RowJob], None]:
    """Return the function of a worker that makes a scan's patches."""
    territories = load_model(find_model("territories").path, "cpu")

    def write(job: _RowJob) -> None:
        job(territories)

    return write


def _gather(options: RunOptions, settings: LesionTraining, progress: Progress) -> tuple[LesionData, LesionData, str]:
    """Make the patches that are not cached yet: to learn from, to validate on, and a note on real scans."""
    scans, annotated = _scans(options, settings)
    jobs = _jobs(settings, scans, annotated)
    every_job = [job for part in jobs.values() for job in part]
    if options.workers > 1:
        for event in run_jobs(_row_writer, every_job, options.workers, progress.counted):
            if event.state == "lost":
                raise DataError(f"The patches of a scan could not be made. {event.reason}")
    territories = load_model(find_model("territories").path, "cpu")
    rows: dict[str, dict[str, list[np.ndarray]]] = {"training": {}, "validation": {}}
    for (use, group), part in jobs.items():
        rows[use][group] = [job(territories) for job in part]
        progress.counted(sum(len(done) for groups in rows.values() for done in groups.values()), len(every_job))
    training, validation = LesionData(rows["training"]), LesionData(rows["validation"])
    times = f"; digital calcium and stents inserted {settings.insertions} times, and {settings.views} views, of"
    names = dict.fromkeys(scan.patient for scan in scans)
    about = "".join(f"{times} {name}{' (validation only)' * (name in settings.held_out)}" for name in names)
    if settings.annotated_share is not None:
        if ANNOTATED not in training.group:
            raise DataError(
                "No lesion is painted, and no slice judged, in the project. Review or paint its scans first."
            )
        about += f"; {TrainingData(tuple(annotated[0]), tuple(annotated[1]), (), ()).describe(options.annotator)}"
    return training, validation, about


def _scans(options: RunOptions, settings: LesionTraining) -> tuple[list[TrainingScan], _Annotated]:
    """Return the real scans free of coronary calcium, and the annotated ones for training and for validation."""
    scans = find_scans(options.data, options.annotator) if options.data else []
    annotated: _Annotated = ([], [])
    if settings.annotated_share is not None:
        readings = [replace(scan, automatic=None) for scan in scans if scan.annotators]
        annotated = split_by_patient(readings, settings.loop.validation_share, settings.loop.seed)
        scans = [scan for scan in scans if not scan.annotators]
    scans = [scan for scan in scans if not scan.shows_calcium()]
    if absent := set(settings.held_out) - {scan.patient for scan in scans}:
        raise DataError(f"No scan without coronary calcium is of {', '.join(sorted(absent))}, who shall be held out.")
    return scans, annotated


def _jobs(
    settings: LesionTraining, scans: list[TrainingScan], annotated: _Annotated
) -> dict[tuple[str, str], list[_RowJob]]:
    """Return the jobs that open the patches, by use ("training" or "validation") and group."""
    folder = default_cache() / "lesions"
    jobs: dict[tuple[str, str], list[_RowJob]] = {}
    for use, count in (("training", settings.patients), ("validation", settings.validation_patients)):
        for number, difficulty in patients(use, count):
            job = partial(patient_rows, number, difficulty, folder)
            jobs.setdefault((use, difficulty or "usual"), []).append(job)
    for scan in scans:
        use = "validation" if scan.patient in settings.held_out else "training"
        of_scan = jobs.setdefault((use, REAL), [])
        of_scan += [partial(inserted_rows, scan, seed, folder) for seed in range(settings.insertions)]
        of_scan += [partial(clean_rows, scan, view, folder) for view in range(settings.views)]
    for use, part in zip(("training", "validation"), annotated, strict=True):
        jobs[use, ANNOTATED] = [partial(annotated_rows, scan, folder) for scan in part]
    return jobs
