"""`cac drr`: a radiograph of a CT as a picture, a measured image, or DICOM."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..core.files import OutputError
from ..core.options import add_options, settings_from
from ..core.progress import Progress
from ..drr.job import DrrSettings
from .options import SERIES_HELP, add_settings_argument, from_file


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.description = "Compute a digitally reconstructed radiograph from a CT, as acquired at a chest stand."
    add = parser.add_argument
    add("ct", type=Path, metavar="CT", help="DICOM folder, NIfTI, NRRD or MHA")
    add(
        "--output",
        type=Path,
        required=True,
        metavar="IMAGE",
        help="output file, whose extension selects the format: .png for a picture, .dcm for a DICOM radiograph, "
        ".nii.gz, .nrrd or .mha for line integrals",
    )
    add("--overwrite", action="store_true", help="replace the image if it exists")
    add("--series", metavar="NUMBER|UID", help=SERIES_HELP)
    add(
        "--view",
        default="PA",
        help="projection (default: PA): PA, AP, lateral (left), or the detector's angle in degrees, 0 in front of "
        "the chest and 90 at the patient's left",
    )
    add_options(parser, DrrSettings, "pixels", "kvp")
    add(
        "--calcium-map",
        type=Path,
        metavar="FILE",
        help="show only the calcium of this map (calcium_map.nii.gz of cac score)",
    )
    add_settings_argument(parser, '{"source_detector_mm": 1500, "photons": 20000}')
    add("--identify", action="store_true", help="include patient name, ID, sex and study date in the DICOM file")
    parser.set_defaults(run=run, interrupted="Interrupted. Nothing was written.")


def run(options: argparse.Namespace, progress: Progress) -> None:
    """Compute and write the radiograph. Raises CTError, OutputError."""
    from ..api import project_radiograph
    from ..drr import files as drr_files
    from ..drr.geometry import view_named
    from ..io.reading import read_ct, read_mask

    write = drr_files.writer_for(options.output)
    if options.output.exists() and not options.overwrite:
        raise OutputError(f"{options.output} already exists. Choose another --output, or replace it with --overwrite.")
    settings = settings_from(options, from_file(options.settings, None, DrrSettings()))
    view_named(options.view)  # wrong settings are reported before the CT is read
    settings.spectrum(), settings.film(), settings.geometry((0.0, 0.0, 0.0))
    progress.begin(["reading", "projecting", "writing"])
    with progress.step("reading"):
        scan = read_ct(options.ct, options.series)
        calcium = read_mask(options.calcium_map) if options.calcium_map else None
    with progress.step("projecting"):
        picture = project_radiograph(scan, options.view, settings, calcium)
    with progress.step("writing"):
        write(options.output, picture, scan.acquisition, options.identify)
    for warning in scan.warnings:
        progress.warning(warning)
    progress.done(options.output)
    print(f"Radiograph: {options.output}")
