"""Structure sets (RTSTRUCT) as another tool would write them."""

from __future__ import annotations

from pathlib import Path

import pydicom
import SimpleITK as sitk
from pydicom import Dataset
from pydicom.uid import ExplicitVRLittleEndian, RTStructureSetStorage, generate_uid


def write_structures(path: Path, image: sitk.Image, contours, frame_of_reference=None):
    """Write a structure set. contours: name and lists of corners (i, j, k) in the image."""
    made = Dataset()
    made.file_meta = pydicom.dataset.FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.file_meta.MediaStorageSOPClassUID = made.SOPClassUID = RTStructureSetStorage
    made.file_meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID = generate_uid()
    made.Modality = "RTSTRUCT"
    made.StructureSetROISequence, made.ROIContourSequence = [], []
    for number, (name, corners) in enumerate(contours, 1):
        roi, drawn = Dataset(), Dataset()
        roi.ROINumber, roi.ROIName = number, name
        if frame_of_reference:
            roi.ReferencedFrameOfReferenceUID = frame_of_reference
        drawn.ReferencedROINumber, drawn.ContourSequence = number, []
        for points in corners:
            contour = Dataset()
            places = [image.TransformContinuousIndexToPhysicalPoint([float(n) for n in p]) for p in points]
            contour.ContourGeometricType, contour.NumberOfContourPoints = "CLOSED_PLANAR", len(points)
            contour.ContourData = [f"{value:.4f}" for place in places for value in place]
            drawn.ContourSequence.append(contour)
        made.StructureSetROISequence.append(roi)
        made.ROIContourSequence.append(drawn)
    made.save_as(path, enforce_file_format=True)
    return path
