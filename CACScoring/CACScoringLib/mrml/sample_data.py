"""The digital patient that comes with CAC, as 3D Slicer's Sample Data module offers it.

It is bundled, so that it can be tried without a network; Slicer copies it into its cache like a download.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

CATEGORY = "CAC"
SAMPLE_NAME = "CACDigitalPatient"
"""Also of the node: `SampleData.downloadSample(SAMPLE_NAME)` loads it."""

CHECKSUM = "SHA256:0350fa7cdc41446487f3d3d553220655053eb318ce0d55242a684c767acd2321"


def sample_file() -> Path:
    """The CT: NRRD, HU; `Resources/SampleData/README.md` describes its origin and licence."""
    return Path(__file__).resolve().parents[2] / "Resources" / "SampleData" / f"{SAMPLE_NAME}.nrrd"


def register() -> None:
    """Make the patient known to the Sample Data module; once more does nothing. For Slicer's `startupCompleted`.

    Does nothing in applications built without that module.
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
