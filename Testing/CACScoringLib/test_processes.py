"""Networks and results in other processes. An alarm ends processes that wait for ever."""

import pickle
import subprocess
import sys
from pathlib import Path

import pytest
from handmade_networks import COMPACT, AllSlices, loaded

FORK = """
import os, signal
import numpy as np
from CACScoringLib.models.inference import ProcessorNetwork
from CACScoringLib.models.graph import ops, ov

image = ops.parameter([1, 1, 32, 32], np.float32)
kernel = ops.constant(np.ones((1, 1, 3, 3), np.float32))
sums = ops.convolution(image, kernel, [1, 1], [1, 1], [1, 1], [1, 1])
network = ProcessorNetwork(ov.Model([sums], [image]))
inputs = np.ones((3, 1, 32, 32), np.float32)

def total():
    return int(network.run(inputs).sum())

os.write(1, b"%d\\n" % total())
child = os.fork()
signal.alarm(60)
os.write(1, b"%d\\n" % total())
if child:
    print(os.waitpid(child, 0)[1])
"""
"""Runs a network, forks, and runs it in both processes; both end as programs do."""


def output_of(*command: str) -> list[str]:
    finished = subprocess.run([sys.executable, *command], stdout=subprocess.PIPE, timeout=240, encoding="utf-8")
    assert finished.returncode == 0
    return finished.stdout.split()


@pytest.mark.long
@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not fork")
def test_a_network_runs_in_a_forked_process_and_in_its_parent():
    sums = str(3 * (3 * 32 - 2) ** 2)  # each row of 32 has 3 terms a pixel, 2 at its ends
    assert output_of("-c", FORK) == [sums, sums, sums, "0"]


def test_a_pickled_model_is_its_card():
    model = loaded(AllSlices(), COMPACT["slices"])
    copied = pickle.loads(pickle.dumps(model))
    assert copied.card == model.card
    assert copied.network is None


@pytest.mark.long
@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_a_pool_scores_after_its_parent_has_scored(start):
    first, second, reports = output_of(str(Path(__file__).parents[1] / "support" / "pool_scores.py"), start)
    assert first == second
    assert float(first) > 0
    assert reports == "1"
