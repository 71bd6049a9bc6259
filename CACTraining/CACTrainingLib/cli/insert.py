"""`cac insert`: coronary plaque of known mass in a real scan."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from CACScoringLib.cli.options import Command, from_file, settings_option
from CACScoringLib.core.labels import MAIN_ARTERIES
from CACScoringLib.core.options import argument, option, settings_from
from CACScoringLib.core.progress import Progress


@dataclass(frozen=True)
class InsertOptions:
    """Write a real scan, and copies of it with coronary plaque and other calcium of known mass.

    Rerun the command to resume.

    Attributes:
        ct: An unenhanced CT free of calcium.
        output: Folder for the scans.
        count: How many copies with plaque.
        heart: Heart mask to use in place of the segmented heart.
        path: Vessel to follow: CSV of x,y,z (LPS mm) or a Slicer curve (.mrk.json).
        artery: The artery (default: drawn at random; needed with --path).
        name: Name of the patient, for the split in training (default: the CT's name).
    """

    ct: Path = argument(metavar="CT")
    output: Path = option(metavar="DIR")
    count: int = option(1, metavar="N")
    heart: Path | None = option(None, metavar="MASK")
    path: Path | None = option(None, metavar="FILE")
    artery: str | None = option(None, choices=[artery.key for artery in MAIN_ARTERIES])
    name: str | None = None
    settings: tuple[str, ...] = settings_option('{"plaques": 2, "deposits": ["aortic wall"], "vary": true}')


def run(options: InsertOptions, progress: Progress) -> None:
    """Insert lesions. Raises CTError, OutputError."""
    from CACScoringLib.core.errors import InsertionError
    from CACScoringLib.io.reading import read_ct, read_mask
    from CACScoringLib.models.cards import find_model, load_model

    from ..phantom import (
        InsertedSettings,
        prepare_background,
        read_path,
        write_insertions,
    )

    if options.path and not options.artery:
        raise InsertionError("A path belongs to one artery. Name it with --artery.")
    progress.begin(["reading", "insertion"])
    settings = settings_from(options, from_file(options.settings, None, InsertedSettings()), ("artery",))
    with progress.step("reading"):
        path = read_path(options.path) if options.path else None
        heart = read_mask(options.heart) if options.heart else None
        # On the processor, so that a graphics card's rounding does not move the paths of an interrupted run.
        network = load_model(find_model("territories").path, "cpu") if heart is None else None
        fitted = path is None or bool(set(settings.deposits or ()) - {"aortic wall"})
        background = prepare_background(read_ct(options.ct), heart, options.name, network, fitted)
    for warning in background.warnings:
        progress.warning(warning)
    with progress.step("insertion"):
        folder = write_insertions(background, options.output, options.count, settings, path, progress.counted)
    progress.done(folder)
    print(f"{folder}: {options.count} scans with plaque of known mass, and the scan without")


add_arguments = Command(InsertOptions, run).declare
