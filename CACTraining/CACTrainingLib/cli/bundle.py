"""`cac bundle`: CAC with the packages that it needs, to be installed where there is no network."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path
from typing import Annotated

from CACScoringLib.cli.main import PACKAGE
from CACScoringLib.cli.options import command
from CACScoringLib.core.errors import CTError, OutputError
from CACScoringLib.core.files import atomic_folder, file_sha256
from CACScoringLib.core.options import option
from CACScoringLib.core.progress import Progress
from CACScoringLib.core.version import write_commit

ROOT = Path(__file__).resolve().parents[3]

CONTENT = (
    *("CACScoring", "CACTraining", "docs", "Resources", "cac", "setup.py", "pyproject.toml", "constraints.txt"),
    *("README.md", "CHANGELOG.md", "LICENSE.txt", "Containerfile", ".containerignore"),
)
"""Files and folders of the repository that a bundle holds; the models are among them."""

SLICER_PYTHON = "3.12"
"""Version of Python in 3D Slicer 5.12."""

CPU_BUILDS = "https://download.pytorch.org/whl/cpu"
"""Index of PyTorch builds without CUDA, as in the launcher."""


ExtraNames = Annotated[str, option(flag="--extras", metavar="NAMES")]


def _bundle(
    *,
    output: Annotated[Path, option(metavar="DIR")],
    extra_names: ExtraNames = "scene,studies,cohort,dicom,review",
    progress: Progress,
) -> None:
    """Collect CAC, its models and all packages in a folder, from which it is installed without a network.

    The packages are those for this system, this Python and that of 3D Slicer. Without an NVIDIA driver here, PyTorch is
    a build without CUDA.

    Args:
        output: New folder.
        extra_names: Extras of the package with a comma between, beside the base.
    """
    if not (ROOT / "constraints.txt").is_file():
        raise OutputError("A bundle is made from the folder of the launcher, not from an installed package.")
    if output.exists():
        raise OutputError(f"{output} exists. Give --output a new folder.")
    requirements = _requirements(extra_names)
    versions = sorted({f"{sys.version_info.major}.{sys.version_info.minor}", SLICER_PYTHON})
    progress.begin(versions)
    with atomic_folder(output) as folder:
        for path in (ROOT / name for name in CONTENT):
            if path.is_dir():
                shutil.copytree(path, folder / path.name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
            else:
                shutil.copy2(path, folder)
        for version in versions:
            with progress.step(version):
                _download(requirements, version, folder / "wheels" / version)
        write_commit(folder / "CACScoring" / "CACScoringLib")
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        sums = [f"{file_sha256(path)}  {path.relative_to(folder).as_posix()}\n" for path in files]
        (folder / "SHA256SUMS").write_text("".join(sums), encoding="utf-8")
    size = sum(path.stat().st_size for path in output.rglob("*")) / 1e9
    progress.done(output)
    print(f"{output}: {len(files)} files, {size:.1f} GB. Copy it; ./cac in it installs without a network.")


def _requirements(extras: str) -> list[str]:
    """Return the requirements of the base and of extras, and the build system's. Raises OutputError."""
    by_extra: dict[str, list[str]] = {"": ["setuptools>=77"]}
    try:
        texts = requires(PACKAGE) or []
    except PackageNotFoundError as error:
        raise OutputError("CAC is not installed here. Make the bundle with the launcher, ./cac bundle.") from error
    for text in texts:
        extra = re.search(r"extra == ['\"](\w+)['\"]", text)
        by_extra.setdefault(extra[1] if extra else "", []).append(text.partition(";")[0].strip())
    names = ["", *filter(None, extras.split(","))]
    if unknown := set(names) - set(by_extra):
        raise OutputError(
            f"There is no extra {', '.join(sorted(unknown))}. Choose of {', '.join(sorted(by_extra)[1:])}."
        )
    return sorted({requirement for name in names for requirement in by_extra[name]})


def _download(requirements: list[str], version: str, folder: Path) -> None:
    """Download wheels for a version of Python. Raises CTError."""
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--only-binary", ":all:", "--python-version", version]
    pip += ["--constraint", str(ROOT / "constraints.txt"), "--dest", str(folder)]
    torch = [requirement for requirement in requirements if requirement.startswith("torch=")]
    if torch and sys.platform == "linux" and not shutil.which("nvidia-smi"):
        subprocess.run([*pip, "--no-deps", "--retries", "1", "--index-url", CPU_BUILDS, *torch], capture_output=True)
    done = subprocess.run([*pip, "--find-links", str(folder), *requirements], capture_output=True, text=True)
    if done.returncode != 0:
        raise CTError(f"The packages for Python {version} could not be downloaded.\n{done.stderr.strip()[-1500:]}")


add_arguments = command(_bundle, interrupted="Interrupted. Run the same command again.").declare
