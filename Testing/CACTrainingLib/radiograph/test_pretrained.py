"""Pretrained weights of published networks from a user's file, under torchvision's names."""

import pytest
import torch

from CACScoringLib.core.errors import ModelError
from CACScoringLib.networks.configs import RadiographNetConfig
from CACScoringLib.networks.radiograph import RadiographNet
from CACTrainingLib.radiograph.pretrained import load_pretrained

RESNET = RadiographNetConfig(backbone="resnet18", views=("PA", "lateral"), size=32)
PARTS = {"0": "conv1", "1": "bn1", "4": "layer1", "5": "layer2", "6": "layer3", "7": "layer4"}


def as_torchvision(network):
    """Return a ResNet18's state dict under torchvision's names, with three colours and the last layer."""
    state = {}
    for name, tensor in network.backbones[0].state_dict().items():
        _, part, suffix = name.split(".", 2)
        state[f"{PARTS[part]}.{suffix}"] = torch.randn_like(tensor) if tensor.is_floating_point() else tensor
    state["conv1.weight"] = torch.randn(64, 3, 7, 7)
    state["fc.weight"] = torch.randn(1000, 512)
    return state


@pytest.fixture(scope="module")
def network():
    return RadiographNet(RESNET)


@pytest.fixture(scope="module")
def state(network):
    return as_torchvision(network)


@pytest.mark.long
@pytest.mark.parametrize("ending", ["pth", "safetensors"])
def test_all_views_begin_with_them(network, state, tmp_path, ending):
    file = tmp_path / f"weights.{ending}"
    if ending == "pth":
        torch.save(state, file)
    else:
        from safetensors.torch import save_file

        save_file(state, file)
    assert len(load_pretrained(network, file)) == 64
    for backbone in network.backbones:
        loaded = backbone.state_dict()
        torch.testing.assert_close(loaded["layers.7.1.conv2.weight"], state["layer4.1.conv2.weight"])
        torch.testing.assert_close(loaded["layers.1.running_var"], state["bn1.running_var"])
        # A grey picture gives the same on two inputs as on three colours.
        torch.testing.assert_close(loaded["layers.0.weight"].sum(1), state["conv1.weight"].sum(1))


@pytest.mark.long
def test_a_file_for_another_network(network, state, tmp_path):
    torch.save({name: tensor for name, tensor in state.items() if "layer4" not in name}, tmp_path / "w.pth")
    with pytest.raises(ModelError, match=r"no torchvision state dict of resnet18.*layers\.7"):
        load_pretrained(network, tmp_path / "w.pth")
