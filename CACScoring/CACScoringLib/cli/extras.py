"""What a command needs beyond the base: the extras of pyproject.toml, looked for before the command begins.

Every command waits for this file, so what takes long to load is imported where it is used.
"""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path

from ..core.output import OutputError

PACKAGE = "slicer-cac"


def require(*extras: str) -> None:
    """Have the packages of some extras ("scene", "studies", …).

    In the launcher's environment those that are missing are installed. Elsewhere raises OutputError, which says how to
    install them. Nothing is asked of an environment that CAC is not installed in, such as Slicer's: there the panel
    installs what it needs.
    """
    missing = [extra for extra in extras if _lacks(extra)]
    if not missing:
        return
    import subprocess

    launcher = Path(__file__).resolve().parents[3] / "cac"
    names = ",".join(missing)
    if not launcher.is_file() or Path(sys.prefix).resolve() != launcher.with_name(".venv").resolve():
        raise OutputError(f'This command needs {PACKAGE}[{names}]. Install it with: pip install "{PACKAGE}[{names}]"')
    if subprocess.run([sys.executable, str(launcher), "--add-extras", names]).returncode != 0:
        raise OutputError(f"{PACKAGE}[{names}] could not be installed. The reason is given above.")
    importlib.invalidate_caches()


def _lacks(extra: str) -> bool:
    from importlib.metadata import PackageNotFoundError, requires

    try:
        requirements = requires(PACKAGE) or []
    except PackageNotFoundError:
        return False
    of_extra = [text for text in requirements if re.search(rf"extra == ['\"]{extra}['\"]", text)]
    return not all(_is_installed(re.match(r"[\w.-]+", text).group()) for text in of_extra)


def _is_installed(name: str) -> bool:
    from importlib.metadata import PackageNotFoundError, distribution

    try:
        distribution(name)
    except PackageNotFoundError:
        return False
    return True
