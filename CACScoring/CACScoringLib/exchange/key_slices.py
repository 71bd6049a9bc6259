"""Slices with most of the score as Secondary Captures (PS3.3 A.8), for archives that show no other objects."""

from __future__ import annotations

import heapq
import io
from collections import defaultdict

import numpy as np
from highdicom.sc import SCImage
from PIL import Image, ImageDraw
from pydicom import Dataset

from ..core.text import RESEARCH_ONLY
from ..record.scores import STATUSES
from ..report.pictures import slice_picture
from ..results import CalciumResult
from ..scoring.doubt import listed_lesions, number_of
from .source import SourceSeries

SERIES = 6
"""Last digit of its series number."""

_BAND = 38
"""Height of the text above a slice in pixels."""

MOST = 4
"""Largest number of key slices; `core.files.RESULT_FILES` names them."""


def key_slices(result: CalciumResult) -> list[int]:
    """Return indices of the scan's slices with most of the clinical score, from head to feet; none without lesions."""
    points: dict[int, float] = defaultdict(float)
    for lesion in result.methods["threshold"].lesions:
        for component in lesion.components:
            points[component.slice] += component.agatston
    return sorted(heapq.nlargest(MOST, points, key=points.__getitem__), reverse=True)


def key_picture(result: CalciumResult, k: int) -> Image.Image:
    """Draw a slice with its lesions outlined and numbered, below the status of the score and the research notice."""
    method = result.methods["threshold"]
    numbers = {lesion.id: number_of(method, lesion) for lesion in listed_lesions(method)}
    jpeg = slice_picture(result.scan, result.region.mask, method.lesion_set, k, numbers)
    drawing = Image.open(io.BytesIO(jpeg))
    picture = Image.new("RGB", (drawing.width, drawing.height + _BAND))
    picture.paste(drawing, (0, _BAND))
    text = f"{STATUSES[method.status].capitalize()}\n{RESEARCH_ONLY}"
    ImageDraw.Draw(picture).text((6, 4), text, fill="white", font_size=12)
    return picture


def key_images_of(result: CalciumResult, source: SourceSeries) -> list[SCImage]:
    """Return a colour picture per key slice that refers to the slice's image."""
    images = []
    for number, k in enumerate(key_slices(result), 1):
        identity = source.identity(SERIES, f"key slice {number}")
        identity |= {"series_instance_uid": source.uid("key slices", "series"), "instance_number": number}
        origin = source.images[source.slice_of(k)]
        image = SCImage.from_ref_dataset(
            origin,
            np.asarray(key_picture(result, k)),
            photometric_interpretation="RGB",
            bits_allocated=8,
            coordinate_system="PATIENT",
            patient_orientation=("L", "P"),
            transfer_syntax_uid="1.2.840.10008.1.2.1",
            series_description="CAC: key slices",
            **identity,
        )
        image.ImageType = ["DERIVED", "SECONDARY"]
        image.BurnedInAnnotation, image.Laterality = "NO", ""
        image.DerivationDescription = "Slice with outlines of calcium by artery"
        reference = Dataset()
        reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = origin.SOPClassUID, origin.SOPInstanceUID
        image.SourceImageSequence = [reference]
        images.append(source.complete(image))
    return images
