"""Networks whose answer is known, dressed as loaded models, and scans in memory to run them on."""

from pathlib import Path

import numpy as np
import SimpleITK as sitk
from torch import nn

from CACScoringLib.core.ct import Acquisition, CTScan
from CACScoringLib.models.cards import LoadedModel, Training, describe
from CACScoringLib.models.store import save_model
from CACScoringLib.networks.van_velzen import PRESETS, Config, build


def loaded(network: nn.Module, config: Config) -> LoadedModel:
    card = describe("hand", config, "custom", Training("none", 0, {}, ""), {}, {}, "Apache-2.0", "Tests only.")
    return LoadedModel(card, network)


def untrained(network: str, name: str, folder: Path) -> Path:
    """Write a model that learned nothing; returns its card's path."""
    config = PRESETS["compact"][network]
    card = describe(name, config, "compact", Training("none", 0, {}, ""), {}, {}, "Apache-2.0", "Tests only.")
    return save_model(build(config), card, folder)


def scan_of(hu: np.ndarray, spacing_mm: tuple[float, float, float], heart: np.ndarray) -> tuple[CTScan, sitk.Image]:
    """A scan and its heart mask from arrays [k, j, i]; spacing_mm (i, j, k)."""
    image, mask = sitk.GetImageFromArray(hu), sitk.GetImageFromArray(heart.astype(np.uint8))
    image.SetSpacing(spacing_mm)
    image.SetOrigin((-30.0, 12.5, 700.0))
    mask.CopyInformation(image)
    return CTScan(image, Acquisition("memory")), mask
