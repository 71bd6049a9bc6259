"""Declare the options of every training, and read the presets of its settings, without PyTorch."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from CACScoringLib.core.errors import ModelError, OutputError
from CACScoringLib.core.files import read_json
from CACScoringLib.core.options import Settings, changed_settings, option
from CACScoringLib.core.text import OUTPUT, REPLACE
from CACScoringLib.models.inference import DEVICES

PRESETS = Path(__file__).parents[1] / "Resources" / "Presets"


@dataclass(frozen=True)
class LoopSettings:
    """Settings of every training, recorded in the model card.

    Attributes:
        steps: Maximum number of batches.
        minutes: Time after which the training ends, whatever the steps; the learning rate then follows the time.
        validate_every: Steps between validations, each of which writes a checkpoint.
        patience: Validations without progress after which the training stops early; None never stops it.
        decay_from: Share of the run after which the learning rate falls linearly to 5 %; 1 keeps it, as published.
        average: Decay of the running average of weights that is validated and stored; 0 stores the weights themselves.
        half_precision: True for bfloat16 on devices that compute in it natively; 3-D networks learn in float32 on
            processors all the same (`distributed.choose_precision`). The card states what was used (`precision`).
        restarts: Maximum number of returns to the last healthy networks after a collapse.
        validation_share: Proportion of the patients to validate on.
        seed: Random seed of the weights, the batches and the split.
    """

    steps: int = option(1000, "batches at most")
    minutes: float | None = option(None, "end after this time, whatever the steps")
    validate_every: int = 250
    patience: int | None = option(None)
    decay_from: float = 0.5
    average: float = 0.99
    half_precision: bool = True
    restarts: int = 0
    validation_share: float = 0.2
    seed: int = option(0, "random seed of the weights, the batches and the split into training and validation")


@dataclass(frozen=True)
class RunOptions:
    """Options of one training on the command line.

    Attributes:
        data: Folder of scans, project or table to learn from; may be repeated.
        output: Path of the model, without an ending.
        preset: Named settings to begin with (default: the first of the network's).
        start: Card of a model with the initial weights.
        resume: Continue an interrupted training from its checkpoint.
        overwrite: Replace a model of this name.
        device: Device (default: auto).
        devices: Number of GPUs, each with one batch per step (not under torchrun).
        workers: Processes that prepare scans (default: one for each core).
        annotator: Learn from this person's labels (default: the majority of annotators).
        command: Arguments of the command line, if any.
    """

    data: tuple[Path, ...] = option(metavar="DIR")
    output: Path = option(required=True, metavar="MODEL")
    preset: str = option("", metavar="NAME")
    start: Path | None = option(None, metavar="MODEL")
    resume: bool = False
    overwrite: bool = False
    device: str = option("auto", choices=DEVICES)
    devices: int = option(1, metavar="N")
    workers: int = option(1, metavar="N")
    annotator: str | None = option(None, metavar="NAME")
    command: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Name of the model."""
        return self.output.name.removesuffix(".json")

    @property
    def folder(self) -> Path:
        """Folder of checkpoint and curves, beside the model."""
        return self.output.parent / f"{self.name}.training"

    def only_table(self) -> Path:
        """Return the table of a training that learns from one. Raises OutputError."""
        if len(self.data) != 1:
            raise OutputError(f"This training learns from one table: give --data once, not {len(self.data)} times.")
        return self.data[0]

    def check(self) -> None:
        """Check before the training that the model can be written. Raises ModelError, OutputError."""
        from CACScoringLib.models.cards import NAME  # loads SciPy, which Slicer's modules do without at first

        if not NAME.fullmatch(self.name):
            raise ModelError(
                f"{self.name!r} is not a name for a model: use small letters, digits, dots, dashes, underscores."
            )
        card = self.output.with_name(f"{self.name}.json")
        if card.exists() and not self.overwrite:
            raise OutputError(f"{card} exists already. Choose {OUTPUT}{REPLACE}.")


def read_presets(network: str, *defaults: Settings) -> dict[str, Settings]:
    """Read the settings of a network's training by preset, the default first.

    defaults: Settings that a preset changes; of several, those that have the preset's fields. Raises OutputError.
    """
    content = read_json(PRESETS / f"{network}.json")
    presets = {}
    for name, changes in content.items():
        base = next((default for default in defaults if changes.keys() <= vars(default).keys()), defaults[0])
        presets[name] = changed_settings(base, changes, f"{network}.{name}")
    return presets


def settings_as_json(settings: Any) -> dict[str, Any]:
    """Return settings as JSON values, for checkpoints and model cards; paths by their names alone, for folders vary."""
    return json.loads(json.dumps(dataclasses.asdict(settings), sort_keys=True, default=lambda path: path.name))
