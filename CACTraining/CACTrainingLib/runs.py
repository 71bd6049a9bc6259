"""From the command line to a model: options, data, and the best weights written with their card."""

from __future__ import annotations

import argparse
import csv
import hashlib
import io
import json
import os
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from CACScoringLib.inference import DEVICES
from CACScoringLib.models import NAME, LoadedModel, ModelError, Training, describe, load_model, save_model
from CACScoringLib.networks import PRESETS, Config, build
from CACScoringLib.output import OutputError
from CACScoringLib.progress import Progress

from .datasets import (
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
from .training import LoopSettings, Outcome

LICENCE = "Apache-2.0"


@dataclass(frozen=True)
class RunOptions:
    """data: folders of scans. output: the model's card, or its path without an ending. cache: of prepared scans."""

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
    add("--data", type=Path, action="append", default=[], metavar="DIR", help="folder of scans; may be repeated")
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
    add("--devices", type=int, default=1, metavar="N", help="number of GPUs")
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
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["use", "patient", "kind", "sha256"])
        rows = []
        for use, scans in (("training", self.training), ("validation", self.validation)):
            for scan in scans:
                source = scan.truth or scan.ct
                rows.append((use, scan.patient, scan.kind, hashlib.sha256(source.read_bytes()).hexdigest()))
        writer.writerows(sorted(rows))
        return text.getvalue()

    def describe(self) -> str:
        """For the model card."""
        parts = []
        for use, scans in (("training", self.training), ("validation", self.validation)):
            kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(Counter(s.kind for s in scans).items()))
            parts.append(f"{use}: {len(scans)} scans of {len({s.patient for s in scans})} patients ({kinds})")
        return f"{'; '.join(parts)}; table SHA-256 {hashlib.sha256(self.table().encode()).hexdigest()}"


def gather(options: RunOptions, kind: str, seed: int, progress: Progress) -> TrainingData:
    """Find, split and prepare the scans in the data folders. kind: as in `datasets.prepare`. Raises DataError."""
    scans = find_scans(options.data)
    return prepared(options, *split_by_patient(scans, options.validation_share, seed), kind, progress)


def gather_slices(
    options: RunOptions, seed: int, progress: Progress
) -> tuple[TrainingData, SliceDataset, SliceDataset]:
    """The scans in the data folders, and their slices to train and to validate on. Raises DataError."""
    data = gather(options, "slices", seed, progress)
    training, validation = (
        SliceDataset([load_slices(folder) for folder in folders])
        for folders in (data.training_folders, data.validation_folders)
    )
    return data, training, validation


def prepared(
    options: RunOptions,
    training: Sequence[TrainingScan],
    validation: Sequence[TrainingScan],
    kind: str,
    progress: Progress,
) -> TrainingData:
    """Split scans, prepared; their table is written beside the checkpoint as `data.csv`."""
    cache = options.cache or default_cache()
    folders = prepare([*training, *validation], kind, cache, options.workers, progress.counted)
    cut = len(training)
    data = TrainingData(tuple(training), tuple(validation), tuple(folders[:cut]), tuple(folders[cut:]))
    options.folder.mkdir(parents=True, exist_ok=True)
    table = options.folder / "data.csv"
    if options.resume and table.exists() and table.read_text(encoding="utf-8") != data.table():
        raise DataError(f"The data are not those of {table}, with which this training began. Start anew.")
    table.write_text(data.table(), encoding="utf-8")
    return data


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
        "seconds": round(outcome.seconds, 1),
        "validation_share": options.validation_share,
    }
    preset = options.preset if config == PRESETS[options.preset].get(_network_of(config)) else "custom"
    training = Training(data.describe(), seed, values, commit())
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
