"""Registration of the bundled digital patient with 3D Slicer's Sample Data module.

The file is part of CAC, so it needs no connection; Slicer copies it into its cache like a download.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

CATEGORY = "CAC"
SAMPLE_NAME = "CACDigitalPatient"
"""Name of the sample and of its node, as in `SampleData.downloadSample(SAMPLE_NAME)`."""

CHECKSUM = "SHA256:0350fa7cdc41446487f3d3d553220655053eb318ce0d55242a684c767acd2321"


def sample_file() -> Path:
    """Return the CT's NRRD file, HU; `Resources/SampleData/README.md` describes its origin and licence."""
    return Path(__file__).resolve().parents[2] / "Resources" / "SampleData" / f"{SAMPLE_NAME}.nrrd"


def register() -> None:
    """Register the patient with the Sample Data module; connected to Slicer's `startupCompleted`.

    Does nothing in applications built without that module, or if called again.
    """
    if importlib.util.find_spec("SampleData") is None:
        return
    from SampleData import SampleDataLogic

    file = sample_file()
    SampleDataLogic.registerCustomSampleDataSource(
        category=CATEGORY,
        sampleName=SAMPLE_NAME,
        uris=file.as_uri(),
        fileNames=file.name,
        nodeNames=SAMPLE_NAME,
        thumbnailFileName=str(file.with_suffix(".png")),
        loadFileType="VolumeFile",
        checksums=CHECKSUM,
    )
