"""`cac drr`: a radiograph of a CT as a picture, a measured image, or DICOM."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..core.errors import OutputError
from ..core.options import argument, option, settings_from
from ..core.progress import Progress
from .options import NOTHING_WRITTEN, SERIES, Command, from_file, settings_option


@dataclass(frozen=True)
class DrrOptions:
    """Compute a digitally reconstructed radiograph from a CT, as acquired at a chest stand.

    Attributes:
        ct: DICOM folder, NIfTI, NRRD or MHA.
        output: Output file, whose extension selects the format: .png for a picture, .dcm for a DICOM radiograph,
            .nii.gz, .nrrd or .mha for line integrals.
        overwrite: Replace the image if it exists.
        view: Projection (default: PA): PA, AP, lateral (left), or the detector's angle in degrees, 0 in front of the
            chest and 90 at the patient's left.
        pixels: Rows and columns of the detector (default: 1024).
        kvp: Use the spectrum of a tube with 3 mm of aluminium (default: photons of 70 keV).
        calcium_map: Show only the calcium of this map (calcium_map.nii.gz of cac score).
        identify: Include patient name, ID, sex and study date in the DICOM file.
    """

    ct: Path = argument(metavar="CT")
    output: Path = option(metavar="IMAGE")
    overwrite: bool = False
    series: str | None = option(None, SERIES, metavar="NUMBER|UID")
    view: str = "PA"
    pixels: int | None = option(None, metavar="N")
    kvp: float | None = None
    calcium_map: Path | None = option(None, metavar="FILE")
    settings: tuple[str, ...] = settings_option('{"source_detector_mm": 1500, "photons": 20000}')
    identify: bool = False


def run(options: DrrOptions, progress: Progress) -> None:
    """Compute and write the radiograph. Raises CTError, OutputError."""
    from ..api import project_radiograph
    from ..drr import files as drr_files
    from ..drr.geometry import view_named
    from ..drr.settings import DrrSettings
    from ..io.reading import read_ct, read_mask

    write = drr_files.writer_for(options.output)
    if options.output.exists() and not options.overwrite:
        raise OutputError(f"{options.output} already exists. Choose another --output, or replace it with --overwrite.")
    settings = settings_from(options, from_file(options.settings, None, DrrSettings()), ("pixels", "kvp"))
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


add_arguments = Command(DrrOptions, run, interrupted=NOTHING_WRITTEN).declare
