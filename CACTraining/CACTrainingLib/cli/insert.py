"""`cac insert`: coronary plaque of known mass in a real scan."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from CACScoringLib.cli.options import add_progress_argument, add_settings_argument, from_file
from CACScoringLib.core.progress import Progress

from ..phantom.anatomy.coronaries import ARTERIES


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.description = (
        "Write a real scan, and copies of it with coronary plaque and other calcium of known mass. Rerun the command "
        "to resume."
    )
    add = parser.add_argument
    add("ct", type=Path, metavar="CT", help="an unenhanced CT free of calcium")
    add("--output", type=Path, required=True, metavar="DIR", help="folder for the scans")
    add("--count", type=int, default=1, metavar="N", help="how many copies with plaque")
    add("--heart", type=Path, metavar="MASK", help="heart mask to use in place of the segmented heart")
    path_help = "vessel to follow: CSV of x,y,z (LPS mm) or a Slicer curve (.mrk.json)"
    add("--path", type=Path, metavar="FILE", help=path_help)
    add("--artery", choices=ARTERIES, help="the artery (default: drawn at random; needed with --path)")
    add("--name", help="name of the patient, for the split in training (default: the CT's name)")
    add_settings_argument(parser, '{"plaques": 2, "deposits": ["aortic wall"], "vary": true}')
    add_progress_argument(parser)
    parser.set_defaults(run=run, interrupted="Interrupted. Rerun the command to resume.")


def run(options: argparse.Namespace, progress: Progress) -> None:
    """Insert lesions. Raises CTError, OutputError."""
    from CACScoringLib.io.reading import read_ct, read_mask
    from CACScoringLib.models.cards import find_model, load_model

    from ..phantom.insertion.background import prepare_background
    from ..phantom.insertion.inserted import InsertedSettings, write_insertions
    from ..phantom.insertion.insertion import PathError, read_path

    if options.path and not options.artery:
        raise PathError("A path belongs to one artery. Name it with --artery.")
    progress.begin(["reading", "insertion"])
    settings = from_file(options.settings, None, InsertedSettings())
    settings = replace(settings, artery=options.artery or settings.artery)
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
