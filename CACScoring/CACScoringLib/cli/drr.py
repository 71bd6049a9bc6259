"""`cac drr`: a radiograph of a CT as a picture, a measured image, or DICOM."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ..core.ct import CTError
from ..core.output import OutputError
from ..core.progress import Progress
from .options import SERIES_HELP

if TYPE_CHECKING:
    from ..drr.projection import Geometry, Spectrum


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
        metavar="VIEW",
        help="projection (default: PA): PA, AP, lateral (left), or the detector's angle in degrees, 0 in front of "
        "the chest and 90 at the patient's left",
    )
    add("--tilt", type=float, default=0.0, metavar="DEGREES", help="tilt of the detector towards the head (default: 0)")
    add("--pixels", type=int, default=1024, metavar="N", help="rows and columns of the detector (default: 1024)")
    add("--detector", type=float, default=430.0, metavar="MM", help="width and height of the detector (default: 430)")
    add(
        "--source-detector",
        type=float,
        default=1800.0,
        metavar="MM",
        help="distance from the source to the detector (default: 1800)",
    )
    add(
        "--source-isocentre",
        type=float,
        default=1600.0,
        metavar="MM",
        help="distance from the source to the isocentre (default: 1600)",
    )
    add("--parallel", action="store_true", help="use parallel rays instead of a cone beam")
    energy = parser.add_mutually_exclusive_group()
    energy.add_argument("--energy", type=float, metavar="KEV", help="energy of monochromatic photons (default: 70)")
    energy.add_argument(
        "--kvp",
        type=float,
        metavar="KVP",
        help="use the spectrum of an X-ray tube with 3 mm of aluminium filtration instead",
    )
    add("--linear", action="store_true", help="show the intensity instead of its logarithm")
    add(
        "--noise",
        type=float,
        metavar="PHOTONS",
        help="add Poisson noise for this number of photons per pixel without a patient",
    )
    add("--seed", type=int, default=0, help="seed of the noise (default: 0)")
    add(
        "--scatter",
        type=float,
        default=0.0,
        metavar="FRACTION",
        help="scattered fraction of the signal, from 0 to below 1 (default: 0)",
    )
    add("--table", action="store_true", help="keep the table and clothes in the image")
    add(
        "--calcium-map",
        type=Path,
        metavar="FILE",
        help="show only the calcium of this map (calcium_map.nii.gz of cac score)",
    )
    add("--identify", action="store_true", help="include patient name, id, sex and study date in the DICOM file")
    parser.set_defaults(run=run, interrupted="Interrupted. Nothing was written.")


def run(options: argparse.Namespace, progress: Progress) -> None:
    """Compute and write the radiograph. Raises CTError, OutputError."""
    from ..drr import files as drr_files
    from ..drr.projection import Film, body_only, radiograph, view_named
    from ..io.reading import read_ct, read_mask

    write = drr_files.writer_for(options.output)
    if options.output.exists() and not options.overwrite:
        raise OutputError(f"{options.output} already exists. Choose another --output, or replace it with --overwrite.")
    geometry = view_named(
        options.view,
        tilt_degrees=options.tilt,
        parallel=options.parallel,
        source_detector_mm=options.source_detector,
        source_isocentre_mm=options.source_isocentre,
        detector_mm=(options.detector,) * 2,
        pixels=(options.pixels,) * 2,
    )
    spectrum = _spectrum(options)
    film = Film(options.linear, scatter_fraction=options.scatter, photons=options.noise, seed=options.seed)
    if options.seed < 0:
        raise OutputError(f"The seed is {options.seed}. Give 0 or more.")
    progress.begin(["reading", "projecting", "writing"])
    with progress.step("reading"):
        scan = read_ct(options.ct, options.series)
        calcium = None
        if options.calcium_map:
            calcium = read_mask(options.calcium_map)
            _check_map(calcium, scan.image, options.calcium_map)
        image = scan.image if options.table or calcium is not None else body_only(scan.image)
    with progress.step("projecting"):
        picture = radiograph(image, _centred(geometry, scan.image), spectrum, film, calcium)
    with progress.step("writing"):
        write(options.output, picture, scan.acquisition, options.identify)
    for warning in scan.warnings:
        progress.warning(warning)
    progress.done(options.output)
    print(f"Radiograph: {options.output}")


def _spectrum(options: argparse.Namespace) -> Spectrum:
    from ..drr.projection import Spectrum, tube_spectrum

    if options.kvp is not None:
        return tube_spectrum(options.kvp)
    return Spectrum() if options.energy is None else Spectrum((options.energy,))


def _centred(geometry: Geometry, image) -> Geometry:
    """With the scan's centre as the isocentre, so that a map on a smaller grid is shown at its place in the scan."""
    from dataclasses import replace

    return replace(
        geometry, isocentre_mm=image.TransformContinuousIndexToPhysicalPoint([(n - 1) / 2 for n in image.GetSize()])
    )


def _check_map(calcium, image, path: Path) -> None:
    from ..core.ct import same_grid

    if calcium.GetDimension() != 3 or not same_grid(calcium, image):
        raise CTError(
            f"{path.name} is on a different grid from the CT. Give the calcium map that was computed from this CT."
        )
