"""`cac docs`: the documentation as a site."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated

from CACScoringLib.cli.main import require
from CACScoringLib.cli.options import command
from CACScoringLib.core.errors import OutputError
from CACScoringLib.core.options import option
from CACScoringLib.core.progress import Progress

ROOT = Path(__file__).resolve().parents[3]


def _build(
    output: Annotated[Path, option(metavar="DIR")] = Path("site"), write: bool = False, *, progress: Progress
) -> None:
    """Build the documentation as a site that needs neither a server nor a network; a broken link is an error.

    Args:
        output: Folder for the pages.
        write: True to write tables and references into the Markdown first, where they are not current.
    """
    from CACScoringLib.core.errors import CTError

    configuration = ROOT / "mkdocs.yml"
    if not configuration.is_file():
        raise OutputError("The documentation comes with the repository, not with the installed package.")
    output = output.resolve()
    if output.exists() and not (output / "sitemap.xml").is_file() and any(output.iterdir()):
        raise OutputError(f"{output} holds something other than a site, which would be removed. Choose another folder.")
    require("docs")
    progress.begin(["docs"])
    if write:
        subprocess.run([sys.executable, str(ROOT / "docs" / "hooks" / "pages.py")], check=True)
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet"]
    command += ["--config-file", str(configuration), "--site-dir", str(output)]
    with progress.step("docs"):
        # Material would announce the future of MkDocs at every build.
        built = subprocess.run(command, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"})
    if built.returncode != 0:
        raise CTError("The documentation could not be built. The messages above say what has to be corrected.")
    progress.done(output)
    print(f"{output / 'index.html'}: the documentation")


add_arguments = command(_build, interrupted="Interrupted. Run the same command again.").declare
