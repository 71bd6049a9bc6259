"""List the source files that run between `./cac score CT` and `scores.json`, and draw their imports.

Run: python Testing/Benchmarks/scan_path.py [CT] [--figure SVG], with PYTHONPATH=CACScoring:CACTraining, of this or an
earlier version. Without a CT a digital patient is written and scored. Prints the files in which a function runs, in the
order of the first call and with the step it belongs to, less those that only declare options. --figure draws them: it
made `docs/pictures/scan-path.svg`.
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
import matplotlib
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, PathPatch
from matplotlib.path import Path as MplPath

import CACScoringLib
import CACTrainingLib

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
LIBRARIES = (CACScoringLib, CACTrainingLib)
GAP_PX, HEADER_PX, ROW_PX, BOX_PX, PADDING_PX, DPI = 18, 30, 52, 34, 10, 72
LETTER_PX, FONT_PT = 5.8, 10


def modules_run(action: Callable[[], object]) -> dict[str, str]:
    """Run an action; return CAC's modules of which a function is called between the parsing of options and the written
    result, in the order of the first call, each with its step of the progress."""
    folders = [Path(library.__file__).parent for library in LIBRARIES]
    names: dict[str, str | None] = {}
    steps: dict[str, str] = {}
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
        if name.endswith("progress") and code.co_name == "_begin_step":
            step = frame.f_locals["name"]
        elif name.endswith("progress") and code.co_name == "done":
            step = "done"
        elif name not in steps and not _is_importing(frame):
            steps[name] = step

    sys.setprofile(look)
    threading.setprofile(look)
    try:
        action()
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    return steps


def _module(file: Path, folders: list[Path]) -> str | None:
    folder = next((folder for folder in folders if file.is_relative_to(folder)), None)
    if folder is None or "Resources" in file.parts:  # templates
        return None
    return ".".join(file.relative_to(folder.parent).with_suffix("").parts)


def _is_importing(frame: FrameType | None) -> bool:
    while frame is not None and frame.f_code.co_name != "<module>":
        frame = frame.f_back
    return frame is not None and frame.f_globals.get("__name__") != "__main__"


def draw(modules: list[str], file: Path) -> None:
    """Draw a column per room in the order of the layers, its files numbered by first call, and a line for each import
    in the colour of the importing room."""
    numbers = {module: number for number, module in enumerate(modules, 1)}
    rooms: dict[str, list[str]] = {room: [] for room in _layers()}
    for module in modules:
        rooms[_room(module)].append(module)
    rooms = {room: files for room, files in rooms.items() if files}
    names = {room: [module.rpartition(".")[2] for module in files] for room, files in rooms.items()}
    widths = {room: LETTER_PX * max(map(len, [room, *names[room]])) + PADDING_PX for room in rooms}
    width_px = sum(widths.values()) + GAP_PX * (len(rooms) + 1)
    height = HEADER_PX + ROW_PX * max(map(len, rooms.values()))
    colours = [matplotlib.colormaps["tab10"](n % 10) for n in range(len(rooms))]
    left_edges: dict[str, float] = {}
    right_edges: dict[str, float] = {}
    centres: dict[str, float] = {}
    matplotlib.rcParams |= {"svg.fonttype": "none", "svg.hashsalt": "cac", "font.family": "sans-serif"}
    drawing = Figure(figsize=(width_px / DPI, height / DPI))
    axes = drawing.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, width_px), ylim=(height, 0))
    axes.axis("off")
    x = GAP_PX
    for room, colour in zip(rooms, colours, strict=True):
        width = widths[room]
        top = HEADER_PX + (height - HEADER_PX - ROW_PX * len(rooms[room])) / 2
        behind = {"facecolor": "white", "edgecolor": "none", "pad": 1}
        axes.text(x + width / 2, top - 9, room, ha="center", weight="bold", color=colour, fontsize=FONT_PT, bbox=behind)
        for n, (module, name) in enumerate(zip(rooms[room], names[room], strict=True)):
            y = top + ROW_PX * n
            left_edges[module], right_edges[module], centres[module] = x, x + width, y + BOX_PX / 2
            box = FancyBboxPatch(
                (x, y), width, BOX_PX, "round,pad=0,rounding_size=4", facecolor="white", edgecolor=colour, zorder=2
            )
            axes.add_patch(box)
            axes.text(x + width / 2, y + 12, str(numbers[module]), ha="center", color="gray", fontsize=FONT_PT - 1)
            axes.text(x + width / 2, y + 26, name, ha="center", fontsize=FONT_PT)
        x += width + GAP_PX
    graph = grimp.build_graph(*(library.__name__ for library in LIBRARIES), exclude_type_checking_imports=True)
    shades = dict(zip(rooms, colours, strict=True))
    for module in modules:
        for imported in sorted(graph.find_modules_directly_imported_by(module) & numbers.keys()):
            start, end = (right_edges[module], centres[module]), (left_edges[imported], centres[imported])
            bend = GAP_PX
            if _room(module) == _room(imported):  # beside the column
                start, bend = (left_edges[module], centres[module]), -GAP_PX
            points = [start, (start[0] + bend, start[1]), (end[0] - GAP_PX, end[1]), end]
            curve = [MplPath.MOVETO, *[MplPath.CURVE4] * 3]
            line = PathPatch(MplPath(points, curve), fill=False, edgecolor=shades[_room(module)], alpha=0.6, zorder=1)
            axes.add_patch(line)
    drawing.savefig(file, dpi=DPI, metadata={"Date": None})


def _layers() -> list[str]:
    """Rooms of scoring from top to bottom, by the import contract."""
    configuration = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = configuration["tool"]["importlinter"]["contracts"]
    layers = next(contract["layers"] for contract in contracts if contract.get("containers") == ["CACScoringLib"])
    return [room for layer in layers for room in layer.split(" | ")]


def _room(module: str) -> str:
    """Package of a module within its library, or the module itself if it is in none."""
    return module.split(".")[1]


def cac(*arguments: str) -> None:
    """Run `./cac` with arguments in this process."""
    sys.argv = ["cac", *arguments]
    try:
        runpy.run_module("CACTrainingLib.cli", run_name="__main__")
    except SystemExit as end:
        if end.code:
            sys.exit(f"cac {arguments[0]} failed.")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("ct", nargs="?")
    parser.add_argument("--figure", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(sys.stderr):
        if options.ct is None:
            cac("sample", f"{folder}/sample")
        ct = options.ct or f"{folder}/sample/ct.nii.gz"
        modules = modules_run(lambda: cac("score", ct, "--output", f"{folder}/result"))
    for number, (module, step) in enumerate(modules.items(), 1):
        print(f"{number:>3}  {step:<16}{module.replace('.', '/')}.py")
    if options.figure is not None:
        draw(list(modules), options.figure)


if __name__ == "__main__":
    main()
