"""Test the arithmetic of trainings on processors: its choice, and its gradients at awkward sizes."""

import json
import os
import subprocess
import sys

import pytest
import torch
from torch import nn

from CACTrainingLib.training.checkpoint import CheckpointedTraining
from CACTrainingLib.training.distributed import choose_precision, is_volumetric, make_fabric
from CACTrainingLib.training.settings import LoopSettings
from CACTrainingLib.training.task import Task

VOLUMES = [(1, 4, 194, 256), (2, 8, 33, 17), (1, 1, 7, 5), (2, 2, 6, 6), (3, 4, 12, 19)]
"""Batch and sides of inputs: the first crashed in bfloat16, and few slices left gradients uninitialised."""

SLICES = [(1, 194, 256), (2, 33, 7), (3, 4, 4), (1, 516, 20)]

STEPS = """
import json, sys

import torch
from torch import nn

from CACTrainingLib.training.distributed import choose_precision, make_fabric

torch.set_num_threads(1)
convolution = {3: nn.Conv3d, 2: nn.Conv2d}
errors, fabric = [], None
for batch, *sides in json.loads(sys.argv[1]):
    layer = convolution[len(sides)]
    torch.manual_seed(0)
    layers = layer(16, 8, 3, padding=1), nn.ReLU(), layer(8, 16, 3, padding=1), nn.ReLU(), layer(16, 1, 1)
    network = nn.Sequential(*layers)
    image = torch.rand(batch, 16, *sides)
    network(image).square().mean().backward()
    expected = [parameter.grad.clone() for parameter in network.parameters()]
    fabric = make_fabric(True, "cpu")
    choose_precision(fabric, [network])
    wrapped, optimizer = fabric.setup(network, torch.optim.SGD(network.parameters(), 0.0))
    for _ in range(3):
        optimizer.zero_grad(set_to_none=True)
        fabric.backward(wrapped(image).float().square().mean())
        optimizer.step()
        pairs = zip(network.parameters(), expected, strict=True)
        errors.append(max(float((p.grad - e).norm() / e.norm()) for p, e in pairs))
print(json.dumps({"precision": fabric.strategy.precision.precision, "errors": errors}))
"""


def steps_in_a_child(shapes):
    """Take three steps at each shape, in a process that may crash; return its precision and errors of gradients."""
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", STEPS, json.dumps(shapes)]
    process = subprocess.run(command, env=variables, capture_output=True, encoding="utf-8", check=True)
    return json.loads(process.stdout)


def test_volumes_learn_on_processors_with_the_gradients_of_float32():
    result = steps_in_a_child(VOLUMES)
    assert result["precision"] == "32-true"
    assert max(result["errors"]) < 1e-5


def test_slices_learn_on_processors_with_gradients_near_those_of_float32():
    result = steps_in_a_child(SLICES)
    assert result["precision"] in ("bf16-mixed", "32-true")
    assert max(result["errors"]) < 0.05


@pytest.mark.parametrize(("layer", "volumetric"), [(nn.Conv3d, True), (nn.Conv2d, False)])
def test_only_volumes_are_kept_from_half_precision(layer, volumetric):
    fabric = make_fabric(True, "cpu")
    precision = fabric.strategy.precision.precision
    networks = [nn.Linear(2, 2), layer(1, 1, 3)]
    assert any(map(is_volumetric, networks)) == volumetric
    choose_precision(fabric, networks)
    assert fabric.strategy.precision.precision == ("32-true" if volumetric else precision)


def test_a_training_of_volumes_is_kept_from_half_precision(tmp_path):
    task = Task()
    task.modules, task.optimizers, task.exported = {"volumes": nn.Conv3d(1, 1, 1)}, {}, "volumes"
    training = CheckpointedTraining(task, LoopSettings(half_precision=True), tmp_path, make_fabric(True, "cpu"))
    assert training.fabric.strategy.precision.precision == "32-true"


def test_half_precision_is_that_of_the_processor():
    has_bfloat16 = bool(torch.cpu.get_capabilities().get("avx512_bf16"))
    expected = "bf16-mixed" if has_bfloat16 else "32-true"
    assert make_fabric(True, "cpu").strategy.precision.precision == expected
    assert make_fabric(False, "cpu").strategy.precision.precision == "32-true"
