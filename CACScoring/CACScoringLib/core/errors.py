"""Errors of both libraries: each message states what is wrong, with which value, and what to do."""

from __future__ import annotations

import re


class CTError(Exception):
    """Something given cannot be used. Its subclasses are errors that callers treat in a way of their own."""


def code_of(error: Exception) -> str:
    """Return the code of an error for programs: the name of its class, as "no-heart" for NoHeartError."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "-", type(error).__name__.removesuffix("Error")).lower()


class UnreadableError(CTError):
    """The file or folder does not exist or is in no format that can be read."""


class NotVolumeError(CTError):
    """The image is not one three-dimensional grey-level volume (2-D, 4-D, colour)."""


class NotHounsfieldError(CTError):
    """The voxel values are not Hounsfield units (label map, picture, stored values, NaN)."""


class NotCTError(CTError):
    """The modality is not CT."""


class SliceGeometryError(CTError):
    """Slices are missing, repeated, unevenly spaced, of mixed size or direction, or sheared by gantry tilt."""


class SeriesChoiceError(CTError):
    """The folder holds several CT series (or none that fits) and the user has to name one."""


class ContrastError(CTError):
    """The scan was made with a contrast agent, so calcium cannot be scored."""


class OrientationError(CTError):
    """The anatomy contradicts the orientation that the file's header states."""


class NoHeartError(CTError):
    """The field of view does not hold a heart."""


class MaskError(CTError):
    """A heart mask or lesion label map does not fit the scan."""


class OtherPatientError(CTError):
    """Scans to be compared are of different patients."""


class TableError(CTError):
    """A table is missing, cannot be read, or something in it is wrong. The message says where and what to do."""


class OutputError(Exception):
    """The results cannot be written where the user asked. The message says what to do."""


class WrongValueError(Exception):
    """A value is missing or of another type than its field.

    Attributes:
        value: The value; None if it is missing.
    """

    def __init__(self, place: str, value: object = None) -> None:
        """place: Path of the value in the content, such as "warnings[0].code"."""
        super().__init__(place.lstrip(".") or "content")
        self.value = value


class ModelError(CTError):
    """A model is missing, damaged, or not for this version. The message says what to do."""


class ProjectionError(CTError):
    """Radiograph that cannot be made of a CT in a geometry."""


class JournalError(CTError):
    """A journal cannot be read or written; its earlier entries remain."""


class ProjectError(CTError):
    """Damaged project, or unsuitable use of one. The message gives the reason and the remedy."""


class ProjectWriteError(ProjectError):
    """Failure to save a change to the disk. Earlier data are intact."""


class DataError(CTError):
    """Missing, unsuitable or too few training data. The message says what to do."""


class BadReferenceError(CTError):
    """A reference cannot be used. The message says which file, why, and what to do."""


class TooFewError(CTError):
    """Too few scans for a calibration. The message says what is missing."""


class InsertionError(CTError):
    """Lesion that cannot be inserted. The message says why and what to do."""


class ChangedError(CTError):
    """Change of the review since the reader saw it."""


class RefusedError(CTError):
    """Unknown or unsuitable content of a request."""
