"""Build of the package, which pyproject.toml declares: stores the commit of the source, because results state it."""

import runpy
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py
from setuptools.command.sdist import sdist

SCORING = Path("CACScoring", "CACScoringLib")


def write_commit(library: Path) -> None:
    """Store the commit in a copy of the library; the library cannot be imported here, without its packages."""
    version = Path(__file__).resolve().parent / SCORING / "core" / "version.py"
    runpy.run_path(str(version))["write_commit"](library)


class Build(build_py):
    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            write_commit(Path(self.build_lib, SCORING.name))


class SourceArchive(sdist):
    def make_release_tree(self, base_dir: str, files: list[str]) -> None:
        super().make_release_tree(base_dir, files)
        write_commit(Path(base_dir, SCORING))


setup(cmdclass={"build_py": Build, "sdist": SourceArchive})
