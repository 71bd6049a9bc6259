"""Containerfile: what it copies exists, and the container scores with a read-only root and no network."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from CACScoringLib.record.score_record import read_result

ROOT = Path(__file__).parents[1]
BASE = os.environ.get("CAC_BASE_IMAGE", "docker.io/library/python:3.12-slim")
LIMITS = ("--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024")
LOCKED = ("--rm", "--network", "none", "--read-only", "--user", "1000", *LIMITS)


def instructions():
    text = (ROOT / "Containerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    return [line.split(" ", 1) for line in text.splitlines() if line and not line.startswith("#")]


def test_copied_files_exist():
    for name, words in instructions():
        if name == "COPY":
            assert all((ROOT / source).exists() for source in words.split()[:-1])


def podman(*words):
    command = ["podman", *words] if shutil.which("runc") is None else ["podman", "--runtime", "runc", *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, encoding="utf-8")


@pytest.mark.long
def test_a_container_scores_without_a_network_or_write_access(tmp_path):
    """Needs podman and a base image, which CAC_BASE_IMAGE names."""
    if shutil.which("podman") is None or podman("image", "exists", BASE).returncode != 0:
        pytest.skip(f"podman has no image {BASE}")
    if podman("run", *LOCKED, BASE, "true").returncode != 0:
        pytest.skip("podman runs no containers here")
    arguments = ("--build-arg", f"BASE={BASE}", "--build-arg", "COMMIT=abc")
    built = podman("build", "--isolation", "chroot", *arguments, "--tag", "cac-test", ".")
    assert built.returncode == 0, built.stdout[-2000:] + built.stderr[-2000:]
    assert int(podman("image", "inspect", "--format", "{{.Size}}", "cac-test").stdout) <= 1_000_000_000
    tmp_path.chmod(0o777)
    shutil.copy(ROOT / "CACScoring" / "Resources" / "SampleData" / "CACDigitalPatient.nrrd", tmp_path / "ct.nrrd")
    mounted = ("run", *LOCKED, "--volume", f"{tmp_path}:/data", "cac-test", "score", "ct.nrrd", "--output", "result")
    done = podman(*mounted)
    assert done.returncode == 0, done.stderr
    assert read_result(tmp_path / "result").provenance.commit == "abc"
    tmp_path.chmod(0o755)
    done = podman(*mounted[:-1], "other")
    assert done.returncode == 2
    assert "Cannot write beside other: Permission denied" in done.stderr
