"""`cac insert`: coronary plaque of known mass in a real scan."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

from CACScoringLib.cli.options import command, from_file, settings_option
from CACScoringLib.core.labels import MAIN_ARTERIES
from CACScoringLib.core.options import argument, option
from CACScoringLib.core.progress import Progress


def run(
    ct: Annotated[Path, argument(metavar="CT")],
    *,
    output: Annotated[Path, option(metavar="DIR")],
    count: Annotated[int, option(metavar="N")] = 1,
    heart: Annotated[Path | None, option(metavar="MASK")] = None,
    path: Annotated[Path | None, option(metavar="FILE")] = None,
    artery: Annotated[str | None, option(choices=[artery.key for artery in MAIN_ARTERIES])] = None,
    name: str | None = None,
    settings: Annotated[
        tuple[str, ...], settings_option('{"plaques": 2, "deposits": ["aortic wall"], "vary": true}')
    ] = (),
    progress: Progress,
) -> None:
    """Write a real scan, and copies of it with coronary plaque and other calcium of known mass.

    Rerun the command to resume.

    Args:
        ct: An unenhanced CT free of calcium.
        output: Folder for the scans.
        count: How many copies with plaque.
        heart: Heart mask to use in place of the segmented heart.
        path: Vessel to follow: CSV of x,y,z (LPS mm) or a Slicer curve (.mrk.json).
        artery: The artery (default: drawn at random; needed with --path).
        name: Name of the patient, for the split in training (default: the CT's name).

    Raises:
        CTError: A file cannot be read, or nothing can be inserted.
        OutputError: The scans cannot be written.
    """
    from CACScoringLib.core.errors import InsertionError
    from CACScoringLib.io.reading import read_ct, read_mask
    from CACScoringLib.models.cards import find_model, load_model

    from ..phantom import (
        InsertedSettings,
        prepare_background,
        read_path,
        write_insertions,
    )

    if path and not artery:
        raise InsertionError("A path belongs to one artery. Name it with --artery.")
    progress.begin(["reading", "insertion"])
    inserted = from_file(settings, None, InsertedSettings())
    if artery is not None:
        inserted = replace(inserted, artery=artery)
    with progress.step("reading"):
        vessel_path = read_path(path) if path else None
        mask = read_mask(heart) if heart else None
        # On the processor, so that a graphics card's rounding does not move the paths of an interrupted run.
        network = load_model(find_model("territories").path, "cpu") if mask is None else None
        fitted = path is None or bool(set(inserted.deposits or ()) - {"aortic wall"})
        background = prepare_background(read_ct(ct), mask, name, network, fitted)
    for warning in background.warnings:
        progress.warning(warning)
    with progress.step("insertion"):
        folder = write_insertions(background, output, count, inserted, vessel_path, progress.counted)
    progress.done(folder)
    print(f"{folder}: {count} scans with plaque of known mass, and the scan without")


add_arguments = command(run, ("phantom",)).declare
