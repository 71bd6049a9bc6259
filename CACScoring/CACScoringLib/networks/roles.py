"""Roles of the networks: the one table that choice, bundles, trials, calibration, training and panels read."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from . import configs
from .configs import Config

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Role:
    """Role of a network.

    Attributes:
        config: Class of its configuration.
        network: Module in this package, and class, of the PyTorch network.
        task: What it finds, as bundles state it.
        parameter: Parameter of the panel that names its model; empty if there is none.
        is_optional: True for a network without which scans are scored too.
        title: Name in reports and panels.
        extras: Extras that it needs beside the base.
    """

    config: type[Config]
    network: str
    task: str
    parameter: str = ""
    is_optional: bool = False
    title: str = ""
    extras: tuple[str, ...] = ()


_MAP = "Coronary calcium map of CT slices"
_TERRITORIES = "Segmentation of the heart, and of the territories of its arteries, valves and great vessels, on CT"
_SLICES = "Detection of CT slices with visible coronary calcium"

SCORING = {
    "territories": Role(
        configs.TerritoryNetConfig, "territories.TerritoryNet", _TERRITORIES, "heartModel", True, "Heart network"
    ),
    "slices": Role(
        configs.SliceClassifierConfig, "van_velzen.SliceClassifier", _SLICES, "slicesModel", title="Slice network"
    ),
    "decomposition": Role(configs.GeneratorConfig, "van_velzen.Generator", _MAP, "mapModel", title="Map network"),
    "lesions": Role(configs.LesionNetConfig, "lesions.LesionNet", "Naming of calcified lesions on CT", "", True),
}
"""Networks that score a scan, by name; processors run them in OpenVINO."""

VESSELS, RADIOMICS, RADIOGRAPH = "vessels", "radiomics", "radiograph"
_REGRESSION = "Vessel regression"
_FEATURES = ("torch", "radiomics")

ESTIMATORS = {
    VESSELS: Role(
        configs.VesselNetConfig, "vessels.VesselNet", "Scores by artery", "vesselsModel", True, _REGRESSION, ("torch",)
    ),
    RADIOMICS: Role(
        configs.RadiomicsConfig, "radiomics.RadiomicsNet", "Any calcium", "radiomicsModel", True, "Radiomics", _FEATURES
    ),
}
"""Networks of whole-scan estimates, by name."""

ROLES = {
    **SCORING,
    **ESTIMATORS,
    RADIOGRAPH: Role(
        configs.RadiographNetConfig,
        "radiograph.RadiographNet",
        "Calcium on chest radiographs",
        "radiographModel",
        title="Radiograph network",
    ),
    "discriminator": Role(configs.DiscriminatorConfig, "van_velzen.PatchDiscriminator", "Real or synthetic slices"),
    "super_resolution": Role(
        configs.SliceSuperResolutionConfig, "van_velzen.SliceSuperResolution", "Thin slices from thick ones"
    ),
}
"""All networks, by name."""


def name_of(config: Config) -> str:
    """Return the name of the network of a configuration."""
    return next(name for name, role in ROLES.items() if isinstance(config, role.config))


def build(config: Config) -> nn.Module:
    """Return an untrained network of a configuration."""
    module, name = ROLES[name_of(config)].network.split(".")
    return getattr(importlib.import_module(f".{module}", __package__), name)(config)  # type: ignore[no-any-return]
