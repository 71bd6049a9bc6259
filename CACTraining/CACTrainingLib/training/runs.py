"""Run `cac train`: gather the data, lock the folder, train, and write the best weights with their card."""

from __future__ import annotations

import errno
import hashlib
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lightning_fabric import Fabric
from torch import nn

from CACScoringLib.core.errors import CTError, DataError, ModelError, OutputError
from CACScoringLib.core.files import write_text_atomically
from CACScoringLib.core.progress import Progress
from CACScoringLib.core.tables import table_text
from CACScoringLib.core.text import RESUME, START, counted
from CACScoringLib.core.version import commit
from CACScoringLib.models.cards import (
    REAL_PATIENTS,
    LoadedModel,
    ModelCard,
    Training,
    describe,
    list_models,
    load_model,
    read_network,
)
from CACScoringLib.models.store import save_model
from CACScoringLib.networks.configs import build

from ..data.datasets import SliceDataset, default_cache, find_scans, load_slices, prepare, split_by_patient
from ..data.drawn_scans import DRAWING_VERSION, DrawnScan, drawn_scans
from ..project.training_scan import TrainingScan
from .curves import validations
from .distributed import from_first, in_turn, make_fabric
from .loop import Outcome, train
from .run_folder import has_checkpoint, record_training, training_lock
from .settings import LoopSettings, RunOptions, settings_as_json
from .task import Task

BUNDLED = "bundled"
"""Value of `start` in presets that begin with the weights that come with CAC."""

LICENCE = "Apache-2.0"
STEPS = ("scans", "training", "model")


@dataclass(frozen=True)
class TrainingData:
    """Scans by use, and their folders in the cache in the same order."""

    training: tuple[TrainingScan, ...]
    validation: tuple[TrainingScan, ...]
    training_folders: tuple[Path, ...]
    validation_folders: tuple[Path, ...]

    def table(self) -> str:
        """Return every scan with its use as CSV, for the hash on the model card; without paths, which vary."""
        uses = (("training", self.training), ("validation", self.validation))
        scans = ((use, scan, scan.content_hash()) for use, part in uses for scan in part)
        rows = sorted((use, scan.patient, scan.kind, sha256) for use, scan, sha256 in scans)
        return table_text(("use", "patient", "kind", "sha256"), rows)

    def describe(self, annotator: str | None = None) -> str:
        """Return a description for the model card. annotator: Annotator whose labels were used; None for all."""
        parts = []
        for use, scans in (("training", self.training), ("validation", self.validation)):
            kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(Counter(s.kind for s in scans).items()))
            patients = counted(len({s.patient for s in scans}), "patient")
            text = f"{use}: {counted(len(scans), 'scan')} of {patients} ({kinds})"
            if labelled := [scan for scan in scans if scan.annotators]:
                people = ", ".join(sorted({name for scan in labelled for name in scan.annotators}))
                text += f", of them {len({s.patient for s in labelled})} {REAL_PATIENTS} {people}"
            if numbers := sorted(scan.number for scan in scans if isinstance(scan, DrawnScan)):
                text += f", digital patients {numbers[0]} to {numbers[-1]} drawn for it (drawing {DRAWING_VERSION})"
            if count := sum(scan.automatic is not None for scan in scans):
                text += f", {count} scans with an automatic score"
            parts.append(text)
        if annotator is not None:
            parts.append(f"labels by {annotator}")
        return f"{'; '.join(parts)}; table SHA-256 {hashlib.sha256(self.table().encode()).hexdigest()}"


@dataclass(frozen=True)
class TrainedModel:
    """Trained network, and what its card states.

    Attributes:
        network: The network.
        config: Its configuration.
        size: Preset for the card.
        data: Description of the training data.
        seed: Seed of the training.
        facts: Facts of the training, JSON values.
        intended_use: Sentences on its use.
        evaluate: Function that returns metrics and calibration of the model as scoring will load it.
    """

    network: nn.Module
    config: Any
    size: str
    data: str
    seed: int
    facts: dict[str, Any]
    intended_use: str
    evaluate: Callable[[LoadedModel], tuple[dict[str, Any], dict[str, Any]]]


@dataclass(frozen=True)
class Run:
    """Running training, in one of its processes.

    Attributes:
        options: Options of the command line.
        settings: Settings of the network's training, with `loop` and `network`.
        presets: Settings of the network by preset.
        fabric: Lightning Fabric of the processes.
        progress: Progress, silent except in the first process.
    """

    options: RunOptions
    settings: Any
    presets: Mapping[str, Any]
    fabric: Fabric
    progress: Progress

    def gather_slices(self) -> tuple[TrainingData, SliceDataset, SliceDataset]:
        """Find the scans in the data folders, draw the settings' digital patients, and load their slices.

        Returns the data, and the slices for training and for validation. Raises CTError.
        """
        options, loop = self.options, self.settings.loop
        drawn = drawn_scans(self.settings.patients, loop.validation_share)

        def split() -> tuple[list[TrainingScan], list[TrainingScan]]:
            scans = [*find_scans(options.data, options.annotator), *drawn]
            return split_by_patient(scans, loop.validation_share, loop.seed)

        data = self.prepare("slices", split)
        training, validation = (
            SliceDataset([load_slices(folder) for folder in folders])
            for folders in (data.training_folders, data.validation_folders)
        )
        return data, training, validation

    def prepare(
        self, kind: str, split: Callable[[], tuple[Sequence[TrainingScan], Sequence[TrainingScan]]]
    ) -> TrainingData:
        """Find scans, prepare them, and write their table as `data.csv`; the first process goes first.

        kind: Kind of preparation, as in `datasets.prepare`. split: Function that finds the scans for training and for
        validation. Raises CTError for an unsuitable scan, and for a resumed training with other scans.
        """

        def job() -> TrainingData:
            training, validation = map(tuple, split())
            cache, workers = default_cache(), self.options.workers
            folders = prepare([*training, *validation], kind, cache, workers, self.progress.counted)
            count = len(training)
            return TrainingData(training, validation, tuple(folders[:count]), tuple(folders[count:]))

        with self.progress.step("scans"):
            data = in_turn(self.fabric, job)
            from_first(self.fabric, lambda: _write_table(self.options, data))
        return data

    def train(self, task: Task[object]) -> Outcome:
        """Train with the options of this run; see `training.loop.train`."""
        loop, options = self.settings.loop, self.options
        with self.progress.step("training"):
            return train(task, loop, options.folder, self.progress, resume=options.resume, fabric=self.fabric)

    def write_model(
        self,
        settings: Any,
        data: str,
        outcome: Outcome,
        evaluate: Callable[[LoadedModel], tuple[dict[str, object], dict[str, float]]],
        intended_use: str,
        start: ModelCard | None = None,
    ) -> Path:
        """Write the best weights with their card in the first process; return the card's path.

        data: Description of the training data for the card. evaluate: Function that returns metrics and calibration of
        the model on the validation data, given the model as scoring will load it (half precision included). start: Card
        of the model that the training began with; its data come first.
        """
        config = settings.network
        sizes = (name.partition("-")[0] for name, preset in self.presets.items() if preset.network == config)

        def write() -> Path:
            network = outcome.load_into(build(config))
            values = {name: value for name, value in settings_as_json(settings).items() if name != "network"}
            values |= {**outcome.facts(), "processes": outcome.processes}
            before = f"Begun from {start.name}, whose data were: {start.training.data}. Then " if start else ""
            about = (config, next(sizes, "custom"), before + data, settings.loop.seed, values, intended_use)
            return self.write_network(TrainedModel(network, *about, evaluate), self.options.device)

        with self.progress.step("model"):
            return from_first(self.fabric, write)

    def write_network(self, model: TrainedModel, device: str = "cpu") -> Path:
        """Write a trained network with its card in this process; return the card's path."""
        training = Training(model.data, model.seed, model.facts, commit(), validations(self.options.folder))
        card = describe(self.options.name, model.config, model.size, training, {}, {}, LICENCE, model.intended_use)
        metrics, calibration = model.evaluate(as_scoring_loads(model.network, card, device))
        card = replace(card, validation=metrics, calibration=calibration)
        path = save_model(model.network, card, self.options.output.parent, self.options.overwrite)
        self.progress.done(path)
        return path


@contextmanager
def training_run(
    options: RunOptions,
    network: str,
    settings: Any,
    presets: Mapping[str, Any],
    progress: Progress,
    steps: Sequence[str] = STEPS,
) -> Iterator[Run]:
    """Launch a training's processes and lock its folder until the end.

    Args:
        network: Name on the command line.
        settings: Settings of the training; those without `loop` have no checkpoint, and one process.
        steps: Names of the steps for the progress.

    Raises:
        OutputError: The model exists, an earlier training is not resumed, or the disk is full.
        CTError: The processes cannot start, or another one trains in the folder.
    """
    options.check()
    loop: LoopSettings | None = getattr(settings, "loop", None)
    fabric = make_fabric(loop.half_precision, options.device, options.devices) if loop else make_fabric(False, "cpu")
    # Never disconnected: PyTorch may hang if a process group is destroyed before the networks trained in it.
    fabric.launch()
    with ExitStack() as stack:
        process_progress = progress if fabric.is_global_zero else Progress()
        process_progress.begin(list(steps))

        def hold() -> None:
            stack.enter_context(training_lock(options.folder))
            facts: dict[str, object] = {"network": network}
            if loop:
                has_checkpoint(options.folder, options.resume)
                facts |= {"steps": loop.steps, "minutes": loop.minutes}
            record_training(options.folder, options.command, **facts)

        from_first(fabric, hold)
        try:
            yield Run(options, settings, presets, fabric, process_progress)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)):
                raise
            path = error.filename or options.folder
            raise OutputError(f"The disk is full ({path}). Make room, then go on with {RESUME}.") from error


def as_scoring_loads(network: nn.Module, card: ModelCard, device: str = "cpu") -> LoadedModel:
    """Load a trained network as scoring does: weights of half precision, layers fused."""
    with tempfile.TemporaryDirectory() as temporary:
        return load_model(save_model(network, card, Path(temporary)), device)


def start_from(
    options: RunOptions, settings: Any, *networks: str
) -> tuple[Any, ModelCard, nn.Module] | tuple[Any, None, None]:
    """Read the model to start from, which must be of one of these networks: that of --start, else of the preset.

    Returns the settings, which record it and have its configuration if it is of the first network; its card and itself.
    Raises ModelError.
    """
    start = options.start
    if start is None and settings.start == BUNDLED:
        start = next(model.path for model in list_models(networks[0]) if model.origin == BUNDLED)
    if start is None:
        return settings, None, None
    card, network = read_start(start, *networks)
    config = type(settings.network)(**card.config) if card.network == networks[0] else settings.network
    return replace(settings, network=config, start=card.sha256), card, network


def read_start(path: Path, *networks: str) -> tuple[ModelCard, nn.Module]:
    """Read the card and the network of a model to start from, which must be of one of these networks.

    Raises ModelError.
    """
    card, network = read_network(path)
    if card.network not in networks:
        raise ModelError(f"{path} is a model for {card.network!r}; {START} needs one for {' or '.join(networks)}.")
    return card, network


def check_start_share(share: float, has_start: bool) -> None:
    """Raise CTError for a share of the initial weights that is impossible, or of which there is no model."""
    if not 0 <= share < 1:
        raise CTError(f"start_share is {share:g}. Give a share of the initial weights from 0 to below 1.")
    if share and not has_start:
        raise CTError(f"start_share {share:g} needs initial weights. Name their model by {START}, or leave it out.")


def _write_table(options: RunOptions, data: TrainingData) -> None:
    path, table = options.folder / "data.csv", data.table()
    if options.resume and path.exists() and path.read_text(encoding="utf-8") != table:
        raise DataError(f"The data are not those of {path}, with which this training began. Start anew.")
    write_text_atomically(path, table)
