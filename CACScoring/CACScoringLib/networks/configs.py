"""Configurations and roles of all networks; read without PyTorch."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..core.files import resource_rows

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Config:
    """Configuration of a network."""


POSITION_CHANNELS = 3
STRIDE = 4
"""Sides of the input of `van_velzen`'s networks must be multiples of this, because they halve them twice."""


@dataclass(frozen=True)
class SliceClassifierConfig(Config):
    """Configuration of `van_velzen.SliceClassifier`.

    Attributes:
        width: Channels of the first layer.
        residual_blocks: Blocks at a quarter of the size.
        pooling: "average" as published, or "average+max", which learns lesions of one or two pixels much earlier.
        neighbours: Slices on either side in further channels of the input.
        position: True if the input has channels with the place in the heart's frame.
        size: Side of the input, a square around the heart's centre, in pixels.
    """

    width: int = 64
    residual_blocks: int = 6
    pooling: str = "average"
    neighbours: int = 0
    position: bool = False
    size: int = 224

    def __post_init__(self) -> None:
        _check_choice("pooling", self.pooling, ("average", "average+max"))


@dataclass(frozen=True)
class GeneratorConfig(Config):
    """Configuration of `van_velzen.Generator`.

    Attributes:
        width: Channels of the first layer.
        residual_blocks: Blocks at a quarter of the size.
        upsampling: "transposed" as published, or "resize" (nearest neighbour, then convolution: no checkerboard).
        skips: True to add the features of the way down to those of the way up, which keeps small lesions sharp.
        neighbours: Slices on either side in further channels of the input.
        position: True if the input has channels with the place in the heart's frame.
    """

    width: int = 64
    residual_blocks: int = 6
    upsampling: str = "transposed"
    skips: bool = False
    neighbours: int = 0
    position: bool = False

    def __post_init__(self) -> None:
        _check_choice("upsampling", self.upsampling, ("transposed", "resize"))


@dataclass(frozen=True)
class DiscriminatorConfig(Config):
    """Configuration of `van_velzen.PatchDiscriminator`.

    Attributes:
        width: Channels of the first layer.
        stem_stride: 2 as published; 1 adds a normalised full-resolution stem, sensitive to single pixels.
        pooling: "average" of the patch logits as published. "average+max" adds the highest, to tell images with calcium
            from synthetic ones; "average+min" the lowest, for images without calcium, which one patch with calcium
            shows to be synthetic.
    """

    width: int = 64
    stem_stride: int = 2
    pooling: str = "average"

    def __post_init__(self) -> None:
        _check_choice("pooling", self.pooling, ("average", "average+max", "average+min"))
        _check_choice("stem_stride", self.stem_stride, (1, 2))


@dataclass(frozen=True)
class SliceSuperResolutionConfig(Config):
    """Configuration of `van_velzen.SliceSuperResolution`.

    Attributes:
        factor: Thin slices per thick slice.
        neighbours: Thick slices on either side in further channels of the input.
        width: Channels of each layer.
        layers: Convolutions between the first and the last.
    """

    factor: int = 3
    neighbours: int = 2
    width: int = 16
    layers: int = 3


@dataclass(frozen=True)
class TerritoryNetConfig(Config):
    """Configuration of `territories.TerritoryNet`.

    Attributes:
        width: Channels at full size; each of the three levels below has twice as many as that above.
        blocks: Residual blocks at the lowest level.
    """

    width: int = 12
    blocks: int = 2


@dataclass(frozen=True)
class LesionNetConfig(Config):
    """Configuration of `lesions.LesionNet`.

    Attributes:
        width: Channels of the first layer.
        dropout: Share of the lowest features left out in training.
    """

    width: int = 16
    dropout: float = 0.2


LESION_PATCH = (16, 48, 48)
"""Voxels of a patch along k, j, i."""

KIND_ROWS = resource_rows("lesion_kinds.csv")
"""Kinds of what is dense, each with the answer that it belongs to, the site of that and words for it."""

LESION_KINDS = tuple(row["kind"] for row in KIND_ROWS)
"""Kinds of what is dense. The first four are coronary calcium, "other calcium" is that of nodes and papillary muscles,
and "noise" all that is neither calcium nor a device: noise, streaks, bone and bright tissue."""

LESION_IMAGES, LESION_TERRITORIES = 4, 11
"""Channels of the patch: three windows of the CT and what is dense; then the territories, and last the noise."""

TERRITORY_STRIDE = (2, 4, 4)
"""Voxels of the patch along k, j, i that share one value of the territories."""


STANDARD_MM = 0.5
"""Pixel size of standard views of a radiograph on the detector."""

VIEWS = ("PA", "lateral")
BACKBONES = ("light", "resnet18", "densenet121")


@dataclass(frozen=True)
class RadiographNetConfig(Config):
    """Configuration of `RadiographNet`.

    Attributes:
        backbone: One of BACKBONES.
        views: Views of the input, in this order.
        thresholds: Lowest Agatston score of each logit; 0 stands for any calcium.
        size: Side of the square in pixels; "light" takes pixels of STANDARD_MM.
        width: Channels of "light" at full resolution of its evidence.
        enhancement: Enhancement of the views by the caller, a name in `radiograph.view.ENHANCEMENTS`.
        dropout: Share of features dropped in training.
        details: True to add details of several sizes to the input.
    """

    backbone: str = "light"
    views: tuple[str, ...] = ("PA",)
    thresholds: tuple[float, ...] = (0.0, 100.0, 400.0)
    size: int = 336
    width: int = 24
    enhancement: str = "none"
    dropout: float = 0.2
    details: bool = True

    def __post_init__(self) -> None:
        # A card's lists become tuples again, so that a configuration read back equals the one written.
        object.__setattr__(self, "views", tuple(self.views))
        object.__setattr__(self, "thresholds", tuple(float(t) for t in self.thresholds))
        if self.backbone not in BACKBONES:
            raise ValueError(f"backbone is {self.backbone!r}; it has to be one of {', '.join(BACKBONES)}.")
        if not self.views or len(set(self.views)) < len(self.views) or set(self.views) - set(VIEWS):
            raise ValueError(f"views are {self.views}; they have to be one or both of {', '.join(VIEWS)}.")
        if not self.thresholds or list(self.thresholds) != sorted(set(self.thresholds)):
            raise ValueError(f"thresholds are {self.thresholds}; they have to rise.")
        if self.size < 32 or self.size % 8:
            raise ValueError(f"size is {self.size}; it has to be a multiple of 8, from 32 up.")

    @property
    def field_mm(self) -> float:
        """Side of the square on the detector."""
        return self.size * STANDARD_MM


@dataclass(frozen=True)
class RadiomicsConfig(Config):
    """Configuration of `RadiomicsNet`.

    Attributes:
        features: Names in the order of the network's input, a selection of `radiomics.radiomic_features`.
        heart_mm: Side of the voxels on which the heart's features are computed.
        bin_width_hu: Bin width of histograms and textures.
        low_hu: Lower limit of densities in the heart's features, against lung at its border.
        high_hu: Upper limit of densities in the heart's features, against metal at its border.
    """

    features: tuple[str, ...] = ()
    heart_mm: float = 2.5
    bin_width_hu: float = 25.0
    low_hu: float = -200.0
    high_hu: float = 1000.0

    def __post_init__(self) -> None:
        # A card's list becomes a tuple again, so that a configuration read back equals the one written.
        object.__setattr__(self, "features", tuple(self.features))
        if len(set(self.features)) < len(self.features):
            raise ValueError("A feature is named twice among the features.")
        if not self.heart_mm > 0 or not self.bin_width_hu > 0 or not self.low_hu < self.high_hu:
            raise ValueError("heart_mm and bin_width_hu have to be above 0, and low_hu below high_hu.")


VESSEL_KINDS = ("cnn", "se-cnn", "vit", "voxel-sum")
VESSEL_FIELDS = ("scan", "heart")
VESSEL_OUTPUTS = ("linear", "log")
VOXEL_SUM_CELL = 8
"""Side of a cell of "voxel-sum" in pixels."""
TERRITORY_STEP = 1 / 16
"""Value of a territory's number in the input of "voxel-sum", which half precision holds exactly."""
UNLIKELY = 0.02
"""Probability of coronary calcium up to which what is dense is not calcium to "voxel-sum", rather than undetermined."""


@dataclass(frozen=True)
class VesselNetConfig(Config):
    """Configuration of `vessels.VesselNet`. The defaults are the published values.

    Attributes:
        kind: One of VESSEL_KINDS.
        slices: Slices of the input; see `whole_scan.vessels`.
        size: Side of the input in pixels.
        field: "scan" as published, or "heart": a square about the heart without what is further from it than around_mm.
        field_mm: Side of the field "heart".
        slice_mm: Slice thickness in the field "heart".
        around_mm: Margin around the heart in the field "heart".
        low_hu: Density scaled to 0 in the field "heart".
        high_hu: Density scaled to 1 in the field "heart".
        width: Channels of the first layer.
        pooling: Pooling of "cnn" and "se-cnn": "average" as published, or "average+max", which is sensitive to lesions
            of few pixels.
        bright_hu: Density above which "voxel-sum" evaluates a cell. 100 HU covers a fiftieth of the heart, which is
            fast; 60 HU covers half of it, faint calcium included.
        territories: True if the input of "voxel-sum" has the territory of each voxel too, which then is its artery.
        least_probability: Probability of coronary calcium up to which a voxel adds nothing to a trained "voxel-sum", so
            that the faint doubts of a whole heart do not add up. With territories it is the mean of a lesion, which is
            undetermined up to it.
        output: Normalisation of scores: "linear", or "log", in which a patient with very much calcium does not dominate
            the loss.
        reduction: r of squeeze-and-excite.
        patch: Side of the patches of "vit" in pixels.
        depth: Layers of "vit".
        heads: Attention heads of "vit".
        feed_forward: Width of the feed-forward layers of "vit".
        dropout: Share of features dropped in training.
    """

    kind: str = "cnn"
    slices: int = 73
    size: int = 512
    field: str = "scan"
    field_mm: float = 160.0
    slice_mm: float = 3.0
    around_mm: float = 5.0
    low_hu: float = -100.0
    high_hu: float = 900.0
    width: int = 32
    pooling: str = "average"
    bright_hu: float = 100.0
    territories: bool = False
    least_probability: float = 0.0
    output: str = "linear"
    reduction: int = 16
    patch: int = 32
    depth: int = 3
    heads: int = 4
    feed_forward: int = 512
    dropout: float = 0.0

    def __post_init__(self) -> None:
        _check_choice("kind", self.kind, VESSEL_KINDS)
        _check_choice("field", self.field, VESSEL_FIELDS)
        _check_choice("pooling", self.pooling, ("average", "average+max"))
        _check_choice("output", self.output, VESSEL_OUTPUTS)
        multiple = {"vit": self.patch, "voxel-sum": VOXEL_SUM_CELL}.get(self.kind, 8)
        if self.slices < 1 or self.size < 8 or self.size % multiple:
            raise ValueError(f"{self.slices} slices of {self.size}²: size has to be a multiple of {multiple}.")
        if self.territories and self.kind != "voxel-sum":
            raise ValueError('Only "voxel-sum" has an input for territories.')
        if self.kind == "voxel-sum" and self.field != "heart":
            raise ValueError('"voxel-sum" needs the field "heart": in that of the scan there is no HU to sum.')
        if not (self.field_mm > 0 and self.slice_mm > 0 and self.around_mm >= 0 and self.low_hu < self.high_hu):
            raise ValueError("field_mm and slice_mm have to be above 0, and low_hu below high_hu.")

    @property
    def planes(self) -> int:
        """Planes of the input: slices, then territories of each slice."""
        return self.slices * (1 + self.territories)

    @property
    def voxel_mm3(self) -> float:
        """Volume of a voxel of the field "heart"."""
        return (self.field_mm / self.size) ** 2 * self.slice_mm


def input_channels(config: SliceClassifierConfig | GeneratorConfig) -> int:
    """Return the channels of a 2-D network's input: the slice, its neighbours, its position."""
    return 1 + 2 * config.neighbours + POSITION_CHANNELS * config.position


def _check_choice(name: str, value: str | int, choices: tuple[str | int, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name} is {value!r}; it has to be one of {', '.join(map(repr, choices))}.")


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
        estimate: Number that it estimates of a whole scan, "total" or "probability"; empty for none.
        estimator: Module in the room `whole_scan`, and function, that estimates; empty for none.
        doubts: Codes of warnings about an estimate outside its calibration range.
    """

    config: type[Config]
    network: str
    task: str
    parameter: str = ""
    is_optional: bool = False
    title: str = ""
    extras: tuple[str, ...] = ()
    estimate: str = ""
    estimator: str = ""
    doubts: tuple[str, ...] = ()


_TERRITORIES = "Segmentation of the heart, and of the territories of its arteries, valves and great vessels, on CT"
_SLICES = "Detection of CT slices with visible coronary calcium"

SCORING = {
    "territories": Role(
        TerritoryNetConfig, "territories.TerritoryNet", _TERRITORIES, "heartModel", True, "Heart network"
    ),
    "slices": Role(SliceClassifierConfig, "van_velzen.SliceClassifier", _SLICES, "slicesModel", title="Slice network"),
    "decomposition": Role(
        GeneratorConfig, "van_velzen.Generator", "Coronary calcium map of CT slices", "mapModel", title="Map network"
    ),
    "lesions": Role(LesionNetConfig, "lesions.LesionNet", "Naming of calcified lesions on CT", "", True),
}
"""Networks that score a scan, by name; processors run them in OpenVINO."""

JUDGES = ("territories", "lesions")
"""Networks that an automatic clinical score depends on."""

VESSELS, RADIOMICS, RADIOGRAPH = "vessels", "radiomics", "radiograph"

ESTIMATORS = {
    VESSELS: Role(
        *(VesselNetConfig, "vessels.VesselNet", "Scores by artery", "vesselsModel", True, "Vessel regression"),
        extras=("torch",),
        estimate="total",
        estimator="vessels.vessel_estimate",
        doubts=("vessels-beyond-training", "vessels-heart-cut"),
    ),
    RADIOMICS: Role(
        *(RadiomicsConfig, "radiomics.RadiomicsNet", "Any calcium", "radiomicsModel", True, "Radiomics"),
        extras=("torch", "radiomics"),
        estimate="probability",
        estimator="radiomics.radiomics_estimate",
        doubts=("unlike-training",),
    ),
}
"""Networks of whole-scan estimates, by name."""

ROLES = {
    **SCORING,
    **ESTIMATORS,
    RADIOGRAPH: Role(
        *(RadiographNetConfig, "radiograph.RadiographNet", "Calcium on chest radiographs", "radiographModel"),
        title="Radiograph network",
    ),
    "discriminator": Role(DiscriminatorConfig, "van_velzen.PatchDiscriminator", "Real or synthetic slices"),
    "super_resolution": Role(
        SliceSuperResolutionConfig, "van_velzen.SliceSuperResolution", "Thin slices from thick ones"
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
