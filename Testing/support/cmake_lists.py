"""What the CMake lists of a module name, and a folder with just that, as Slicer installs it."""

import re
import shutil
from pathlib import Path


def commands(file: Path) -> list[tuple[str, list[str]]]:
    """The commands of a CMake file with their arguments, comments and quotes removed, `set` variables filled in."""
    text = re.sub(r"#.*", "", file.read_text(encoding="utf-8"))
    variables: dict[str, str] = {}
    found = []
    for name, body in re.findall(r"(\w+)\s*\(((?:[^()\"]|\"[^\"]*\")*)\)", text):
        words = [word.strip('"') for word in re.findall(r'"[^"]*"|\S+', body)]
        words = [re.sub(r"\$\{(\w+)\}", lambda m: variables.get(m[1], m[0]), word) for word in words]
        if name == "set":
            variables[words[0]] = ";".join(words[1:])
        found.append((name, [part for word in words for part in word.split(";")]))
    return found


def assigned(file: Path, variable: str) -> list[str]:
    values = [words[1:] for name, words in commands(file) if name == "set" and words[0] == variable]
    assert len(values) == 1, f"{variable} is set {len(values)} times in {file}"
    return values[0]


def install(module: Path, folder: Path) -> None:
    """Copy what a module's CMake lists name, and nothing else, into the one folder that Slicer has for all modules."""
    for variable in ("MODULE_PYTHON_SCRIPTS", "MODULE_PYTHON_RESOURCES"):
        for name in assigned(module / "CMakeLists.txt", variable):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(module / name, folder / name)
