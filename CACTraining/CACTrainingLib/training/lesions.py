"""Train the lesion network on digital patients, on digital calcium in real scans without any, and on painted lesions.

Each patient is scanned when it is first drawn (`data.lesion_rows`) and its lesions are kept in the cache.
"""

from __future__ import annotations

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
from CACScoringLib.networks.configs import LESION_KINDS, LesionNetConfig
from CACScoringLib.networks.registry import build
from CACScoringLib.scoring.lesion_network import CORONARY_KINDS

from ..data.datasets import default_cache, find_scans, split_by_patient
from ..data.lesion_batches import LesionAugmentation, LesionData, plain_input, varied_input
from ..data.lesion_rows import ARTERY_KINDS, annotated_rows, clean_rows, inserted_rows, kind_is_known, patient_rows
from ..project.training_scan import TrainingScan
from ..statistics.roc import area
from .distributed import in_turn
from .loop import Task, channels_last
from .runs import TrainingData, start_from, training_run
from .settings import LoopSettings, RunOptions, read_presets

FIRST_NUMBERS = {"training": 5_000_000, "validation": 5_500_000}
"""First patient number of each use, far from the others and from those of any cohort."""

SMOOTHING = 0.04
"""Share of each label that is spread over all kinds, because a simulated lesion is clearer than a real one."""

CORONARY_WEIGHT = 0.7
"""Weight of the loss for coronary or not, beside that for the kind."""

INTENDED_USE = (
    "Names what candidates of the clinical rule are on non-contrast chest CT (an artery's calcium, other calcium, a "
    "device, or noise), as a step of calcium scoring with CAC. For research; not a medical device."
)


@dataclass(frozen=True)
class LesionTraining:
    """Settings of the lesion network's training.

    Attributes:
        patients: Number of digital patients to train on, from FIRST_NUMBERS on.
        validation_patients: Number of digital patients to validate on, from FIRST_NUMBERS on.
        insertions: Times that each real scan gets digital calcium, if its sharpness and noise can be measured.
        views: Views of each real scan free of coronary calcium, in which everything dense is noise.
        clean_share: Share of lesions from these.
        batch_size: Lesions per step.
        learning_rate: Learning rate of the AdamW optimiser.
        start: SHA-256 of the model with the initial weights, recorded by the training.
        annotated_share: Share of lesions from a project's scans in which annotators painted regions; None for none.
    """

    loop: LoopSettings = LoopSettings(6_000, validate_every=250, average=0.998)  # noqa: RUF009
    network: LesionNetConfig = field(default_factory=LesionNetConfig)
    patients: int = 300
    validation_patients: int = 30
    insertions: int = 10
    views: int = 10
    clean_share: float = 0.25
    batch_size: int = 24
    learning_rate: float = 1.5e-3
    augmentation: LesionAugmentation = field(default_factory=LesionAugmentation)
    start: str | None = None
    annotated_share: float | None = None


PRESETS = read_presets("lesions", LesionTraining())


class LesionTask(Task[LesionTraining]):
    """Training of the lesion network.

    Args:
        settings: Settings of the training.
        training: Lesions to learn from.
        validation: Lesions of other patients.
        start: Initial network.
    """

    exported = "lesions"
    better = "auc"

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
        self._chances = training.chances(settings.annotated_share, settings.clean_share)

    def batch(self, generator: np.random.Generator) -> dict[str, torch.Tensor]:
        numbers = generator.choice(len(self.training), self.settings.batch_size, p=self._chances)
        inputs = varied_input(self.training.rows(numbers), self.settings.augmentation, generator)
        return {"x": inputs, "shares": torch.from_numpy(self.training.shares[numbers])}

    def step(self, batch: dict[str, torch.Tensor], fabric: Fabric, number: int) -> dict[str, torch.Tensor]:
        x = batch["x"].contiguous(memory_format=torch.channels_last_3d)
        loss = lesion_loss(self.modules["lesions"](x, logits=True), batch["shares"])
        self.descend("lesions", loss, fabric, max_norm=5.0)
        return {"loss": loss.detach()}

    def validate(self, network: Runner | nn.Module) -> dict[str, float]:
        return metrics(probabilities(network, self.validation), self.validation)


def lesion_loss(logits: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
    """Return the cross entropy of kinds, of lesions where they are known, and that of coronary or not.

    Args:
        logits: Network output, [B, kinds].
        shares: Share of each kind in each lesion, [B, kinds].
    """
    logits = logits.float()
    labels = (1 - SMOOTHING) * shares + SMOOTHING / len(LESION_KINDS)
    is_known = shares.amax(1) > 1 / ARTERY_KINDS  # `kind_is_known`
    entropies = functional.cross_entropy(logits, labels, reduction="none")
    kind_entropy = (entropies * is_known).sum() / is_known.sum().clamp(min=1)
    coronary, elsewhere = (logits[:, part].logsumexp(1) for part in (slice(ARTERY_KINDS), slice(ARTERY_KINDS, None)))
    share = shares[:, :ARTERY_KINDS].sum(1)
    total = logits.logsumexp(1)
    entropy = -(share * (coronary - total) + (1 - share) * (elsewhere - total)).mean()
    return kind_entropy + CORONARY_WEIGHT * entropy


def probabilities(network: Runner | nn.Module, data: LesionData, batch_size: int = 48) -> np.ndarray:
    """Return a network's probabilities of all lesions, float32 [n, kinds]."""
    parts = []
    for first in range(0, len(data), batch_size):
        inputs = plain_input(data.rows(np.arange(first, min(first + batch_size, len(data)))))
        parts.append(predict(network, inputs.numpy(), batch_size)[0])
    return np.concatenate(parts)


def metrics(answers: np.ndarray, data: LesionData) -> dict[str, float]:
    """Compare a network's probabilities [n, kinds] with the truth.

    Returns:
        Area under the ROC curve of coronary calcium against all else but stents ("auc"); share of coronary calcium in
        its own artery ("artery"); share of the lesions of each kind that are judged rightly as coronary or not.
    """
    shares, stent = data.shares, LESION_KINDS.index("stent")
    is_known = kind_is_known(shares)
    kinds = np.where(is_known, shares.argmax(1), -1)
    coronary = answers[:, CORONARY_KINDS].sum(1)
    is_calcium = shares[:, :ARTERY_KINDS].sum(1) > 0.5
    judged = kinds != stent
    has_artery = is_calcium & is_known
    arteries = shares[has_artery, :ARTERY_KINDS].argmax(1) == answers[has_artery, :ARTERY_KINDS].argmax(1)
    values = {"auc": area(coronary[judged], is_calcium[judged]), "artery": float(arteries.mean())}
    for number, kind in enumerate(LESION_KINDS):
        of_kind = kinds == number
        if of_kind.any():
            right = (coronary[of_kind] > 0.5) == (number in CORONARY_KINDS)
            values[kind] = float(right.mean())
    values["stents named"] = float((answers[kinds == stent].argmax(1) == stent).mean()) if (kinds == stent).any() else 0
    values["calcium named stent"] = float((answers[is_calcium].argmax(1) == stent).mean()) if is_calcium.any() else 0
    real = data.is_annotated
    if is_calcium[real].any() and not is_calcium[real].all():
        values["auc in annotated scans"] = area(coronary[real], is_calcium[real])
    return values


def train(options: RunOptions, settings: LesionTraining, progress: Progress) -> Path:
    """Train a lesion network, from the weights of another one if asked; return its card's path.

    Raises CTError, OutputError.
    """
    most = FIRST_NUMBERS["validation"] - FIRST_NUMBERS["training"]
    if not 1 <= settings.patients <= most or settings.validation_patients < 1 or settings.batch_size < 1:
        raise CTError(f"Give 1 to {most} patients, at least 1 to validate on, and at least 1 lesion per step.")
    card, start = start_from(options, settings, "lesions")
    if card is not None:
        settings = replace(settings, network=LesionNetConfig(**card.config), start=card.sha256)
    with training_run(options, "lesions", settings, PRESETS, progress) as run:
        with run.progress.step("scans"):
            training, validation, about = in_turn(run.fabric, lambda: _gather(options, settings, run.progress))
        task = LesionTask(settings, training, validation, start)
        outcome = run.train(task)
        counts = {"training": settings.patients, "validation": settings.validation_patients}
        firsts = {use: FIRST_NUMBERS[use] for use in counts}
        data = "; ".join(f"{use}: digital patients {firsts[use]} to {firsts[use] + n - 1}" for use, n in counts.items())
        data += about

        def evaluate(model: LoadedModel) -> tuple[dict[str, object], dict[str, float]]:
            return {name: round(value, 4) for name, value in task.validate(model.network).items()}, {}

        return run.write_model(settings, data, outcome, evaluate, INTENDED_USE, card)


_RowJob = Callable[[LoadedModel], np.ndarray]
"""Function that opens a scan's lesions, and makes them if missing, given the territory network."""


def _row_writer() -> Callable[[_RowJob], None]:
    """Return the function of a worker that makes a scan's lesions."""
    territories = load_model(find_model("territories").path, "cpu")

    def write(job: _RowJob) -> None:
        job(territories)

    return write


def _gather(options: RunOptions, settings: LesionTraining, progress: Progress) -> tuple[LesionData, LesionData, str]:
    """Make the lesions that are not cached yet: those to learn from, those to validate on, and a note on real scans."""
    folder = default_cache() / "lesions"
    scans = find_scans(options.data, options.annotator) if options.data else []
    annotated: tuple[list[TrainingScan], list[TrainingScan]] = ([], [])
    if settings.annotated_share is not None:
        readings = [replace(scan, automatic=None) for scan in scans if scan.annotators]
        annotated = split_by_patient(readings, settings.loop.validation_share, settings.loop.seed)
        scans = [scan for scan in scans if not scan.annotators]
    scans = [scan for scan in scans if not scan.shows_calcium()]
    jobs: dict[str, list[_RowJob]] = {
        use: [partial(patient_rows, FIRST_NUMBERS[use] + number, folder) for number in range(count)]
        for use, count in (("training", settings.patients), ("validation", settings.validation_patients))
    }
    for use, part in zip(("annotated", "annotated validation"), annotated, strict=True):
        jobs[use] = [partial(annotated_rows, scan, folder) for scan in part]
    jobs["inserted"] = [partial(inserted_rows, x, seed, folder) for x in scans for seed in range(settings.insertions)]
    jobs["clean"] = [partial(clean_rows, scan, view, folder) for scan in scans for view in range(settings.views)]
    every_job = [job for part in jobs.values() for job in part]
    if options.workers > 1:
        for event in run_jobs(_row_writer, every_job, options.workers, progress.counted):
            if event.state == "lost":
                raise DataError(f"The lesions of a scan could not be made. {event.reason}")
    territories = load_model(find_model("territories").path, "cpu")
    rows: dict[str, list[np.ndarray]] = {use: [] for use in jobs}
    for done, (use, job) in enumerate(((use, job) for use, part in jobs.items() for job in part), 1):
        rows[use].append(job(territories))
        progress.counted(done, len(every_job))
    training = LesionData(rows["training"] + rows["inserted"], rows["annotated"], rows["clean"])
    validation = LesionData(rows["validation"], rows["annotated validation"])
    times = f"; digital calcium and stents inserted up to {settings.insertions} times, and {settings.views} views, of"
    about = "".join(f"{times} {patient}" for patient in dict.fromkeys(scan.patient for scan in scans))
    if settings.annotated_share is not None:
        if not training.is_annotated.any():
            raise DataError(
                "No lesion is painted, and no slice judged, in the project. Review or paint its scans first."
            )
        about += f"; {TrainingData(tuple(annotated[0]), tuple(annotated[1]), (), ()).describe(options.annotator)}"
    return training, validation, about
