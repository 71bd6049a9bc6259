"""Test the training of one network by two processes of `torchrun` on the CPU: kill, resume, errors, no hanging."""

import json
import os
import subprocess
import sys
import time

import pytest
import torch
from training_scans import write_cohort

from CACScoringLib.core.version import kill_tree
from CACScoringLib.models import cards as models

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(not torch.distributed.is_available(), reason="this PyTorch is built without gloo"),
]

SECONDS = 120
"""Time after which a run counts as hanging."""


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    return write_cohort(tmp_path_factory.mktemp("cohort"), 4)


def torchrun(network, output, cohort, cache, *options, program=("-m", "CACTrainingLib.cli")):
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone", *program]
    command += ["train", network, "--data", cohort, "--output", output, "--workers", "1", "--device", "cpu", *options]
    variables = {"CAC_CACHE_DIR": str(cache), "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    words = [*map(str, command), "--progress", "json"]
    return subprocess.Popen(words, env={**os.environ, **variables}, stderr=subprocess.PIPE, encoding="utf-8")


def finish(process):
    """Wait for the process; return its messages, as text and as events. Fails if it hangs."""
    try:
        output = process.communicate(timeout=SECONDS)[1]
    except subprocess.TimeoutExpired:
        kill_tree(process.pid)
        raise AssertionError(f"hangs: {process.communicate()[1]}") from None
    return output, [json.loads(line) for line in output.splitlines() if line.startswith("{")]


def course(output):
    path = output.with_name(f"{output.name}.training") / "metrics.jsonl"
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []
    return [line for line in lines if line["event"] == "validation"]


def without_time(line):
    return {name: value for name, value in line.items() if name != "seconds"}


def test_two_processes_train_a_network_and_resume_after_a_kill(cohort, cache, tmp_path):
    """The run ends by time, which both must take from one clock."""
    output = tmp_path / "two"
    settings = {"network": {"size": 64}, "batch_size": 2, "loop": {"validate_every": 4, "validation_share": 0.5}}
    options = ["--minutes", "0.1", "--steps", "1000000", "--settings", json.dumps(settings)]
    process = torchrun("slices", output, cohort, cache, *options)
    deadline = time.monotonic() + SECONDS
    while not course(output) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.1)
    kill_tree(process.pid)
    finish(process)
    killed = course(output)
    assert killed
    assert not output.with_suffix(".json").exists()

    messages, events = finish(torchrun("slices", output, cohort, cache, *options, "--resume"))
    assert [e["event"] for e in events if e["event"] in ("done", "failed")] == ["done"], messages
    assert [e["step"] for e in events if e["event"] == "step"] == ["scans", "training", "model"], "one process speaks"
    validations = course(output)
    assert without_time(validations[0]) == without_time(killed[0])
    steps = [line["step"] for line in validations]
    assert steps == sorted(set(steps))
    assert steps[-1] > killed[-1]["step"]
    settings = models.verify_model(output.with_suffix(".json")).training.settings
    assert (settings["processes"], settings["steps_done"]) == (2, steps[-1])
    assert settings["best_step"] in steps
    assert 6 <= settings["seconds"] < 30


def test_both_processes_have_the_same_weights(cohort, cache, tmp_path):
    """Each has its own batches, but shares gradients; both stop early together."""
    output = tmp_path / "gan"
    script = (
        "import sys; from pathlib import Path; import torch\n"
        "from CACTrainingLib.cli import main as cli\n"
        "from CACTrainingLib.training import runs\n"
        "original = runs.train\n"
        "def train(task, *arguments, fabric, **keywords):\n"
        "    batches = []\n"
        "    batch = task.batch\n"
        "    task.batch = lambda generator: batches.append(batch(generator)) or batches[-1]\n"
        "    outcome = original(task, *arguments, fabric=fabric, **keywords)\n"
        "    state = {n: m.state_dict() for n, m in task.modules.items()}\n"
        "    first = next(iter(batches[0].values()))\n"
        "    torch.save({'modules': state, 'batch': first}, Path(sys.argv[0]).with_name(f'{fabric.global_rank}.pt'))\n"
        "    return outcome\n"
        "runs.train = train\n"
        "sys.exit(cli.main())\n"
    )
    path = tmp_path / "watched.py"
    path.write_text(script, encoding="utf-8")
    settings = {"validation_slices": 2, "batch_size": 2, "augmentation": {"crop": 64}}
    settings["loop"] = {"validate_every": 1, "patience": 1, "validation_share": 0.5}
    options = ["--preset", "compact-cyclegan", "--steps", "50", "--settings", json.dumps(settings)]
    process = torchrun("decomposition", output, cohort, cache, *options, program=[path])
    messages, _ = finish(process)
    assert process.returncode == 0, messages
    assert len(course(output)) < 50, "it lost patience"
    ranks = [torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1)]
    assert not torch.equal(ranks[0]["batch"], ranks[1]["batch"])
    for name, state in ranks[0]["modules"].items():
        for key, tensor in state.items():
            if "running" not in key:  # running averages of its own batches
                assert torch.equal(tensor, ranks[1]["modules"][name][key]), (name, key)


def test_an_error_ends_both_and_is_reported_once(cache, tmp_path):
    (tmp_path / "empty").mkdir()
    process = torchrun("slices", tmp_path / "m", tmp_path / "empty", cache)
    messages, events = finish(process)
    assert process.returncode != 0
    assert len([e for e in events if e["event"] == "failed"]) == 1, messages
    assert "holds no scan" in messages
    assert not (tmp_path / "m.training").exists()
