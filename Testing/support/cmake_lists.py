"""Files that the CMake lists of a module name, and their installation as by Slicer."""

import re
import shutil
from pathlib import Path


def commands(file: Path) -> list[tuple[str, list[str]]]:
    """Parse a CMake file: commands with arguments, without comments and quotes, `set` variables expanded."""
    text = re.sub(r"#.*", "", file.read_text(encoding="utf-8"))
    variables: dict[str, str] = {}
    calls = []
    for name, body in re.findall(r"(\w+)\s*\(((?:[^()\"]|\"[^\"]*\")*)\)", text):
        words = [word.strip('"') for word in re.findall(r'"[^"]*"|\S+', body)]
        words = [re.sub(r"\$\{(\w+)\}", lambda m: variables.get(m[1], m[0]), word) for word in words]
        if name == "set":
            variables[words[0]] = ";".join(words[1:])
        calls.append((name, [part for word in words for part in word.split(";")]))
    return calls


def assigned(file: Path, variable: str) -> list[str]:
    values = [words[1:] for name, words in commands(file) if name == "set" and words[0] == variable]
    assert len(values) == 1, f"{variable} is set {len(values)} times in {file}"
    return values[0]


def installed_files(module: Path) -> list[str]:
    """Paths, relative to a module's folder, of the files that its CMake patterns match."""
    files = [Path(f"{module.name}.py")]
    for name, words in commands(module / "CMakeLists.txt"):
        if name == "file":
            patterns = [word for word in words[2:] if "*" in word]
            files += [
                f.relative_to(module) for p in patterns for f in module.glob(p.replace("*", "**/*", 1)) if f.is_file()
            ]
    return sorted(f.as_posix() for f in files)


def install(module: Path, folder: Path) -> None:
    """Copy the files that a module's CMake patterns match into a folder, as Slicer does for all modules."""
    for name in installed_files(module):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(module / name, folder / name)
