"""The options of every training: how long, from what, and what it writes. Nothing here needs PyTorch."""

# An option is a field, not a default that all share.
# ruff: noqa: RUF009

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from CACScoringLib.core.options import Row, add_options, settings_from, told
from CACScoringLib.core.output import OutputError
from CACScoringLib.models.cards import NAME, ModelError
from CACScoringLib.models.inference import DEVICES

BATCH_SIZE = "samples per step (default: the preset's)"
LEARNING_RATE = "of the Adam optimiser (default: the published one)"


@dataclass(frozen=True)
class LoopSettings:
    """How long and how a network is trained; recorded in its model card.

    steps: batches seen at most. minutes: end after this time, whatever the steps; the rate then follows the time.
    validate_every: steps between validations, each of which writes a checkpoint. patience: validations without progress
    until it stops early; None never stops. decay_from: share of the run after which the learning rate falls linearly to
    5 %; 1 keeps it, as published. average: decay of the running average of weights that is validated and kept; 0 keeps
    the weights themselves. half_precision: bfloat16 where the device has it. restarts: how often a training that has
    collapsed goes back to its last healthy networks.
    """

    steps: int = told(
        help="batches at most (default: the preset's)",
        row=Row(
            "Maximum steps:", "Training ends after this many batches; 0 is the default of the size.", "as the size sets"
        ),
    )
    minutes: float | None = told(
        None,
        "end after this time, whatever the steps",
        Row("Maximum minutes:", "Training ends after this time; 0 sets no limit.", "no limit", 1),
    )
    validate_every: int = told(250, "steps between validations", metavar="STEPS")
    patience: int | None = told(
        None,
        "stop after N validations without progress",
        Row(
            "Patience:", "Training stops after this many validations without progress; 0 is never.", "never stop early"
        ),
        metavar="N",
    )
    decay_from: float = 0.5
    average: float = 0.99
    half_precision: bool = True
    restarts: int = told(
        0, "go back to the last healthy networks at most N times, when a training collapses", metavar="N"
    )
    seed: int = told(0, "random seed of the weights, the batches and the split into training and validation")


@dataclass(frozen=True)
class RunOptions:
    """data: folders of scans and projects. output: the model's card, or its path without an ending.

    devices: processes to start; torchrun's, where it has started this one. cache: of prepared scans. annotator: whose
    labels to learn from, of a project that several have annotated. command: the command line's arguments, if any.
    """

    data: tuple[Path, ...] = told(
        help="folder of scans, or a project; may be repeated", action="append", default=[], metavar="DIR"
    )
    output: Path = told(help="the model's path, without an ending", required=True, metavar="MODEL")
    preset: str = told("compact", "size of the network and settings of its training")
    resume: bool = told(False, "go on from the checkpoint of a training that was ended")
    overwrite: bool = told(False, "replace a model of this name")
    device: str = told("auto", choices=DEVICES)
    devices: int = told(1, "GPUs, each with a whole batch a step (not under torchrun)", metavar="N")
    workers: int = told(1, "processes that prepare scans", default=os.cpu_count() or 1, metavar="N")
    cache: Path | None = told(None, "where prepared scans are kept (default: the user's cache folder)", metavar="DIR")
    validation_share: float = told(0.2, "proportion of patients to validate on")
    annotator: str | None = told(
        None, "learn from this person's labels (default: the majority of annotators)", metavar="NAME"
    )
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
                f"{self.name!r} is not a name for a model: use small letters, digits, dots, dashes, underscores."
            )
        card = self.output.with_name(f"{self.name}.json")
        if card.exists() and not self.overwrite:
            raise OutputError(f"{card} exists already. Choose another --output, or replace it with --overwrite.")


def add_arguments(parser: argparse.ArgumentParser, kind: type, presets: object) -> None:
    """Declare the options of every training of a network for CTs. kind: of its settings. presets: names."""
    preset = {"choices": presets}
    add_options(parser, RunOptions, *("data", "annotator", "output", "preset", "resume", "overwrite"), preset=preset)
    add_options(parser, LoopSettings, "seed", "steps", "minutes")
    add_options(parser, kind, "batch_size", "learning_rate")
    add_options(parser, LoopSettings, "validate_every", "patience")
    add_options(parser, RunOptions, "validation_share", "device", "devices", "workers", "cache")


def options_from(arguments: argparse.Namespace) -> RunOptions:
    """The options of a run, from the command line."""
    data = getattr(arguments, "data", [])  # one training makes its own scans
    data = data if isinstance(data, list) else [data]
    command = tuple(sys.argv[1:]) if sys.argv[1:2] == ["train"] else ()
    given = RunOptions(tuple(data), arguments.output, command=command)
    return settings_from(arguments, given, [name for name in vars(given) if name not in ("data", "command")])
