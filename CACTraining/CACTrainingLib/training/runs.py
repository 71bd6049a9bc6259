"""From the command line to a model: options, data, and the best weights written with their card."""

from __future__ import annotations

import argparse
import errno
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from lightning_fabric import Fabric

from CACScoringLib.core.files import write_text_atomically
from CACScoringLib.core.output import OutputError
from CACScoringLib.core.progress import Progress
from CACScoringLib.core.tables import table_text
from CACScoringLib.models.cards import NAME, LoadedModel, ModelError, Training, describe, load_model, save_model
from CACScoringLib.models.inference import DEVICES
from CACScoringLib.networks.van_velzen import PRESETS, Config, build

from ..data.datasets import (
    DataError,
    Sampling,
    SliceDataset,
    TrainingScan,
    default_cache,
    find_scans,
    load_slices,
    prepare,
    split_by_patient,
)
from ..project.scan_identity import content_hash
from .distributed import from_first, in_turn, launched
from .loop import LoopSettings, Outcome, Task, train
from .run_folder import record_training, training_lock

LICENCE = "Apache-2.0"


@dataclass(frozen=True)
class RunOptions:
    """data: folders of scans and projects. output: the model's card, or its path without an ending.

    devices: processes to start; torchrun's, where it has started this one. cache: of prepared scans. annotator: whose
    labels to learn from, of a project that several have annotated. command: the command line's arguments, if any.
    """

    data: tuple[Path, ...]
    output: Path
    preset: str = "compact"
    resume: bool = False
    overwrite: bool = False
    device: str = "auto"
    devices: int = 1
    workers: int = 1
    cache: Path | None = None
    validation_share: float = 0.2
    annotator: str | None = None
    command: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The model's name."""
        return self.output.name.removesuffix(".json")

    @property
    def folder(self) -> Path:
        """Where checkpoint and curves lie, beside the model."""
        return self.output.parent / f"{self.name}.training"

    def check(self) -> None:
        """Before hours are spent: whether the model can be written. Raises ModelError, OutputError."""
        if not NAME.fullmatch(self.name):
            raise ModelError(
                f"{self.name!r} is no name for a model: use small letters, digits, dots, dashes, underscores."
            )
        card = self.output.with_name(f"{self.name}.json")
        if card.exists() and not self.overwrite:
            raise OutputError(f"{card} exists already. Choose another --output, or replace it with --overwrite.")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What every training is told on the command line."""
    add = parser.add_argument
    add(
        "--data",
        type=Path,
        action="append",
        default=[],
        metavar="DIR",
        help="folder of scans, or a project; may be repeated",
    )
    add("--annotator", metavar="NAME", help="learn from this person's labels (default: what most annotators say)")
    add("--output", type=Path, required=True, metavar="MODEL", help="the model's path, without an ending")
    add("--preset", choices=PRESETS, default="compact", help="size of the network and settings of its training")
    add("--resume", action="store_true", help="go on from the checkpoint of a training that was ended")
    add("--overwrite", action="store_true", help="replace a model of this name")
    add("--seed", type=int, default=0, help="of the weights, the batches and the split into training and validation")
    add("--steps", type=int, help="batches at most (default: the preset's)")
    add("--minutes", type=float, help="end after this time, whatever the steps")
    add("--batch-size", type=int, help="samples a step (default: the preset's)")
    add("--learning-rate", type=float, help="of the Adam optimiser (default: the published one)")
    add("--validate-every", type=int, metavar="STEPS", help="steps between validations")
    add("--patience", type=int, metavar="N", help="stop after N validations without progress")
    add("--validation-share", type=float, default=0.2, help="share of patients to validate on")
    add("--device", choices=DEVICES, default="auto")
    add("--devices", type=int, default=1, metavar="N", help="GPUs, each with a whole batch a step (not under torchrun)")
    add("--workers", type=int, default=os.cpu_count() or 1, metavar="N", help="processes that prepare scans")
    add("--cache", type=Path, metavar="DIR", help="where prepared scans are kept (default: the user's cache folder)")


def options_from(arguments: argparse.Namespace) -> RunOptions:
    """The options that `add_arguments` parsed."""
    return RunOptions(
        data=tuple(arguments.data),
        output=arguments.output,
        preset=arguments.preset,
        resume=arguments.resume,
        overwrite=arguments.overwrite,
        device=arguments.device,
        devices=arguments.devices,
        workers=arguments.workers,
        cache=arguments.cache,
        validation_share=arguments.validation_share,
        annotator=arguments.annotator,
        command=tuple(sys.argv[1:]) if sys.argv[1:2] == ["train"] else (),
    )


def add_sampling_arguments(parser: argparse.ArgumentParser) -> None:
    """Which slices a batch holds, for networks that learn from slices."""
    add = parser.add_argument
    add("--hard-share", type=float, help="share of negatives with something that resembles calcium (paper: 0)")
    add("--twin-share", type=float, help="share of negatives that are positives without their calcium (paper: 0)")
    add("--calcium-scale", type=float, help="calcium is made up to so many times fainter or denser (paper: 1)")


def sampling_from(arguments: argparse.Namespace, sampling: Sampling) -> Sampling:
    """A preset's sampling with what was asked for on the command line."""
    asked = {name: getattr(arguments, name) for name in ("hard_share", "twin_share", "calcium_scale")}
    return replace(sampling, **{name: value for name, value in asked.items() if value is not None})


def loop_from(arguments: argparse.Namespace, loop: LoopSettings) -> LoopSettings:
    """A preset's loop with what was asked for on the command line."""
    asked = {name: getattr(arguments, name) for name in ("steps", "minutes", "validate_every", "patience", "seed")}
    return replace(loop, **{name: value for name, value in asked.items() if value is not None})


@dataclass(frozen=True)
class TrainingData:
    """Scans by use, and their folders in the cache in the same order."""

    training: tuple[TrainingScan, ...]
    validation: tuple[TrainingScan, ...]
    training_folders: tuple[Path, ...]
    validation_folders: tuple[Path, ...]

    def table(self) -> str:
        """Every scan with its use, as CSV: what the hash on the model card is of. Paths are left out, for they vary."""
        rows = []
        for use, scans in (("training", self.training), ("validation", self.validation)):
            for scan in scans:
                rows.append((use, scan.patient, scan.kind, content_hash(scan.truth or scan.ct, scan.series)))
        return table_text(("use", "patient", "kind", "sha256"), sorted(rows))

    def describe(self, annotator: str | None = None) -> str:
        """For the model card. annotator: whose labels were asked for."""
        parts = []
        for use, scans in (("training", self.training), ("validation", self.validation)):
            kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(Counter(s.kind for s in scans).items()))
            parts.append(f"{use}: {len(scans)} scans of {len({s.patient for s in scans})} patients ({kinds})")
        if annotator is not None:
            parts.append(f"labels by {annotator}")
        return f"{'; '.join(parts)}; table SHA-256 {hashlib.sha256(self.table().encode()).hexdigest()}"


@dataclass(frozen=True)
class Run:
    """A training under way, in one of its processes. progress: says nothing but in the first of them."""

    options: RunOptions
    fabric: Fabric
    progress: Progress

    def gather_slices(self, seed: int) -> tuple[TrainingData, SliceDataset, SliceDataset]:
        """The scans in the data folders, and their slices to train and to validate on. Raises DataError."""
        data = self.prepare(lambda: gather(self.options, "slices", seed, self.progress))
        training, validation = (
            SliceDataset([load_slices(folder) for folder in folders])
            for folders in (data.training_folders, data.validation_folders)
        )
        return data, training, validation

    def prepare(self, job: Callable[[], TrainingData]) -> TrainingData:
        """What `gather` or `prepared` gives, made by one process first; its table is written as `data.csv`."""
        data = in_turn(self.fabric, job)
        from_first(self.fabric, lambda: _keep_table(self.options, data))
        return data

    def train(self, task: Task, loop: LoopSettings) -> Outcome:
        """See `training.loop.train`."""
        options = self.options
        return train(task, loop, options.folder, self.progress, resume=options.resume, fabric=self.fabric)

    def write_model(
        self,
        config: Config,
        settings: object,
        seed: int,
        data: TrainingData,
        outcome: Outcome,
        judge: Callable[[LoadedModel], tuple[dict[str, object], dict[str, float]]],
        intended_use: str,
    ) -> Path:
        """The first process writes the model (`write_model`) and says that all is done; returns the card's path."""

        def write() -> Path:
            path = write_model(self.options, config, settings, seed, data, outcome, judge, intended_use)
            self.progress.done(path)
            return path

        with self.progress.step("model"):
            return from_first(self.fabric, write)


@contextmanager
def begun(options: RunOptions, network: str, loop: LoopSettings, progress: Progress) -> Iterator[Run]:
    """A training, with its processes launched and its folder locked until the end.

    network: its name on the command line. Raises TrainingError, DeviceError; OutputError also for a full disk.
    """
    options.check()
    fabric = launched(loop.half_precision, options.device, options.devices)
    with ExitStack() as stack:
        own_progress = progress if fabric.is_global_zero else Progress()
        own_progress.begin(["scans", "training", "model"])

        def hold() -> None:
            stack.enter_context(training_lock(options.folder))
            facts = {"network": network, "steps": loop.steps, "minutes": loop.minutes}
            record_training(options.folder, options.command, **facts)

        from_first(fabric, hold)
        try:
            yield Run(options, fabric, own_progress)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)):
                raise
            where = error.filename or options.folder
            raise OutputError(f"The disk is full ({where}). Make room, then go on with --resume.") from error


def gather(options: RunOptions, kind: str, seed: int, progress: Progress) -> TrainingData:
    """Find, split and prepare the scans in the data folders. kind: as in `datasets.prepare`. Raises DataError."""
    scans = find_scans(options.data, options.annotator)
    return prepared(options, *split_by_patient(scans, options.validation_share, seed), kind, progress)


def prepared(
    options: RunOptions,
    training: Sequence[TrainingScan],
    validation: Sequence[TrainingScan],
    kind: str,
    progress: Progress,
) -> TrainingData:
    """Scans that are split already, prepared. kind: as in `datasets.prepare`. Raises CTError for one that is unfit."""
    cache = options.cache or default_cache()
    folders = prepare([*training, *validation], kind, cache, options.workers, progress.counted)
    cut = len(training)
    return TrainingData(tuple(training), tuple(validation), tuple(folders[:cut]), tuple(folders[cut:]))


def _keep_table(options: RunOptions, data: TrainingData) -> None:
    path, table = options.folder / "data.csv", data.table()
    if options.resume and path.exists() and path.read_text(encoding="utf-8") != table:
        raise DataError(f"The data are not those of {path}, with which this training began. Start anew.")
    write_text_atomically(path, table)


def write_model(
    options: RunOptions,
    config: Config,
    settings: object,
    seed: int,
    data: TrainingData,
    outcome: Outcome,
    judge: Callable[[LoadedModel], tuple[dict[str, object], dict[str, float]]],
    intended_use: str,
) -> Path:
    """Write the best weights with their card and return the card's path.

    judge: metrics and calibration of the model as scoring will load it, half precision and all, on the validation data.
    """
    network = build(config)
    network.load_state_dict(outcome.weights)
    values = {
        **json.loads(json.dumps(asdict(settings))),
        "steps_done": outcome.steps,
        "best_step": outcome.best_step,
        "processes": outcome.processes,
        "seconds": round(outcome.seconds, 1),
        "validation_share": options.validation_share,
    }
    preset = options.preset if config == PRESETS[options.preset].get(_network_of(config)) else "custom"
    training = Training(data.describe(options.annotator), seed, values, commit())
    card = describe(options.name, config, preset, training, {}, {}, LICENCE, intended_use)
    with tempfile.TemporaryDirectory() as temporary:
        metrics, calibration = judge(load_model(save_model(network, card, Path(temporary)), options.device))
    card = replace(card, validation=metrics, calibration=calibration)
    return save_model(network, card, options.output.parent, options.overwrite)


def commit() -> str:
    """The commit of these sources, with "-changed" when files differ from it; "unknown" outside a repository."""
    here = Path(__file__).parent
    try:
        head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, check=True)
        changes = subprocess.run(
            ["git", "status", "--porcelain", "--untracked-files=no"],
            cwd=here,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head.stdout.strip() + ("-changed" if changes.stdout.strip() else "")


def _network_of(config: Config) -> str:
    return next(name for name, preset in PRESETS["paper"].items() if isinstance(config, type(preset)))
