"""Doubles of Slicer's DICOM database and of importing into it (commontk/CTK Libs/DICOM/Core/ctkDICOMDatabase.h,
Slicer/Slicer Modules/Scripted/DICOMLib/DICOMUtils.py)."""

from __future__ import annotations

import logging
import shutil
import types
from pathlib import Path

import pydicom
from pydicom.datadict import keyword_for_tag
from pydicom.multival import MultiValue


class ctkDICOMDatabase:
    """Index of files by UID, in memory.

    Like CTK, it returns an empty text or an empty tuple for unknown UIDs, and never raises. Properties are read-only
    attributes; there are no other attributes.
    """

    __slots__ = ("_files", "_folder", "_is_open")

    def __init__(self, folder: Path) -> None:
        self._folder = Path(folder)
        self._files: dict[str, Path] = {}
        self._is_open = False

    @property
    def isOpen(self) -> bool:
        return self._is_open

    @property
    def databaseDirectory(self) -> str:
        return str(self._folder)

    def openDatabase(self, databaseFile: str, connectionName: str = "") -> None:
        self._is_open = True

    def seriesForStudy(self, studyUID: str) -> tuple[str, ...]:
        return self._distinct("SeriesInstanceUID", StudyInstanceUID=_text(studyUID))

    def studyForSeries(self, seriesUID: str) -> str:
        return next(iter(self._distinct("StudyInstanceUID", SeriesInstanceUID=_text(seriesUID))), "")

    def filesForSeries(self, seriesUID: str, hits: int = -1) -> tuple[str, ...]:
        uids = self._distinct("SOPInstanceUID", SeriesInstanceUID=_text(seriesUID))
        return tuple(str(self._files[uid]) for uid in uids)[: None if hits < 0 else hits]

    def descriptionForSeries(self, seriesUID: str) -> str:
        return next(iter(self._distinct("SeriesDescription", SeriesInstanceUID=_text(seriesUID))), "")

    def fileForInstance(self, sopInstanceUID: str) -> str:
        return str(self._files.get(_text(sopInstanceUID), ""))

    def seriesForFile(self, fileName: str) -> str:
        return self.fileValue(fileName, "0020,000e")

    def instanceValue(self, sopInstanceUID: str, tag: str) -> str:
        return self.fileValue(self.fileForInstance(sopInstanceUID), tag)

    def fileValue(self, fileName: str, tag: str) -> str:
        if Path(_text(fileName)) not in self._files.values():
            return ""
        return _value(fileName, keyword_for_tag("".join(tag.split(","))))

    def _distinct(self, keyword: str, **uids: str) -> tuple[str, ...]:
        files = [f for f in self._files.values() if all(_value(f, name) == uid for name, uid in uids.items())]
        return tuple(dict.fromkeys(value for value in (_value(file, keyword) for file in files) if value))

    def _insert(self, path: Path, copy: bool) -> None:
        try:
            header = pydicom.dcmread(path, stop_before_pixels=True)
        except (pydicom.errors.InvalidDicomError, OSError):
            return
        # CTK refuses objects without study, series or instance.
        if not all(header.get(name) for name in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")):
            logging.error("DICOM file %s lacks study, series or instance UID", path)
            return
        uid = str(header.SOPInstanceUID)
        if copy:
            target = self._folder / "dicom" / uid
            target.parent.mkdir(parents=True, exist_ok=True)
            path = Path(shutil.copy(path, target))
        self._files[uid] = Path(path)


def _text(value: str) -> str:
    """Return a text, or raise ValueError as PythonQt does for paths and numbers."""
    if not isinstance(value, str):
        raise ValueError(f"Could not find matching overload for given arguments: {value!r}")
    return value


def _value(path: Path | str, keyword: str) -> str:
    value = pydicom.dcmread(path, stop_before_pixels=True).get(keyword)
    return "\\".join(map(str, value)) if isinstance(value, MultiValue) else "" if value is None else str(value)


def importDicom(dicomDataDir: str, dicomDatabase=None, copyFiles: bool = False) -> bool:
    """Import a folder like DICOMUtils: skip unreadable files, and log exceptions instead of raising them."""
    import slicer

    database = slicer.dicomDatabase if dicomDatabase is None else dicomDatabase
    try:
        for path in sorted(Path(_text(dicomDataDir)).rglob("*")):
            if path.is_file():
                database._insert(path, copyFiles)
    except (ValueError, OSError):
        logging.exception("Failed to import DICOM folder %s", dicomDataDir)
        return False
    return True


def dicom_lib() -> types.ModuleType:
    """Return the module DICOMLib."""
    utilities, library = types.ModuleType("DICOMLib.DICOMUtils"), types.ModuleType("DICOMLib")
    utilities.importDicom = library.importDicom = importDicom
    library.DICOMUtils = utilities
    return library
