"""Small stand-ins for scans of public collections, laid out as published."""

from pathlib import Path

import numpy as np
import pandas as pd
import SimpleITK as sitk
from dicom_files import write_series
from images import image_of

SPACING_MM = (2.0, 2.0, 3.0)
CALCIUM = (slice(2, 4), slice(5, 8), slice(5, 8))
"""Voxels of calcium [k, j, i]."""


def chest(seed: int = 0, hu: float = 400.0) -> np.ndarray:
    """HU [k, j, i] of soft tissue in air with one lesion, distinct by its seed."""
    values = np.full((8, 16, 18), -1000, np.int16)
    values[:, 3:13, 3:15] = np.random.default_rng(seed).integers(20, 60, (8, 10, 12))
    values[CALCIUM] = hu + 5 * np.arange(18).reshape(2, 3, 3)
    return values


def labels(label: int = 1, shift: int = 0) -> np.ndarray:
    """Label map of the lesion, moved by some columns."""
    values = np.zeros((8, 16, 18), np.uint8)
    values[CALCIUM] = label
    return np.roll(values, shift, axis=2)


def write_image(path: Path, values: np.ndarray, **facts: str) -> Path:
    """Write an image file. facts: Entries of its header."""
    image = image_of(values, SPACING_MM)
    for key, value in facts.items():
        image.SetMetaData(key, value)
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(image, str(path))
    return path


def write_scan(folder: Path, patient: str, seed: int = 0, **tags: object) -> list[Path]:
    """Write a DICOM series of a patient."""
    tags = {"PatientID": patient, **tags}
    return write_series(folder, chest(seed), spacing_mm=SPACING_MM, origin_mm=(0.0, 0.0, 0.0), tags=tags)


IMAGES = 8
"""Images of each series."""


def remote_series(uid: str, patient: str = "a", description: str = "", images: int = IMAGES, study: str = "s"):
    """Series of the Imaging Data Commons."""
    from CACTrainingLib.collections.commons import RemoteSeries

    return RemoteSeries(uid, patient, study, description, images, 0.5, "CC BY 4.0", f"s3://idc-open-data/{uid}/*")


class CommonsClient:
    """Client of the Imaging Data Commons with small series, which reports no failure, as idc-index's.

    Attributes:
        series: Series by their place.
        broken: UIDs of series whose download stops half way.
        error: Error of every download; None for none.
        fetched: UIDs in the order of their downloads.
        contrast_index: Contrast agents by series.
    """

    contrast_index = pd.DataFrame(
        [("1.0", ["NONE"]), ("1.7", None), ("1.8", ["Omnipaque", "ORAL & IV"])],
        columns=("SeriesInstanceUID", "ContrastBolusAgent"),
    )

    def __init__(self, series: list, broken: tuple[str, ...] = (), error: Exception | None = None) -> None:
        self.series = {entry.url: entry for entry in series}
        self.broken, self.error, self.fetched = set(broken), error, []

    def fetch_index(self, name: str) -> None:
        assert hasattr(self, name)

    def download_from_manifest(self, manifestFile, downloadDir, use_s5cmd_sync, dirTemplate, progress_callback):  # noqa: N803
        if self.error:
            raise self.error
        assert (use_s5cmd_sync, dirTemplate) == (True, "%PatientID/%SeriesInstanceUID")
        for line in Path(manifestFile).read_text(encoding="utf-8").splitlines():
            _, url, _ = line.split()
            entry = self.series[url]
            self.fetched.append(entry.uid)
            folder = Path(downloadDir, entry.patient, entry.uid)
            paths = write_scan(folder, entry.patient, len(self.fetched), SeriesInstanceUID=entry.uid)
            for path in paths[4:] if entry.uid in self.broken else ():
                path.unlink()
            progress_callback(5e5 * len(self.fetched), 5e5 * len(self.series), "B", "")
