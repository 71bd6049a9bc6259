"""Encoders from files, by networks of the published shapes with weights drawn by lot."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from CACTrainingLib.training.tensor_files import PretrainedError
from CACTrainingLib.whole_scan.radiomics import encoders
from CACTrainingLib.whole_scan.radiomics.encoders import CTFM, EncoderError, RadImageNet, load_encoder

AUTHORS = {"conv1": "0", "bn1": "1", "layer1": "4", "layer2": "5", "layer3": "6", "layer4": "7"}


@pytest.fixture
def small_ct_fm(monkeypatch):
    monkeypatch.setattr(encoders, "CT_FM_WIDTH", 2)


def drawn(network: torch.nn.Module) -> torch.nn.Module:
    torch.manual_seed(0)
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            if tensor.is_floating_point():
                tensor.copy_(torch.rand(tensor.shape) * (0.1 if "weight" in name else 0.5) + 0.05)
    return network.eval()


@pytest.mark.parametrize("prefix", ["", "encoder."])
def test_ct_fm_is_read_with_or_without_its_decoder(prefix, small_ct_fm, tmp_path):
    encoder = drawn(CTFM())
    tensors = {f"{prefix}{name}": tensor for name, tensor in encoder.encoder.state_dict().items()}
    if prefix:
        tensors["up_layers.0.upsample.weight"] = torch.zeros(3)
    save_file(tensors, tmp_path / "model.safetensors")
    hu = torch.rand(1, 1, 16, 32, 16) * 3000 - 1000
    with torch.inference_mode():
        assert torch.equal(load_encoder("ct-fm", tmp_path / "model.safetensors")(hu), encoder(hu))
    assert encoder(hu).shape == (1, 2 * 2**4)


def test_ct_fm_sees_its_own_window(small_ct_fm):
    encoder = drawn(CTFM())
    dense, denser = torch.full((1, 1, 16, 16, 16), 2048.0), torch.full((1, 1, 16, 16, 16), 3000.0)
    with torch.inference_mode():
        assert torch.equal(encoder(dense), encoder(denser))
        assert not torch.equal(encoder(dense), encoder(dense - 500))


@pytest.mark.long
@pytest.mark.parametrize("named", ["authors", "torchvision"])
def test_radimagenet_resnet_is_read_by_either_name(named, tmp_path):
    encoder = drawn(RadImageNet("resnet50"))
    tensors = {}
    for name, tensor in encoder.network.state_dict().items():
        part, _, rest = name.partition(".")
        tensors[f"backbone.{AUTHORS[part]}.{rest}" if named == "authors" else name] = tensor
    tensors |= {"fc.weight": torch.zeros(165, 2048)} if named == "torchvision" else {}
    torch.save(tensors, tmp_path / "ResNet50.pt")
    loaded = load_encoder("radimagenet", tmp_path / "ResNet50.pt")
    assert all(
        torch.equal(a, b) for a, b in zip(loaded.state_dict().values(), encoder.state_dict().values(), strict=True)
    )
    hu = torch.rand(2, 64, 64) * 600 - 300
    with torch.inference_mode():
        found = loaded(hu)
    assert found.shape == (2, 2048)


@pytest.mark.long
def test_radimagenet_densenet_is_read(tmp_path):
    encoder = drawn(RadImageNet("densenet121"))
    own = encoder.network.state_dict()
    tensors = {f"backbone.0.{name.replace('.layers.', '.')}": tensor for name, tensor in own.items()}
    torch.save(tensors, tmp_path / "DenseNet121.pt")
    loaded = load_encoder("radimagenet", tmp_path / "DenseNet121.pt")
    assert all(torch.equal(a, b) for a, b in zip(loaded.network.state_dict().values(), own.values(), strict=True))
    with torch.inference_mode():
        assert loaded(torch.zeros(1, 64, 64)).shape == (1, 1024)


def test_wrong_files_are_told_apart(small_ct_fm, tmp_path):
    with pytest.raises(EncoderError, match="There is no file"):
        load_encoder("ct-fm", tmp_path / "nowhere.safetensors")
    other = tmp_path / "other.safetensors"
    save_file({"conv1.weight": torch.zeros(2)}, other)
    with pytest.raises(EncoderError, match="not those of CT-FM"):
        load_encoder("ct-fm", other)
    with pytest.raises(EncoderError, match="not those of RadImageNet"):
        load_encoder("radimagenet", other)
    text = tmp_path / "text.pt"
    text.write_text("no weights")
    with pytest.raises(PretrainedError):
        load_encoder("radimagenet", text)


def test_file_that_would_run_code_is_refused(tmp_path):
    class Code:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    torch.save({"backbone.0.weight": Code()}, tmp_path / "bad.pt")
    with pytest.raises(PretrainedError):
        load_encoder("radimagenet", tmp_path / "bad.pt")
    assert not (tmp_path / "ran").exists()


def test_weights_that_are_no_numbers_are_refused(small_ct_fm, tmp_path):
    tensors = dict(drawn(CTFM()).encoder.state_dict())
    tensors["conv_init.weight"] = torch.full_like(tensors["conv_init.weight"], float("nan"))
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(EncoderError, match="not numbers"):
        load_encoder("ct-fm", tmp_path / "model.safetensors")
