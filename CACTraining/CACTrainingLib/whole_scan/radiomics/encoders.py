"""Encoders of others, from weights that the user has: nothing is downloaded.

CT-FM (Pai et al., "Vision Foundation Models for Computed Tomography", arXiv:2501.09001) is MONAI's SegResEncoder,
taught without labels on 148,000 CTs: `model.safetensors` of project-lighter/ct_fm_feature_extractor, or of
ct_fm_segresnet, less its decoder. RadImageNet (Mei et al., Radiology: AI 2022, doi:10.1148/ryai.210315) is a ResNet50
or DenseNet121 learned from 1.35 million radiological pictures: the authors' file for PyTorch, or one with torchvision's
names.
"""

from __future__ import annotations

import re
from pathlib import Path

import torch
from torch import nn

from CACScoringLib.core.ct import CTError

from ...training.tensor_files import read_tensors

CT_FM_HU = (-1024.0, 2048.0)
"""HU that CT-FM was given as 0 and 1."""

CT_FM_WIDTH = 32
"""Channels of its first layer."""

RADIMAGENET_HU = (-160.0, 240.0)
"""A window for soft tissue, as -1 and 1. RadImageNet's pictures were windowed by whoever read them; what is as dense as
calcium is white here."""

_RESNET_PLACES = {"0": "conv1", "1": "bn1", **{str(4 + n): f"layer{n + 1}" for n in range(4)}}
"""RadImageNet's authors number the parts of torchvision's ResNet50 in their order."""


class EncoderError(CTError):
    """An encoder's weights are missing or are another network's. The message says what to do."""


class CTFM(nn.Module):
    """Mean of the last features, [B, 512], of volumes [B, 1, k, j, i] in HU, axes superior, posterior, left."""

    def __init__(self) -> None:
        from monai.networks.nets.segresnet_ds import SegResEncoder

        super().__init__()
        self.encoder = SegResEncoder(init_filters=CT_FM_WIDTH, blocks_down=(1, 2, 2, 4, 4))

    def forward(self, hu: torch.Tensor) -> torch.Tensor:
        low, high = CT_FM_HU
        return self.encoder(((hu - low) / (high - low)).clamp(0, 1))[-1].mean((2, 3, 4))


class RadImageNet(nn.Module):
    """Mean of the last features, [B, 2048] of "resnet50" or [B, 1024] of "densenet121", of slices [B, j, i] in HU."""

    def __init__(self, name: str) -> None:
        from monai.networks.nets import DenseNet121, resnet50

        super().__init__()
        self.name = name
        if name == "resnet50":
            self.network = resnet50(
                spatial_dims=2, n_input_channels=3, conv1_t_stride=2, feed_forward=False, bias_downsample=False
            )
        else:
            self.network = DenseNet121(spatial_dims=2, in_channels=3, out_channels=1).features

    def forward(self, hu: torch.Tensor) -> torch.Tensor:
        low, high = RADIMAGENET_HU
        x = (2 * (hu - low) / (high - low) - 1).clamp(-1, 1)[:, None].repeat(1, 3, 1, 1)
        found = self.network(x)
        return found if found.ndim == 2 else torch.relu(found).mean((2, 3))


def load_encoder(kind: str, file: Path) -> nn.Module:
    """An encoder with a file's weights, in eval mode. kind: "ct-fm" or "radimagenet".

    Of the file nothing but tensors is read. Raises EncoderError when it is missing or another network's,
    PretrainedError when it is no file of weights.
    """
    if not file.is_file():
        raise EncoderError(f"There is no file {file}. Give the weights of {kind}.")
    given = {name.removeprefix("module."): tensor for name, tensor in read_tensors(file).items()}
    if kind == "ct-fm":
        encoder = CTFM()
        named = {name.removeprefix("encoder."): tensor for name, tensor in given.items()}
        _fill(encoder.encoder, named, file, "CT-FM's encoder (its model.safetensors)")
        return encoder.eval()
    if kind != "radimagenet":
        raise ValueError(f"{kind!r} is not an encoder from a file; choose ct-fm or radimagenet.")
    given = {name.removeprefix("backbone."): tensor for name, tensor in given.items()}
    dense = any("denselayer" in name for name in given)
    encoder = RadImageNet("densenet121" if dense else "resnet50")
    named = {(_densenet_name if dense else _resnet_name)(name): tensor for name, tensor in given.items()}
    _fill(encoder.network, named, file, "RadImageNet's ResNet50 or DenseNet121")
    return encoder.eval()


def _fill(network: nn.Module, given: dict[str, torch.Tensor], file: Path, what: str) -> None:
    wanted = network.state_dict()
    counters = [name for name in wanted if name.endswith("num_batches_tracked")]
    missing = sorted(
        name
        for name, tensor in wanted.items()
        if name not in counters and getattr(given.get(name), "shape", None) != tensor.shape
    )
    if missing:
        raise EncoderError(
            f"The weights in {file} are not those of {what}: {len(missing)} of {len(wanted) - len(counters)} tensors "
            f"are missing or of another size, among them {missing[0]}. Give another file."
        )
    filled = {name: given.get(name, tensor) for name, tensor in wanted.items()}
    if not all(tensor.isfinite().all() for tensor in filled.values()):
        raise EncoderError(f"The weights in {file} hold values that are not numbers. Get the file again.")
    network.load_state_dict(filled)


def _resnet_name(name: str) -> str:
    part, _, rest = name.partition(".")
    return f"{_RESNET_PLACES[part]}.{rest}" if part in _RESNET_PLACES else name


def _densenet_name(name: str) -> str:
    """Of MONAI's DenseNet121.features."""
    name = re.sub(r"^(?:0|features)\.", "", name)
    # Weights of before torchvision 0.3 number what later ones name: norm.1 for norm1.
    name = re.sub(r"(denselayer\d+)\.(norm|relu|conv)\.(\d)\.", r"\1.\2\3.", name)
    return re.sub(r"(denselayer\d+)\.(?!layers\.)", r"\1.layers.", name)
