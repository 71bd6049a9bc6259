"""Pretrained weights of published networks from a user's file; nothing is downloaded.

Names are torchvision's, as in ImageNet weights and many networks for chest radiographs.
"""

from __future__ import annotations

import hashlib
import pickle
import re
from pathlib import Path

import torch

from CACScoringLib.core.errors import ModelError
from CACScoringLib.networks.radiograph import INPUTS, RadiographNet

_RESNET = {"conv1": 0, "bn1": 1, "layer1": 4, "layer2": 5, "layer3": 6, "layer4": 7}
"""Indices of torchvision's parts in `networks.radiograph.Published`."""

_LAST = ("fc.", "classifier.")
"""Layers for other tasks' classes, which are not loaded."""


def load_pretrained(network: RadiographNet, file: Path) -> str:
    """Load a file's weights into the backbones of all views in place; returns the file's SHA-256.

    The first convolution's colours are summed, and divided among this network's inputs.

    Args:
        file: State dict with torchvision's names for ResNet18 or DenseNet121, as safetensors or PyTorch's .pth, from
            which only tensors are read.

    Raises:
        ModelError: The file is unreadable, or for another network.
    """
    backbone = network.config.backbone
    if backbone == "light":
        raise ModelError("A light network has no pretrained weights. Choose --preset resnet18 or densenet121.")
    data = _bytes(file)
    tensors = {_monai_name(name, backbone): tensor for name, tensor in read_tensors(file).items() if not _is_last(name)}
    first = "layers.0.weight" if backbone == "resnet18" else "layers.0.conv0.weight"
    expected = network.backbones[0].state_dict()
    if first in tensors and tensors[first].ndim == 4:
        tensors[first] = tensors[first].sum(1, keepdim=True).repeat(1, INPUTS, 1, 1) / INPUTS
    missing = sorted(
        name
        for name, tensor in expected.items()
        if not name.endswith("num_batches_tracked") and getattr(tensors.get(name), "shape", None) != tensor.shape
    )
    if missing:
        raise ModelError(
            f"{file} is no torchvision state dict of {backbone}: {len(missing)} tensors are missing, as {missing[0]}."
        )
    for part in network.backbones:
        part.load_state_dict({name: tensors.get(name, tensor) for name, tensor in expected.items()})
    return hashlib.sha256(data).hexdigest()


def _bytes(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise ModelError(f"The weights {file} cannot be read: {error.strerror}.") from error


def _is_last(name: str) -> bool:
    return name.removeprefix("module.").startswith(_LAST)


def _monai_name(name: str, backbone: str) -> str:
    """Translate a torchvision name to `networks.radiograph.Published`, whose parts are MONAI's."""
    name = name.removeprefix("module.")
    if backbone == "resnet18":
        part, _, suffix = name.partition(".")
        return f"layers.{_RESNET[part]}.{suffix}" if part in _RESNET else name
    # Before torchvision 0.3 names had numbers: norm.1 for norm1.
    name = re.sub(r"(denselayer\d+)\.(norm|relu|conv)\.(\d)\.", r"\1.\2\3.", name)
    name = re.sub(r"(denselayer\d+)\.(?!layers\.)", r"\1.layers.", name)
    return re.sub(r"^features\.", "layers.0.", name)


def read_tensors(file: Path) -> dict[str, torch.Tensor]:
    """Read a state dict from a file, tensors only. Raises ModelError if it has none."""
    if file.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load

        try:
            return load(file.read_bytes())
        except SafetensorError as error:
            raise ModelError(f"{file} is not a safetensors file ({error}).") from error
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        message = f"{file} holds more than tensors, or is not a PyTorch file ({first}). Save its state dict alone."
        raise ModelError(message) from error
    content = content.get("state_dict", content) if isinstance(content, dict) else content
    if not isinstance(content, dict) or not all(isinstance(value, torch.Tensor) for value in content.values()):
        raise ModelError(f"{file} holds no state dict. Save the network's state_dict() alone.")
    return content
