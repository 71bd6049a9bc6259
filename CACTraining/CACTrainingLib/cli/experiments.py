"""Experiments by name: models that `cac train` stores and `cac evaluate` compares. Loads none of them."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..evaluation.experiment import Experiment

LOOP = ("seed", "steps", "minutes", "resume", "device")
"""Options of `cac train` for networks."""


@dataclass(frozen=True)
class ExperimentCommand:
    """An experiment on the command line.

    Attributes:
        module: Module in CACTrainingLib.
        kind: Its subclass of `Experiment`.
        network: What it trains, in the help of `cac train`.
        study: What it compares, in the help of `cac evaluate`.
        of_training: Options of `cac train` besides the common ones and --data.
        of_study: Options of `cac evaluate` besides the common ones, --data, --seed, --yes and --workers.
        extras: Extras that it needs besides "studies".
    """

    module: str
    kind: str
    network: str
    study: str
    of_training: tuple[str, ...]
    of_study: tuple[str, ...] = ("device",)
    extras: tuple[str, ...] = ()

    def load(self) -> type[Experiment]:
        """Import the experiment."""
        kind: type[Experiment] = getattr(importlib.import_module(f"CACTrainingLib.{self.module}"), self.kind)
        return kind


EXPERIMENTS = {
    "radiograph": ExperimentCommand(
        "radiograph.study",
        "RadiographStudy",
        "network that detects coronary calcium on chest radiographs",
        "cross-validated categories of calcium on radiographs",
        ("start", *LOOP),
    ),
    "vessels": ExperimentCommand(
        "whole_scan.vessels.study",
        "VesselStudy",
        "network that estimates scores of arteries from the whole CT",
        "regression of the scores of the arteries, cross-validated",
        ("start", *LOOP, "workers", "cluster"),
    ),
    "radiomics": ExperimentCommand(
        "whole_scan.radiomics.study",
        "RadiomicsStudy",
        "model that detects coronary calcium by radiomic features",
        "any coronary calcium by radiomics, cross-validated",
        ("seed", "workers", "cluster"),
        ("encoder",),
        ("radiomics",),
    ),
}
