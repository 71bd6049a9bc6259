"""Networks where memory runs out."""

import numpy as np
import pytest
import torch
from torch import nn

from CACScoringLib.core.errors import CTError
from CACScoringLib.models import inference
from CACScoringLib.models.inference import CPU_BATCH, check_gpu, predict, prepared


@pytest.mark.parametrize(
    ("torch_spec", "driver", "refused"), [(None, None, True), (None, "/bin/x", False), (1, None, False)]
)
def test_cuda_is_refused_without_a_driver_before_pytorch_is_there(monkeypatch, torch_spec, driver, refused):
    """PyTorch that is installed knows better, as for cards of AMD."""
    monkeypatch.setattr(inference.importlib.util, "find_spec", lambda name: torch_spec)
    monkeypatch.setattr(inference.shutil, "which", lambda name: driver)
    if refused:
        with pytest.raises(CTError, match="no NVIDIA driver"):
            check_gpu()
    else:
        check_gpu()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_an_output_that_is_not_finite_is_refused(value):
    class Runs:
        def run(self, inputs):
            return np.where(inputs == inputs.max(), np.float32(value), inputs)

    for network in (Runs(), nn.Threshold(0.5, value)):
        with pytest.raises(CTError, match="not finite"):
            predict(network, np.linspace(0, 1, 6, dtype=np.float32).reshape(2, 1, 1, 3), 1)


class FailingToMove(nn.Conv2d):
    """A network that cannot be moved to a GPU."""

    error: Exception = RuntimeError("no kernel image is available")

    def to(self, *where):
        if where == ("cuda",):
            raise self.error
        return super().to(*where)


def test_a_network_without_room_on_the_gpu_runs_on_the_cpu():
    """Another program may hold all of the GPU's memory already when the network is loaded."""
    network = FailingToMove(1, 3, 3)
    with pytest.raises(RuntimeError, match="no kernel image"):
        prepared(network, "cuda")
    network.error = torch.OutOfMemoryError("CUDA out of memory.")
    outputs, warnings = predict(prepared(network, "cuda"), np.ones((2, 1, 4, 4), np.float32), 2)
    assert outputs.shape == (2, 3, 2, 2)
    assert [w.code for w in warnings] == ["moved-to-cpu"]


def test_float32_stays_float32_on_gpus():
    class Setting(nn.Module):
        def forward(self, x):
            assert torch.backends.cudnn.enabled
            return torch.full((len(x), 1), float(torch.backends.cudnn.allow_tf32))

    before = torch.backends.cudnn.allow_tf32
    assert predict(Setting(), np.zeros((1, 1, 4, 4), np.float32), 1)[0].item() == 0
    assert torch.backends.cudnn.allow_tf32 == before


class Greedy(nn.Module):
    """Runs out of memory beyond `fits` items on the GPU, which the meta device stands for."""

    def __init__(self, fits: int, fits_cpu: int = 99) -> None:
        super().__init__()
        self.place = nn.Parameter(torch.zeros(1, device="meta"))
        self.fits, self.fits_cpu, self.batches = fits, fits_cpu, []

    def to(self, device, *dtype):
        assert device == "cpu"
        self.place = nn.Parameter(torch.zeros(1))
        return self

    def forward(self, x):
        on_gpu = x.device.type == "meta"
        if len(x) > (self.fits if on_gpu else self.fits_cpu):
            raise torch.OutOfMemoryError("CUDA out of memory.")
        self.batches.append((x.device.type, len(x)))
        return torch.zeros(len(x), 1) if on_gpu else x.mean((2, 3))


INPUTS = np.arange(10, dtype=np.float32)[:, None, None, None] * np.ones((1, 1, 4, 4), np.float32)


def test_out_of_memory_halves_the_batch():
    network = Greedy(fits=3)
    outputs, warnings = predict(network, INPUTS, 8)
    assert (network.batches, len(outputs)) == ([("meta", 2)] * 5, 10)
    assert [w.code for w in warnings] == ["smaller-batches"] * 2
    assert "batches of 2" in warnings[-1].message


def test_out_of_memory_moves_to_the_cpu():
    network = Greedy(fits=0)
    outputs, warnings = predict(network, INPUTS, 4)
    assert network.batches == [("cpu", CPU_BATCH)] * (10 // CPU_BATCH)
    np.testing.assert_allclose(outputs[:, 0], np.arange(10))
    assert [w.code for w in warnings] == ["smaller-batches", "smaller-batches", "moved-to-cpu"]


def test_out_of_memory_everywhere_and_other_errors():
    with pytest.raises(CTError, match="too little memory"):
        predict(Greedy(fits=0, fits_cpu=0), INPUTS, 4)

    class Broken(nn.Module):
        def forward(self, x):
            raise RuntimeError("sizes do not match")

    with pytest.raises(RuntimeError, match="sizes do not match"):
        predict(Broken(), INPUTS, 4)
