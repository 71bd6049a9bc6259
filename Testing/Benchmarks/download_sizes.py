"""Measure what each package of the panels downloads into a new 3D Slicer, and write the sizes that the panels state.

    python Testing/Benchmarks/download_sizes.py PACKAGES [NAME ...] [--torch WHEEL]

NAME restricts it to some packages; the sizes of others stay. PACKAGES lists what Slicer brings, a requirement
`name==version` a line. pip resolves each package for Linux and Python 3.12 without installing it. WHEEL is PyTorch's
build for processors, which has an index of its own.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path

ROOT = Path(__file__).parents[2]
PANEL = ROOT / "CACScoring" / "CACScoringLib" / "panel" / "packages.py"
LISTS = (
    ROOT / "CACScoring" / "Resources" / "requirements.txt",
    ROOT / "CACTraining" / "CACTrainingLib" / "Resources" / "requirements.txt",
)
SIZES = ROOT / "CACScoring" / "CACScoringLib" / "Resources" / "download_sizes.json"
CUDA = ("torch", "triton", "nvidia-", "cuda-")
"""Prefixes of PyTorch and the packages of its CUDA build, which are left out: PyTorch comes from a separate index."""
REQUIRED_BY_TORCH = ("sympy", "networkx", "fsspec", "jinja2", "filelock")
REQUIRING_TORCH_ALONE = ("monai",)
"""Packages that require PyTorch and NumPy, and nothing else."""
PLATFORM = ["--python-version", "3.12", "--only-binary", ":all:"]
PLATFORM += [word for tag in ("manylinux_2_28_x86_64", "manylinux2014_x86_64") for word in ("--platform", tag)]


def requirements() -> list[str]:
    """Return all requirements that the panels can ask for."""
    lines = [line for file in LISTS for line in file.read_text(encoding="utf-8").splitlines()]
    return sorted(
        {line for line in lines if ">=" in line}
        | set(re.findall(r'"([\w-]+>=[\w.]+)"', PANEL.read_text(encoding="utf-8")))
    )


def downloads(requirement: str, present: dict[str, str]) -> dict[str, float]:
    """Return megabytes by package of what pip would download, without what Slicer has in the same version."""
    with tempfile.TemporaryDirectory() as folder:
        report, constraints = Path(folder) / "report.json", Path(folder) / "constraints.txt"
        package_name = requirement.partition(">")[0].lower()
        pins = [f"{name}=={version}" for name, version in present.items() if name != package_name]
        constraints.write_text("\n".join(pins), encoding="utf-8")
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed"]
        command += ["--report", str(report), "--target", folder, "-c", str(constraints), *PLATFORM, requirement]
        command += ["--no-deps"] * (package_name in REQUIRING_TORCH_ALONE)
        subprocess.run(command, check=True)
        content = json.loads(report.read_text(encoding="utf-8"))
    sizes = {}
    for package in content["install"]:
        name, version = package["metadata"]["name"].lower(), package["metadata"]["version"]
        if present.get(name) != version and not name.startswith(CUDA):
            request = urllib.request.Request(package["download_info"]["url"], method="HEAD")
            with urllib.request.urlopen(request, timeout=60) as answer:
                sizes[name] = round(int(answer.headers["Content-Length"]) / 1e6, 2)
    return sizes


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("packages", type=Path)
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--torch", type=Path)
    options = parser.parse_args()
    pairs = re.findall(r"^([\w.-]+)==([\w.]+)", options.packages.read_text(encoding="utf-8"), re.MULTILINE)
    present = {name.lower(): version for name, version in pairs}
    needed = {requirement.partition(">")[0]: requirement for requirement in requirements()}
    stored = json.loads(SIZES.read_text(encoding="utf-8"))
    sizes = {name: size for name, size in stored.items() if name in needed}
    for name in options.names or needed:
        requirement = needed[name]
        if name == "torch" and options.torch:
            sizes[name] = {"torch": round(options.torch.stat().st_size / 1e6, 2)}
            for part in REQUIRED_BY_TORCH:
                sizes[name] |= downloads(part, present)
        else:
            sizes[name] = downloads(requirement, present)
        print(name, sizes[name], flush=True)
    SIZES.write_text(json.dumps(sizes, indent=1, sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
