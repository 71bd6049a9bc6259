"""All networks by name."""

from __future__ import annotations

from torch import nn

from .configs import (
    DiscriminatorConfig,
    GeneratorConfig,
    LesionNetConfig,
    SliceClassifierConfig,
    SliceSuperResolutionConfig,
    TerritoryNetConfig,
    VesselNetConfig,
)
from .lesions import LesionNet
from .radiograph import RadiographNet, RadiographNetConfig
from .radiomics import RadiomicsConfig, RadiomicsNet
from .territories import TerritoryNet
from .van_velzen import Generator, PatchDiscriminator, SliceClassifier, SliceSuperResolution
from .vessels import VesselNet

Config = (
    SliceClassifierConfig
    | GeneratorConfig
    | DiscriminatorConfig
    | SliceSuperResolutionConfig
    | RadiographNetConfig
    | RadiomicsConfig
    | VesselNetConfig
    | TerritoryNetConfig
    | LesionNetConfig
)

NETWORKS: dict[str, tuple[type, type[nn.Module]]] = {
    "slices": (SliceClassifierConfig, SliceClassifier),
    "decomposition": (GeneratorConfig, Generator),
    "discriminator": (DiscriminatorConfig, PatchDiscriminator),
    "super_resolution": (SliceSuperResolutionConfig, SliceSuperResolution),
    "radiograph": (RadiographNetConfig, RadiographNet),
    "radiomics": (RadiomicsConfig, RadiomicsNet),
    "vessels": (VesselNetConfig, VesselNet),
    "territories": (TerritoryNetConfig, TerritoryNet),
    "lesions": (LesionNetConfig, LesionNet),
}
"""Name of each network, its configuration and its class."""


def build(config: Config) -> nn.Module:
    """An untrained network of this configuration."""
    for kind, network in NETWORKS.values():
        if isinstance(config, kind):
            return network(config)
    raise TypeError(f"{type(config).__name__} is no network's configuration.")
