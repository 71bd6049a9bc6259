"""`cac docs`: the documentation as a site."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from CACScoringLib.cli.main import require
from CACScoringLib.cli.options import add_progress_argument
from CACScoringLib.core.files import OutputError

if TYPE_CHECKING:
    from CACScoringLib.core.progress import Progress

ROOT = Path(__file__).resolve().parents[3]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.description = (
        "Build the documentation as a site that needs neither a server nor a network. A broken link is an error, as is "
        "a figure of the results that is not that of its stored table."
    )
    parser.add_argument("--output", type=Path, default=Path("site"), metavar="DIR", help="folder for the pages")
    add_progress_argument(parser)
    parser.set_defaults(run=_build, interrupted="Interrupted. Run the same command again.")


def _build(options: argparse.Namespace, progress: Progress) -> None:
    from CACScoringLib.core.ct import CTError

    from ..evaluation.results_page import check_results

    configuration = ROOT / "mkdocs.yml"
    if not configuration.is_file():
        raise OutputError("The documentation comes with the repository, not with the installed package.")
    output = options.output.resolve()
    if output.exists() and not (output / "sitemap.xml").is_file() and any(output.iterdir()):
        raise OutputError(f"{output} holds something other than a site, which would be removed. Choose another folder.")
    check_results(ROOT / "docs")
    require("docs")
    progress.begin(["docs"])
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet"]
    command += ["--config-file", str(configuration), "--site-dir", str(output)]
    with progress.step("docs"):
        # Material would announce the future of MkDocs at every build.
        built = subprocess.run(command, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"})
    if built.returncode != 0:
        raise CTError("The documentation could not be built. The messages above say what has to be corrected.")
    progress.done(output)
    print(f"{output / 'index.html'}: the documentation")
