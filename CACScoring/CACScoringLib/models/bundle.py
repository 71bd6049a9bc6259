"""MONAI bundles: a model with the metadata and configuration with which `python -m monai.bundle` runs it.

A bundle holds the card and weights as CAC stores them, which are all that `cac models install` reads, and the network
as TorchScript, so that it runs without CAC. The pickled `model.pt` of other bundles is left out. The format is MONAI's:
https://docs.monai.io/en/stable/mb_specification.html
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from ..core.ct import AIR_HU
from ..core.errors import ModelError, OutputError
from ..core.files import atomic_folder, read_file, read_json, resource_folder
from ..core.labels import TERRITORIES
from ..networks.configs import LESION_KINDS, LESION_PATCH, SCORING
from . import preprocessing
from .cards import WEIGHTS_ENDING, ModelCard, read_network, weights_of
from .graph import trace

SCHEMA_URL = "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/meta_schema_20240725.json"
"""Schema of metadata.json, which `python -m monai.bundle verify_metadata` downloads."""

TEMPLATES = resource_folder("Bundle")
"""Texts of a bundle: inference.json without the inferer predicts from each array of a folder."""

_GRID = (
    "Axes run superior, posterior, left [k, j, i]. The scan's HU are averaged over voxels of {:g} × {:g} × {:g} mm; "
    f"outside the scan is {AIR_HU:g} HU. HU of a window are scaled to 0 to 1 and clipped. An input is a "
)
_SLICES = _GRID.format(*preprocessing.SLICE_SPACING_MM[::-1]) + (
    "slice through the heart, with neighbours above (+) and below (-), in a square around the heart's centre of mass. "
    "Left, posterior and superior are distances from it in semi-axes of the ellipsoid with the heart's second moments, "
    f"at most ±{preprocessing.POSITION_LIMIT:g}, times {preprocessing.POSITION_SCALE:g}."
)
PREPARATION = {
    "territories": _GRID.format(*preprocessing.TERRITORY_SPACING_MM) + "patch; patches overlap.",
    "slices": _SLICES,
    "decomposition": _SLICES,
    "lesions": _GRID.format(2, 0.75, 0.75) + "patch around a dense voxel. Windows: metal 1500 to 3000 HU, soft -150 to "
    "350, wide -150 to 1500. “dense” is the share of a voxel that is dense, a territory its probability by the "
    "territory network, one for 2 × 4 × 4 voxels, “noise” the SD of the scan's noise / 50 HU, 0.3 where unknown.",
}
"""Preparation of each network's input from a scan, in words."""


def write_bundle(path: Path, folder: Path) -> None:
    """Write a model as MONAI bundle into a new folder.

    Args:
        path: Card of the model.
        folder: Folder of the bundle.

    Raises:
        ModelError: The model is damaged, or does not score scans.
        OutputError: The folder exists, or cannot be written.
    """
    card, network = read_network(path)
    if card.network not in SCORING:
        raise ModelError(
            f"{card.name} is a model for {card.network!r}. Bundles are written of models for {', '.join(SCORING)}."
        )
    import torch

    if folder.exists():
        raise OutputError(f"{folder} exists already. Name a new folder for the bundle.")
    formats = network_data_format(card)
    image = formats["inputs"]["image"]
    shape = image["spatial_shape"]
    script = trace(network.requires_grad_(False), torch.zeros(1, image["num_channels"], *shape))
    inferer: dict[str, Any] = {"_target_": "SimpleInferer"}
    if card.network == "territories":
        inferer = {"_target_": "SlidingWindowInferer", "roi_size": shape, "overlap": 0.5, "mode": "gaussian"}
    facts = vars(card) | {
        "task": SCORING[card.network].task,
        "data": card.training.data,
        "preparation": PREPARATION[card.network],
    }
    inference, readme = read_json(TEMPLATES / "inference.json"), read_file(TEMPLATES / "README.md").decode()
    texts = {
        "configs/metadata.json": json.dumps(_metadata(card, formats), indent=2, ensure_ascii=False),
        "configs/inference.json": json.dumps(inference | {"inferer": inferer}, indent=2),
        "docs/README.md": readme.format(**facts, version=card.preprocessing_version),
        "LICENSE": f"SPDX-License-Identifier: {card.licence}\nhttps://spdx.org/licenses/{card.licence}.html\n",
    }
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with atomic_folder(folder) as half:
            for name, text in texts.items():
                (half / name).parent.mkdir(exist_ok=True)
                (half / name).write_text(text, encoding="utf-8")
            models = half / "models"
            models.mkdir()
            shutil.copyfile(path, models / f"{card.name}.json")
            shutil.copyfile(weights_of(path, card.sha256), models / f"{card.name}{WEIGHTS_ENDING}")
            script.save(models / "model.ts")
    except (OSError, RuntimeError) as error:  # PyTorch's writer raises either
        raise OutputError(f"The bundle {folder} cannot be written: {error}.") from error


def card_in_bundle(folder: Path) -> Path:
    """Return the path of the card in a bundle.

    Raises:
        ModelError: The folder is no bundle of a model of CAC.
    """
    if not (folder / "configs" / "metadata.json").is_file():
        raise ModelError(f"{folder} is no MONAI bundle: it has no configs/metadata.json.")
    cards = sorted((folder / "models").glob("*.json"))
    if len(cards) != 1:
        raise ModelError(
            f"{folder} is no bundle of a model of CAC: its folder models holds {len(cards)} cards (NAME.json) instead "
            "of one. Export the model again: cac models export."
        )
    return cards[0]


def network_data_format(card: ModelCard) -> dict[str, dict[str, Any]]:
    """Return shapes, ranges and channels of a network's input and output, as metadata.json has them."""
    if card.network == "territories":
        patch = [preprocessing.TERRITORY_PATCH] * 3
        windows = [f"CT, {low:g} to {high:g} HU" for low, high in preprocessing.TERRITORY_WINDOWS_HU]
        return _formats(windows, patch, ["heart", *TERRITORIES], patch)
    if card.network == "lesions":
        images = ["CT, metal window", "CT, soft window", "CT, wide window", "dense"]
        return _formats([*images, *TERRITORIES, "noise, at most 1.5"], LESION_PATCH, LESION_KINDS, LESION_PATCH)
    neighbours = card.config["neighbours"]
    offsets = [*range(-neighbours, 0), *range(1, neighbours + 1)]
    window = f"{preprocessing.LOW_HU:g} to {preprocessing.HIGH_HU:g} HU"
    channels = [f"slice, {window}", *(f"slice {offset:+d}, {window}" for offset in offsets)]
    channels += ["left", "posterior", "superior"] * card.config["position"]
    if card.network == "slices":
        return _formats(channels, [card.config["size"]] * 2, ["no calcium", "calcium"], [])
    side = [preprocessing.SLICE_SIZE] * 2
    return _formats(channels, side, [f"calcium map, 0 to {preprocessing.MAP_HU:g} HU"], side)


def _formats(
    inputs: Sequence[str], shape: Sequence[int], outputs: Sequence[str], output_shape: Sequence[int]
) -> dict[str, dict[str, Any]]:
    def tensor(channels: Sequence[str], shape: Sequence[int], kind: str, content: str) -> dict[str, Any]:
        return {
            "type": kind,
            "format": content,
            "modality": "CT",
            "num_channels": len(channels),
            "spatial_shape": list(shape),
            "dtype": "float32",
            "value_range": [] if "left" in channels else [0, 1],
            "is_patch_data": True,
            "channel_def": dict(enumerate(channels)),
        }

    kind = "image" if output_shape else "probabilities"
    return {
        "inputs": {"image": tensor(inputs, shape, "image", "magnitude")},
        "outputs": {"pred": tensor(outputs, output_shape, kind, "classes")},
    }


def _metadata(card: ModelCard, formats: dict[str, dict[str, Any]]) -> dict[str, Any]:
    versions = {f"{key}_version": metadata.version(name) for key, name in (("monai", "monai"), ("pytorch", "torch"))}
    return {
        "schema": SCHEMA_URL,
        "version": f"{card.preprocessing_version}.0.0",
        "changelog": {},
        **versions,
        "numpy_version": np.__version__,
        "required_packages_version": {},
        "name": card.name,
        "task": SCORING[card.network].task,
        "description": f"{SCORING[card.network].task}. Weights of {card.name}, SHA-256 {card.sha256}.",
        "authors": "those who trained the model with CAC",
        "copyright": f"licence {card.licence}",
        "data_source": card.training.data,
        "intended_use": card.intended_use,
        "eval_metrics": card.validation,
        "preparation": PREPARATION[card.network],
        "card": f"models/{card.name}.json",
        "network_data_format": formats,
    }
