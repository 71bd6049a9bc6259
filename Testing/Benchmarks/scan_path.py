"""Which of our files a scan passes on its way from `./cac score CT` to `scores.json`, and which of them imports which.

Run: python Testing/Benchmarks/scan_path.py [CT], with PYTHONPATH=CACScoring:CACTraining, of this or an earlier version.
Without a CT a digital patient is written and scored. Prints the files in which a function runs, in the order of the
first call and with the step it belongs to, less those that only declare options; then the figure of
`docs/developer/architecture.md`, for Mermaid.
"""

from __future__ import annotations

import argparse
import runpy
import sys
import tempfile
import threading
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from types import FrameType

import grimp

import CACScoringLib
import CACTrainingLib

LIBRARIES = (CACScoringLib, CACTrainingLib)


def modules_run(action: Callable[[], object]) -> dict[str, str]:
    """Our modules of which a function runs in an action, from when its options are parsed until its result is written,
    in the order of the first call; and in which step of the progress that is."""
    folders = [Path(library.__file__).parent for library in LIBRARIES]
    names: dict[str, str | None] = {}
    found: dict[str, str] = {}
    step = ""

    def look(frame: FrameType, event: str, argument: object) -> None:
        nonlocal step
        code = frame.f_code
        if step in ("", "done"):
            if event == "return" and code is argparse.ArgumentParser.parse_args.__code__:
                step = "command"
            return
        if event != "call":
            return
        if code.co_filename not in names:
            names[code.co_filename] = _module(Path(code.co_filename), folders)
        name = names[code.co_filename]
        if name is None:
            return
        if name.endswith("progress") and code.co_name == "_began":
            step = frame.f_locals["name"]
        elif name.endswith("progress") and code.co_name == "done":
            step = "done"
        elif name not in found and not _is_importing(frame):
            found[name] = step

    sys.setprofile(look)
    threading.setprofile(look)
    try:
        action()
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    return found


def _module(file: Path, folders: list[Path]) -> str | None:
    folder = next((folder for folder in folders if file.is_relative_to(folder)), None)
    return None if folder is None else ".".join(file.relative_to(folder.parent).with_suffix("").parts)


def _is_importing(frame: FrameType | None) -> bool:
    while frame is not None and frame.f_code.co_name != "<module>":
        frame = frame.f_back
    return frame is not None and frame.f_globals["__name__"] != "__main__"


def figure(modules: list[str]) -> str:
    """A room a box, with its files numbered as they are first entered, and an arrow to each room that it imports, less
    those that other arrows imply."""
    rooms: dict[str, list[str]] = {}
    for number, module in enumerate(modules, 1):
        rooms.setdefault(_room(module), []).append(f"{number} {module.rpartition('.')[2]}.py")
    graph = grimp.build_graph(*(library.__name__ for library in LIBRARIES), exclude_type_checking_imports=True)
    imported = ((_room(a), _room(b)) for a in modules for b in graph.find_modules_directly_imported_by(a))
    arrows = {(a, b) for a, b in imported if a != b and b in rooms}
    needed = sorted(arrow for arrow in arrows if arrow[1] not in _reached(arrow[0], arrows - {arrow}))
    boxes = [f'  {room}["{room}<br><br>{"<br>".join(files)}"]' for room, files in rooms.items()]
    return "\n".join(["flowchart TD", *boxes, *(f"  {a} --> {b}" for a, b in needed)])


def _room(module: str) -> str:
    """The package of a module within its library; a module outside of any is a room of its own."""
    return module.split(".")[1]


def _reached(start: str, arrows: set[tuple[str, str]]) -> set[str]:
    seen, todo = set(), [start]
    while todo:
        at = todo.pop()
        new = {b for a, b in arrows if a == at} - seen
        seen |= new
        todo += new
    return seen


def cac(*arguments: str) -> None:
    """What `./cac` does with these arguments, in this process."""
    sys.argv = ["cac", *arguments]
    try:
        runpy.run_module("CACTrainingLib.cli", run_name="__main__")
    except SystemExit as end:
        if end.code:
            sys.exit(f"cac {arguments[0]} failed.")


def main() -> None:
    chosen = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(sys.stderr):
        if not chosen:
            cac("sample", f"{folder}/sample")
        ct = chosen[0] if chosen else f"{folder}/sample/ct.nii.gz"
        modules = modules_run(lambda: cac("score", ct, "--output", f"{folder}/result"))
    for number, (module, step) in enumerate(modules.items(), 1):
        print(f"{number:>3}  {step:<16}{module.replace('.', '/')}.py")
    print(f"\n```mermaid\n{figure(list(modules))}\n```")


if __name__ == "__main__":
    main()
