"""The same scan gives the same result, to the last bit on one computer, whatever the number of threads."""

import json

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from handmade_networks import COMPACT
from small_ct import score_command, write_ct

from CACScoringLib.cli import main as cli
from CACScoringLib.models import inference
from CACScoringLib.models.graph import read_graph, write_graph
from CACScoringLib.networks.configs import build, input_channels


@pytest.fixture
def threads(monkeypatch):
    """Sets the threads of OpenVINO, PyTorch and ITK, and back at the end."""
    before = torch.get_num_threads(), sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    monkeypatch.setattr(inference, "_threads", None)

    def use(number):
        inference.use_threads(number)
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(number)

    yield use
    torch.set_num_threads(before[0])
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(before[1])


def test_a_map_is_the_same_again_and_with_other_threads(threads):
    config = COMPACT["decomposition"]
    torch.manual_seed(0)
    network = build(config)
    weights = {name: tensor.numpy() for name, tensor in network.state_dict().items()}
    graph = read_graph(write_graph(network), weights)
    inputs = np.random.default_rng(0).normal(size=(2, input_channels(config), 64, 64)).astype(np.float32)
    first = inference.ProcessorNetwork(graph).run(inputs)
    assert first.std() > 0
    np.testing.assert_array_equal(inference.ProcessorNetwork(graph).run(inputs), first)
    for number in (1, 3):
        threads(number)
        # Sums may be put together otherwise by another number of threads; here they were equal to the last bit.
        np.testing.assert_allclose(inference.ProcessorNetwork(graph).run(inputs), first, rtol=1e-5, atol=1e-5)


@pytest.mark.long
def test_a_score_is_the_same_with_other_threads(threads, tmp_path):
    write_ct(tmp_path, "nii")
    results = []
    for number in (1, 3):
        threads(number)
        output = tmp_path / f"result-{len(results)}"
        assert cli.main([*score_command(tmp_path), "--output", str(output)]) == 0
        record = json.loads((output / "scores.json").read_text(encoding="utf-8"))
        images = [sitk.GetArrayFromImage(sitk.ReadImage(str(path))) for path in sorted(output.glob("*.nii.gz"))]
        results.append((record["methods"], record["warnings"], [image.tobytes() for image in images]))
    assert results[0] == results[1]
    assert len(results[0][2]) >= 2
